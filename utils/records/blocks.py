"""What the typed blocks of records and of metrics.json are made of."""

from functools import cache
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")
Number = float | None  # null: not known, pruned, not started or diverged
# what a list of metrics.json has one entry for, held by utils.records.metrics
PerImage = Annotated[list[T], "images"]
PerParticle = Annotated[list[list[T]], "particles"]  # of each image, those that are born later included
PerStarted = Annotated[list[list[T]], "particles at the start"]  # of each image
PerStep = Annotated[list[list[T]], "steps"]  # of each image, as many for all
# the same of a record, which is of one image
EACH, STARTED = "particles", "particles at the start"
OfEach = Annotated[list[T], EACH]
OfStarted = Annotated[list[T], STARTED]


class Part(BaseModel):
    """Of a record."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Block(BaseModel):
    """Of metrics.json."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


@cache
def lists_of(block: type[Part] | None) -> dict[str, Any]:
    """{name: EACH or STARTED} of the lists of a record's block that have one entry for each particle."""
    hints = get_type_hints(block, include_extras=True) if block is not None else {}
    return {name: what for name, hint in hints.items() for what in get_args(hint)[1:] if what in (EACH, STARTED)}
