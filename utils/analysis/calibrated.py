"""What may be said of a run's spread: by tools/calibration.py of the same settings, or that nothing vouches for it."""

import json
from pathlib import Path

from utils.errors import InputError

SUFFIX = "_calibration.json"  # after the name of the run folder, beside it
UNKNOWN = (
    "The spread shows how far the particles differ, at most settings far less than they err: it is no error bar, and no "
    "calibration of these settings says otherwise (tools/calibration.py)."
)


def calibration_path(folder: Path) -> Path:
    """Where the calibration of a run folder's settings lies."""
    return folder.with_name(folder.name + SUFFIX)


def spread_sentence(folder: Path, fingerprint: str) -> str:
    """One sentence to stand under a run's spread. Raises InputError for a calibration file that cannot be read."""
    path = calibration_path(folder.absolute())
    if not path.is_file():
        return UNKNOWN
    try:
        calibration = json.loads(path.read_text("utf-8"))
        if calibration["fingerprint"] != fingerprint:
            return UNKNOWN
        block = calibration["agreeing"]
        covered, nominal, truths = block["covered"]["value"], block["nominal"], block["truths"]
        ratio, calibrated = block["ratio"]["value"], calibration["calibrated"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({type(error).__name__}); run tools/calibration.py again, or remove it") from None
    verdict = "which is calibrated within its error" if calibrated else "which is NOT calibrated"
    return (
        f"On {truths} truths of the prior the spread is {ratio:.2f} of the error, and intervals of {100 * nominal:.0f} % cover "
        f"{100 * covered:.0f} % of the pixels, {verdict} ({path.name})."
    )
