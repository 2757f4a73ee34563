"""The settings of a finished run from its folder, which others may have written: nothing is built that the user did not choose.

A config composed from the user's own files and command line is code, and builds what it names. That of a run folder is data.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from utils.config.algorithms import OURS as ALGORITHMS
from utils.config.check import check
from utils.config.model import OUR_LOADERS
from utils.config.operators import OURS as OPERATORS
from utils.config.sections import DAPS
from utils.config.settings import Settings
from utils.digests import Digests, other_content
from utils.errors import InputError, short
from utils.metrics.registry import ON_REQUEST

METRICS = {f"{metric.__module__}.{metric.__name__}" for metric in ON_REQUEST}
OURS = {DAPS, *ALGORITHMS, *OUR_LOADERS, *OPERATORS, *METRICS}
TRUST = "a class, none of this project's, that a run's config may build; repeatable"  # help of --trust
WHOLE_SET = {"shard": "0/1", "data": {"start_id": 0, "end_id": None}}  # the config has the selection of the last command alone


def settings_of_finished(config: Mapping[str, Any], folder: Path, trusted: Collection[str] = ()) -> Settings:
    """The settings of a run, of all its images. trusted: names that the user gave. Raises InputError."""
    config = {key: value for key, value in config.items() if key != "callbacks"}  # of a run that is over nobody is told
    refuse_code_of_others(config, folder, trusted)
    # what counts would imply stands in the config already, or was overridden there
    told = ["fidelity=", "fidelity.background=", f"task.{config.get('task_group')}.operator.sigma="]
    return check(OmegaConf.merge(config, WHOLE_SET), told)


def refuse_other_content(records: Iterable[Mapping[str, Any]], folder: Path, now: Digests) -> None:
    """Raises InputError if a record of a run was made of other weights or modules than are there now."""
    for record in records:
        if other := other_content(record.get("digests", {}), now):
            raise InputError(f"{folder}: image {record['image_id']} was made with {other}; put it back, or sample anew")


def names_code_of_others(config: Mapping[str, Any]) -> bool:
    """Whether a resolved config builds anything that is not of this project."""
    try:
        refuse_code_of_others(config, Path())
    except InputError:
        return True
    return False


def refuse_code_of_others(node: Any, folder: Path, trusted: Collection[str] = (), key: str = "") -> None:
    """Raises InputError if the part of a run folder's config at `key` names code of others or asks for the environment."""
    if isinstance(node, Mapping):
        for name, inner in node.items():
            refuse_code_of_others(inner, folder, trusted, f"{key}.{name}" if key else str(name))
        return
    if isinstance(node, list):
        for i, inner in enumerate(node):
            refuse_code_of_others(inner, folder, trusted, f"{key}[{i}]")
        return
    value, last = str(node), key.rpartition(".")[2]
    setting = f"{folder}/config.yaml: {short(key)}={short(value)}"
    if "${" in f"{key}{value}":
        raise InputError(f"{setting}: a run leaves no ${{...}} in its folder, and none is resolved; write the value itself")
    imported = last == "_target_" or (last == "similarity" and "." in value)  # one of ours has no dot
    if imported and value not in {*OURS, *trusted}:
        raise InputError(
            f"{setting}: is no class of this project and may run anything; where you trust it: --trust {short(value)}"
        )
