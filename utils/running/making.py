"""Builds what a block of the config names. Needs no torch."""

from typing import Any, TypeVar

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from pydantic import ValidationError

from utils.config.section import refusal
from utils.errors import TO_BE_FOUND, InputError, one_line

Part = TypeVar("Part")


def make(key: str, node: dict[str, Any], **arguments: Any) -> Any:
    """The object that a config node describes by _target_. Raises InputError naming `key` if it cannot be had."""
    try:
        return instantiate(node, **arguments)
    except InstantiationException as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        if isinstance(error.__cause__, ValidationError):  # of a part that reads its keys as a section
            raise refusal(error.__cause__, node, key) from None
        reason = one_line(error.__cause__ or error)
        not_found = str(error).startswith("Error locating target") and "No module named" in reason
        remedy = f"check its spelling; {TO_BE_FOUND}" if not_found else "check this block's keys and the files that it names"
        raise InputError(f"{key}._target_={node.get('_target_')}: cannot be built ({reason}); {remedy}") from None


def make_own(kind: type[Part], key: str, node: dict[str, Any], **arguments: Any) -> Part:
    """The same of a part of one's own, whose class must be a subclass of `kind`."""
    part = make(key, node, **arguments)
    if not isinstance(part, kind):
        raise InputError(f"{key}._target_={node['_target_']}: is no {kind.__module__}.{kind.__name__}; subclass it")
    return part
