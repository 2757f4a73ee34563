"""What a prior cannot draw: how far an image's encoding stays from its measurement, beside the checkpoint.

tools/measure_decoder.py measures it on held-out images, for one operator at a time.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from utils.config.settings import Settings
from utils.digests import of_prior, other_content
from utils.errors import InputError, one_line
from utils.plain_files import Unreadable, read_json
from utils.weights import beside_checkpoint

FILE = "decoder_floor.json"
TOOL = "tools/measure_decoder.py"


class Measured(BaseModel):
    """Of one operator: sums of squared residuals |A(decoded latent) - A(image)|^2 of an image, without noise."""

    operator: dict[str, Any]  # as `operator_of` describes it
    images: str  # which they were, in words
    count: int
    mean: float
    high: float  # below which nine tenths of them lie


class DecoderFloor(BaseModel):
    prior: dict[str, str]  # digests of its weights
    measured: list[Measured]


def read(path: Path) -> DecoderFloor:
    """Raises InputError for a file that is none."""
    try:
        return read_json(path, DecoderFloor)
    except (OSError, Unreadable) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); remove it, or make it again with {TOOL}") from None


def operator_of(settings: Settings) -> dict[str, Any]:
    """What a figure holds for: the operator without its noise, and the prior's pixels a side."""
    arguments = {key: value for key, value in settings.operator_node.items() if key != "sigma"}
    return {**arguments, "resolution": settings.model.resolution}


def energy_of(settings: Settings) -> float | None:
    """The sum of squared residuals up to which nine tenths of the images can be drawn; None where it was not measured."""
    path = beside_checkpoint(settings.model.path, FILE)
    if path is None or settings.pixel != 1 or not path.is_file():
        return None
    decoder_floor = read(path)
    if other_content(decoder_floor.prior, of_prior(settings.model_node)):
        return None
    wanted = operator_of(settings)
    return next((each.high for each in decoder_floor.measured if each.operator == wanted), None)
