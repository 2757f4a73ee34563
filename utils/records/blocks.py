"""What the typed blocks of records and of metrics.json are made of."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")
Number = float | None  # null: not known, pruned, not started or diverged
# what a list of metrics.json has one entry for, held by utils.records.metrics
PerImage = Annotated[list[T], "images"]
PerParticle = Annotated[list[list[T]], "particles"]  # of each image, those that are born later included
PerStarted = Annotated[list[list[T]], "particles at the start"]  # of each image
PerStep = Annotated[list[list[T]], "steps"]  # of each image, as many for all


class Part(BaseModel):
    """Of a record."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Block(BaseModel):
    """Of metrics.json."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
