"""Which configs belong together: records may be shared by runs with the same fingerprint."""

import hashlib
import json
from typing import Any

from pydantic import ValidationError

from utils.config.operators import OURS
from utils.config.sections import Data, Fidelity, PortfolioEntry, nan_as_word
from utils.config.settings import Settings

# what may differ between runs whose records belong together
NOT_IN_FINGERPRINT = (
    "gpu",
    "num_cores",
    "shard",
    "batch_images",
    "max_particles_per_pass",
    "compile",
    "gradient_checkpointing",
    "chain_check",
    "save_dir",
    "name",
    "resume",
)

# keys that are gone, with the value at which they did nothing: configs that hold it are today's without the key
REMOVED = {("recombination", "rescue"): "none"}

STOPS = ("stop_step", "stop_deviation")
OF_THE_RESIDUAL = ("parametrization", "bound", "warmup")  # of the optimisation, which moves the latent itself without it


def fingerprint(nodes: dict[str, Any]) -> str:
    """Hash of all of a resolved config that changes results: two runs with the same one may share records."""
    nodes = _without_removed(nodes)
    return hashlib.sha256(json.dumps(_with_floats(identity(nodes), nodes), sort_keys=True).encode()).hexdigest()[:16]


def _without_removed(nodes: dict[str, Any]) -> dict[str, Any]:
    """A config without the keys that are gone, where they did nothing."""
    for (section, key), without_effect in REMOVED.items():
        inner = nodes.get(section, {})
        if inner.get(key) == without_effect:
            nodes = {**nodes, section: {name: value for name, value in inner.items() if name != key}}
    return nodes


def _with_floats(kept: dict[str, Any], nodes: dict[str, Any]) -> dict[str, Any]:
    """The identity with 2 as 2.0 where a key takes floats: to JSON they are two things."""
    try:
        typed = Settings.model_validate(nodes).model_dump(by_alias=True)
        typed["task"] = group = typed["task"][nodes["task_group"]]
        target, arguments = group["operator"].pop("_target_"), group["operator"]
        if target in OURS:
            group["operator"] = OURS[target].model_validate(arguments).model_dump()
    except ValidationError:  # of an older version: as it is
        return kept

    def like(value: Any, other: Any) -> Any:
        if isinstance(value, dict) and isinstance(other, dict):
            return {key: like(inner, other.get(key)) for key, inner in value.items()}
        return float(value) if isinstance(other, float) and isinstance(value, int) else value

    return like(kept, typed)


def identity(nodes: dict[str, Any]) -> dict[str, Any]:
    """The part of a resolved config that the fingerprint covers: the selected task group only, without places and batching,
    and without the details of parts that are off."""
    nodes = _without_removed(nodes)
    kept = {k: v for k, v in nodes.items() if k not in (*NOT_IN_FINGERPRINT, "task")}
    usual = {name: field.default for name, field in Data.model_fields.items() if not field.is_required()}
    data = {k: nan_as_word(v) for k, v in nodes["data"].items() if k not in ("start_id", "end_id", "source")}
    kept["data"] = {k: v for k, v in data.items() if k not in usual or v != usual[k]}
    kept["model"] = {k: v for k, v in nodes["model"].items() if k != "source"}
    kept["task"] = nodes["task"][nodes["task_group"]]
    kept["sampler"] = dict(nodes["sampler"])
    diffusion = kept["sampler"]["diffusion_scheduler_config"] = dict(nodes["sampler"]["diffusion_scheduler_config"])
    if not diffusion.get("final_sigma"):
        diffusion.pop("final_sigma", None)
    if nodes["optimization"].get("parametrization", "free") == "free":
        kept["optimization"] = {k: v for k, v in nodes["optimization"].items() if k not in OF_THE_RESIDUAL}
    kept["portfolio"] = [PortfolioEntry.model_validate(e).model_dump(exclude_defaults=True) for e in nodes.get("portfolio", [])]
    # full precision and the group's own likelihood carry no mark: records from before there was a choice stay valid
    off = {
        "temperature": nodes.get("temperature") is None,
        "free_fraction": not nodes.get("free_fraction"),
        "selection": nodes.get("selection", {"rule": "loss"})["rule"] == "loss",
        "precision": nodes.get("precision", "fp32") == "fp32",
        "repulsion": not nodes["repulsion_scale"] or nodes["num_samples"] == 1,
        "pruning": nodes["pruning_step"] < 0,
        "pruning_keep": nodes["pruning_step"] < 0,
        "children": not nodes.get("children"),
        "coupling_scale": not nodes.get("coupling_scale"),
        "tree": not nodes.get("children"),
        "optimization": nodes["optimization_step"] < 0,
        "recombination_step": nodes.get("recombination_step", -1) < 0,
        "recombination": nodes.get("recombination_step", -1) < 0,
        "fidelity": Fidelity.model_validate(nodes.get("fidelity", {})).is_default,
        "mechanisms": not nodes.get("mechanisms"),
        "population": nodes.get("population", "fixed") == "fixed",
        "sequential": nodes.get("population", "fixed") == "fixed",
        "portfolio": not any(kept["portfolio"]),
    }
    if "sequential" in kept:  # what was read from the file stands in its thresholds
        kept["sequential"] = {key: value for key, value in kept["sequential"].items() if key != "certificate"}
        if kept["sequential"].get("thresholds"):  # configs from before a particle could stop early stay valid
            own = kept["sequential"]["thresholds"]
            kept["sequential"]["thresholds"] = {k: v for k, v in own.items() if k not in STOPS or v is not None}
    return {key: value for key, value in kept.items() if not off.get(key)}


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """["key is old there and new here", ...] between two nested dicts; what one lacks is "the default"."""
    found = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            there, here = (side[key] if key in side else "the default" for side in (old, new))
            found.append(f"{prefix}{key} is {there} there and {here} here")
    return found
