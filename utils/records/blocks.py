"""What the typed blocks of records and of metrics.json are made of."""

from collections.abc import Iterator
from functools import cache
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")
Number = float | None  # null: not known, pruned, not started or diverged
EACH, STARTED = "particles", "particles at the start"
# what a list of metrics.json has one entry for, held by utils.records.metrics
PerImage = Annotated[list[T], "images"]
PerParticle = Annotated[list[list[T]], EACH]  # of each image, those that are born later included
PerStarted = Annotated[list[list[T]], STARTED]  # of each image
PerStep = Annotated[list[list[T]], "steps"]  # of each image, as many for all
# the same of a record, which is of one image
OfEach = Annotated[list[T], EACH]
OfStarted = Annotated[list[T], STARTED]


class Block(BaseModel):
    """Of a record, or of metrics.json."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


def lists_of(block: BaseModel, above: str = "") -> Iterator[tuple[str, list, str]]:
    """(key, list, what it has one entry for) of all lists within a block whose annotation says it."""
    for name, hint in _counted(type(block)).items():
        yield from _lists(above + name, hint, getattr(block, name))


def _lists(key: str, hint: Any, value: Any) -> Iterator[tuple[str, list, str]]:
    arguments = get_args(hint)
    if value is None:
        return
    if NoneType in arguments:
        yield from _lists(key, arguments[0], value)
    elif isinstance(value, BaseModel):
        yield from lists_of(value, f"{key}.")
    elif get_origin(hint) is Annotated:
        yield key, value, arguments[1]
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _lists(f"{key}.{name}", arguments[1], each)
    else:
        for i, each in enumerate(value):
            yield from _lists(f"{key}[{i}]", arguments[0], each)


@cache
def _counted(block: type[BaseModel]) -> dict[str, Any]:
    """{name: annotation} of the fields that hold such a list, at any depth."""
    hints = get_type_hints(block, include_extras=True)
    return {name: hints[name] for name in block.model_fields if _counts(hints[name])}


def _counts(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return bool(_counted(hint))
    return get_origin(hint) is Annotated or any(map(_counts, get_args(hint)))
