"""Which configs belong together: records may be shared by runs with the same fingerprint."""

import hashlib
import json
from typing import Any

from pydantic import ValidationError

from utils.config.operators import OURS
from utils.config.sections import DAPS, Data, Fidelity, nan_as_word
from utils.config.settings import settings_of
from utils.errors import short
from utils.mechanisms.registry import PLANS

# what may differ between runs whose records belong together
NOT_IN_FINGERPRINT = (
    "gpu",
    "num_cores",
    "shard",
    "workers",
    "threads",
    "batch_images",
    "max_particles_per_pass",
    "compile",
    "gradient_checkpointing",
    "chain_check",
    "metrics",
    "save_arrays",
    "callbacks",
    "save_dir",
    "name",
    "resume",
)

# keys that are gone, with the value at which they did nothing: configs that hold it are today's without the key
REMOVED: dict[tuple[str, ...], Any] = {
    ("portfolio",): [],
    ("coupling_scale",): 0.0,
    ("sequential", "thresholds", "stop_step"): None,
    ("sequential", "thresholds", "stop_deviation"): None,
    ("free_fraction",): 0.0,
    ("selection",): {"rule": "loss"},
    ("step_clock",): "progress",
    ("fidelity", "silog"): 0.0,
    ("fidelity", "ssi"): 0.0,
    ("fidelity", "gradient"): 0.0,
    **{(plan.name, key): value for plan in PLANS for key, value in plan.removed.items()},
}
ONLY_READ_BY = {"parametrization": ("bound", "warmup")}  # keys that are gone with another one


def fingerprint(nodes: dict[str, Any]) -> str:
    """Hash of all of a resolved config that changes results: two runs with the same one may share records."""
    covered = _with_floats(identity(nodes), without_removed(nodes))
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()[:16]


def without_removed(nodes: dict[str, Any]) -> dict[str, Any]:
    """A config without the keys that are gone, where they did nothing."""
    for path, without_effect in REMOVED.items():
        nodes = _without(nodes, path, without_effect)
    return nodes


def _without(nodes: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A config without the key at `path` where it holds `value`."""
    key, *below = path
    if below and isinstance(nodes.get(key), dict):
        return {**nodes, key: _without(nodes[key], tuple(below), value)}
    if not below and key in nodes and nodes[key] == value:
        gone = (key, *ONLY_READ_BY.get(key, ()))
        return {name: other for name, other in nodes.items() if name not in gone}
    return nodes


def _with_floats(covered: dict[str, Any], nodes: dict[str, Any]) -> dict[str, Any]:
    """The identity with 2 as 2.0 where a key takes floats: to JSON they are two things."""
    try:
        typed = settings_of(nodes).model_dump(by_alias=True)
        typed["task"] = group = typed["task"][nodes["task_group"]]
        target, arguments = group["operator"].pop("_target_"), group["operator"]
        if target in OURS:
            group["operator"] = OURS[target].model_validate(arguments).model_dump()
    except ValidationError:  # of an older version: as it is
        return covered

    def like(value: Any, other: Any) -> Any:
        if isinstance(value, dict) and isinstance(other, dict):
            return {key: like(inner, other.get(key)) for key, inner in value.items()}
        return float(value) if isinstance(other, float) and isinstance(value, int) else value

    return like(covered, typed)


def identity(nodes: dict[str, Any]) -> dict[str, Any]:
    """The part of a resolved config that the fingerprint covers: the selected task group only, without places and batching,
    and without the details of parts that are off."""
    written = nodes.get("fidelity", {})
    nodes = without_removed(nodes)
    covered = {k: v for k, v in nodes.items() if k not in (*NOT_IN_FINGERPRINT, "task")}
    usual = {name: field.default for name, field in Data.model_fields.items() if not field.is_required()}
    data = {k: nan_as_word(v) for k, v in nodes["data"].items() if k not in ("start_id", "end_id", "source", "linked_folders")}
    covered["data"] = {k: v for k, v in data.items() if k not in usual or v != usual[k]}
    covered["model"] = {k: v for k, v in nodes["model"].items() if k != "source"}
    covered["task"] = nodes["task"][nodes["task_group"]]
    covered["sampler"] = _algorithm(nodes["sampler"])
    covered.setdefault("step_clock", "progress")  # gone, but part of every hash, as what mechanisms add
    covered |= {plan.name: plan.retired(covered[plan.name]) for plan in PLANS if isinstance(covered.get(plan.name), dict)}
    if written:  # the terms that are gone stand at 0 in every record of another data term
        removed = [path[1] for path in REMOVED if path[0] == "fidelity"]
        zeros = {key: 0.0 for key in removed if key in written or "terms" in written}
        covered["fidelity"] = zeros | {k: v for k, v in nodes["fidelity"].items() if k != "terms" or v}
    # full precision and the group's own likelihood carry no mark: records from before there was a choice stay valid
    off = {
        "temperature": nodes.get("temperature") is None,
        "precision": nodes.get("precision", "fp32") == "fp32",
        "fidelity": _is_the_operators_own(nodes.get("fidelity", {})),
        "mechanisms": not nodes.get("mechanisms"),
        "population": nodes.get("population", "fixed") == "fixed",
        "sequential": nodes.get("population", "fixed") == "fixed",
        **{key: True for plan in PLANS for key in plan.unused(nodes)},
    }
    if "sequential" in covered:  # what was read from the file stands in its thresholds
        covered["sequential"] = {key: value for key, value in covered["sequential"].items() if key != "certificate"}
    return {key: value for key, value in covered.items() if not off.get(key)}


def _algorithm(sampler: dict[str, Any]) -> dict[str, Any]:
    """The block `sampler` without what says nothing: that it is LatentDAPS, and that nothing is denoised at its end."""
    covered = {key: value for key, value in sampler.items() if (key, value) != ("_target_", DAPS)}
    diffusion = covered.get("diffusion_scheduler_config")
    if isinstance(diffusion, dict) and not diffusion.get("final_sigma"):
        covered["diffusion_scheduler_config"] = {key: value for key, value in diffusion.items() if key != "final_sigma"}
    return covered


def _is_the_operators_own(fidelity: dict[str, Any]) -> bool:
    """Whether a block `fidelity` leaves the data term to the operator."""
    try:
        return Fidelity.model_validate(fidelity).is_default
    except ValidationError:  # of an older version, with a term that is gone
        return False


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """["key is old there and new here", ...] between two nested dicts; what one lacks is "the default"."""
    lines = []
    for key in sorted(set(old) | set(new), key=str):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            before, now = (side[key] if key in side else "the default" for side in (old, new))
            lines.append(f"{prefix}{key} is {short(before)} there and {short(now)} here")
    return lines
