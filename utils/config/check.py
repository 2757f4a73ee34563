"""Checks the composed config before anything heavy is imported or anything on disk is touched."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from utils.config.counts import settings_of_counts
from utils.config.fingerprint import differences, fingerprint, identity
from utils.config.levels import at_each_level
from utils.config.metadata import run_metadata
from utils.config.model import check_model
from utils.config.overrides import unknown_key
from utils.config.relations import check_chain, check_relations, clock_of
from utils.config.section import fault
from utils.config.settings import Composition, Settings, settings_of
from utils.digests import of_prior, other_content
from utils.errors import InputError, one_line, short
from utils.mechanisms import registry
from utils.paths import find
from utils.population.settings import (
    FILE,
    TOOL,
    UNCALIBRATED,
    Sequential,
    Thresholds,
    certificates,
    holds_for,
    read_certificate,
)
from utils.weights import beside_checkpoint


def check(cfg: DictConfig, overrides: Sequence[str] | None = None) -> Settings:
    """The one object that describes a run from here on: typed settings with what was composed (`composition`).

    overrides: what `cfg` was composed with in Python; None: on the command line, as Hydra knows it.
    Raises InputError naming the first wrong key and its value.
    """
    hydra = HydraConfig.get() if overrides is None and HydraConfig.initialized() else None
    given_overrides = list(hydra.overrides.task if hydra else overrides or ())
    nodes, settings = _typed(cfg)
    check_relations(settings)
    if of_counts := settings_of_counts(settings, [text.lstrip("+~").partition("=")[0] for text in given_overrides]):
        cfg = _with(cfg, of_counts)
        nodes, settings = _typed(cfg)
        check_relations(settings)
    notes = of_different_kinds(settings.data.root, settings.model.path)
    if settings.population == "sequential" and settings.sequential.thresholds is None:
        thresholds, of_thresholds = thresholds_for(settings.sequential, identity(nodes))
        cfg = _with(cfg, {"sequential.thresholds": thresholds.model_dump()})
        nodes, settings = _typed(cfg)
        notes += of_thresholds
    documents = {"config.yaml": OmegaConf.to_yaml(cfg, resolve=True)}  # what a run folder keeps
    if hydra:
        documents[".hydra/config.yaml"] = OmegaConf.to_yaml(cfg)
        documents[".hydra/hydra.yaml"] = OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra}))
        documents[".hydra/overrides.yaml"] = yaml.safe_dump(given_overrides)
    about = run_metadata(settings.seed, settings.num_samples, given_overrides)
    settings = settings.composed(Composition(nodes, identity(nodes), fingerprint(nodes), about, documents, notes))
    level: Settings | None
    level = last = at_each_level(settings)
    while level is not None and level is not settings:
        check_model(level.model)
        check_chain(level)
        registry.check(level, clock_of(level))
        level = level.below
    return last


def _typed(cfg: DictConfig) -> tuple[dict[str, Any], Settings]:
    """The resolved config, and the same as typed values. Raises InputError."""
    try:
        if missing := sorted(OmegaConf.missing_keys(cfg)):
            raise InputError(f"{missing[0]}: give it a value, for example {missing[0]}=...")
        nodes: dict[str, Any] = dict(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
        return nodes, settings_of(nodes)
    except OmegaConfBaseException as error:  # ${...} that leads nowhere
        raise InputError(f"{error.full_key or 'config'}: {one_line(error)}; give it a value") from None
    except ValidationError as error:
        key_and_value, reason = fault(error, nodes)
        unknown = error.errors()[0]["type"] == "extra_forbidden"
        raise InputError(unknown_key(key_and_value) if unknown else f"{key_and_value}: {reason}") from None


def _with(cfg: DictConfig, values: Mapping[str, Any]) -> DictConfig:
    """A config with other values of some keys, which it may lack."""
    cfg = cfg.copy()
    for key, value in values.items():
        OmegaConf.update(cfg, key, value, force_add=True)
    return cfg


# {what the images show: words in the names of sets and priors of them}, for kinds of which a prior of one draws no other
KINDS = {
    "faces": ("faces", "ffhq", "celeba"),
    "scenes": ("scenes",),
    "photographs": ("photos", "imagenet", "cifar10"),
}


def of_different_kinds(root: str, path: str) -> tuple[str, ...]:
    """A line where data.root and model.path, by their names, are of different kinds; a prior of photographs knows many."""
    of_data, of_model = _kind_of(root), _kind_of(path)
    if of_data is None or of_model in (None, of_data, "photographs"):
        return ()
    return (
        f"data.root={root} holds {of_data}, by its name, and model.path={path} is a prior of {of_model}: it knows no others",
    )


def _kind_of(place: str) -> str | None:
    """What the images show by the place's name; None where the name does not say."""
    name = "/".join(Path(place).parts[-2:])
    return next((kind for kind, words in KINDS.items() if any(word in name for word in words)), None)


def thresholds_for(s: Sequential, identity_of_run: dict[str, Any]) -> tuple[Thresholds, tuple[str, ...]]:
    """The certificate's thresholds, or those used where there is none, and the lines that the log says of them.

    Raises InputError for one of other weights.
    """
    model_path = identity_of_run["model"]["path"]
    if s.certificate is None:
        paths = certificates(model_path)
    else:
        paths = [find(s.certificate)]
        if not paths[0].is_file():
            raise InputError(f"sequential.certificate={s.certificate}: file not found; make it with {TOOL}, or write null")
    if not paths:
        place = beside_checkpoint(model_path, FILE) or f"for {model_path}"
        return UNCALIBRATED, (
            f"no certificate {place}: a particle passes with a loss within "
            f"{UNCALIBRATED.deviation:g} standard deviations of its floor and a correlation of {UNCALIBRATED.agreement} with "
            f"another, hence two at least; {TOOL} makes one",
        )
    tried, prior, of_run = [], of_prior(identity_of_run["model"]), holds_for(identity_of_run)
    for path in paths:
        certificate = read_certificate(path)
        if other_content(certificate.prior, prior):
            continue
        held, untold = certificate.held_against(of_run)
        changed = differences(held, of_run)
        if certificate.sigmas != s.sigmas:
            changed.append(f"sequential.sigmas is {certificate.sigmas} there and {s.sigmas} here")
        if not changed:
            return certificate.thresholds, _older(path, untold)
        tried.append((path, certificate, changed, untold))
    if not tried:
        raise InputError(
            f"certificate {paths[0]}: was calibrated for other weights than those of model.path={short(model_path)}; make it "
            f"again with {TOOL}, or give sequential.thresholds"
        )
    path, certificate, changed, untold = tried[0]
    more = f" (and {len(changed) - 2} more)" if len(changed) > 2 else ""
    note = f"certificate {path} was calibrated elsewhere: {'; '.join(changed[:2])}{more}"
    return certificate.thresholds, (note, *_older(path, untold))


def _older(path: Path, untold: Sequence[str]) -> tuple[str, ...]:
    """What the log says of a certificate of an older version; untold: keys of the run that it says nothing of."""
    if not untold:
        return ()
    return (f"certificate {path} is older and cannot tell whether it holds for {', '.join(untold)}; {TOOL} makes it anew",)
