"""From a name, keys and objects to a model."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from latentdaps.inputs import IN_MEMORY
from latentdaps.model import Model
from utils import device as devices
from utils.config.compose import compose, quoted
from utils.errors import InputError
from utils.paths import PROJECT

if TYPE_CHECKING:
    from operators.base import Operator
    from utils.priors.base import LatentPrior

OF_ONES_OWN = ("mechanisms.", "metrics.", "fidelity.terms.")  # blocks to which a user adds keys


def load(
    name: str | None = None,
    /,
    *,
    prior: "LatentPrior | None" = None,
    operator: "Operator | None" = None,
    overrides: Sequence[str] = (),
    **keys: Any,
) -> Model:
    """Prior, operator and sampler of a configuration, ready to measure and to sample. Raises InputError.

    name: of configs/model; None: the default. Where a data set of configs/data has it too, that is the set of `measure()`
    prior, operator: objects in the place of those that the configuration names; `gpu` is then by default where the prior is
    keys: any key of the configuration, nested ones as dicts: sampler="fast", data={"end_id": 3}
    overrides: further ones as on the command line: "data.end_id=3"
    """
    texts = [text for key, value in keys.items() for text in overrides_of(key, value)] + list(overrides)
    first = [] if name is None else [f"model={name}"]
    if prior is not None:
        first += ["model=own", f"gpu={devices.gpu_of(prior.device)}"]
    if first and not any(text.startswith(("data=", "experiment=")) for text in texts):
        own_set = prior is None and (PROJECT / "configs/data" / f"{name}.yaml").is_file()
        first += [f"data={name}"] if own_set else ["data=folder", f'data.root="{IN_MEMORY}"']
    cfg = compose([*first, *texts])
    if prior is not None:
        cfg.model = {"_target_": class_of(prior), "path": IN_MEMORY, "resolution": prior.resolution}
    if operator is not None:
        group = cfg.task[cfg.task_group]
        group.operator = {"_target_": class_of(operator), "sigma": float(operator.sigma)}
    digests = {name: digest_of(part) for name, part in (("prior", prior), ("operator", operator)) if part is not None}
    return Model(cfg, [*first, *texts], prior, operator, digests)


def overrides_of(key: str, value: Any) -> Iterator[str]:
    """A key with its value as the command line writes them; a dict is one override for each of its values."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from overrides_of(f"{key}.{name}", inner)
        return
    new = "++" * key.startswith(OF_ONES_OWN)
    if isinstance(value, str | Path):
        plain, text = f"{key}={value}", str(value)
        try:
            alike = OverridesParser.create().parse_override(plain).value() == text
        except HydraException:
            alike = False
        yield new + (plain if alike else quoted(key, text))
    else:
        yield f"{new}{key}={in_grammar(key, value)}"


def in_grammar(key: str, value: Any) -> str:
    """A value in the grammar of Hydra's overrides."""
    if isinstance(value, list | tuple):
        return "[" + ",".join(in_grammar(key, inner) for inner in value) + "]"
    if isinstance(value, str | Path):
        return quoted("", str(value))[1:]
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float | np.number):
        return repr(value.item() if isinstance(value, np.number) else value)
    raise InputError(f"{key}: {type(value).__name__} is no value of a configuration; give a text, a number, a list or a dict")


def class_of(part: object) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"


def digest_of(part: object) -> str:
    """Of the numbers that an object holds: its tensors, and its own plain attributes."""
    held = {**vars(part), **(part.state_dict() if hasattr(part, "state_dict") else {})}
    total = hashlib.sha256()
    for name, value in sorted(held.items()):
        if isinstance(value, bool | int | float | str | tuple):
            total.update(f"{name}={value!r};".encode())
        elif hasattr(value, "detach"):
            total.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]
