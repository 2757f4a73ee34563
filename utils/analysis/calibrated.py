"""What may be said of a run's spread: by tools/calibration.py of the same settings, or that nothing vouches for it."""

from pathlib import Path

from pydantic import BaseModel, FiniteFloat

from utils.errors import InputError, one_line
from utils.plain_files import Unreadable, read_json

SUFFIX = "_calibration.json"  # after the name of the run folder, beside it
UNKNOWN = (
    "The spread shows how far the particles differ, at most settings far less than they err: it is no error bar, and no "
    "calibration of these settings says otherwise (tools/calibration.py)."
)


class Estimate(BaseModel):
    value: FiniteFloat | None


class OfTruths(BaseModel):
    truths: int
    nominal: FiniteFloat
    ratio: Estimate
    covered: Estimate


class Calibration(BaseModel):
    """What is read of the file."""

    fingerprint: str
    agreeing: OfTruths | None
    calibrated: bool


def calibration_path(folder: Path) -> Path:
    """Where the calibration of a run folder's settings lies."""
    return folder.with_name(folder.name + SUFFIX)


def spread_sentence(folder: Path, fingerprint: str) -> str:
    """One sentence to stand under a run's spread. Raises InputError for a calibration file that cannot be read."""
    path = calibration_path(folder.absolute())
    if not path.is_file():
        return UNKNOWN
    try:
        calibration = read_json(path, Calibration)
    except (OSError, Unreadable) as error:
        raise InputError(f"{path}: damaged ({one_line(error)}); run tools/calibration.py again, or remove it") from None
    block = calibration.agreeing
    if calibration.fingerprint != fingerprint or block is None or block.ratio.value is None or block.covered.value is None:
        return UNKNOWN
    verdict = "which is calibrated within its error" if calibration.calibrated else "which is NOT calibrated"
    return (
        f"On {block.truths} truths of the prior the spread is {block.ratio.value:.2f} of the error, and intervals of "
        f"{100 * block.nominal:.0f} % cover {100 * block.covered.value:.0f} % of the pixels, {verdict} ({path.name})."
    )
