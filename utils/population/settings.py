"""The section `sequential`: when particles are started, and which of them pass; the file that a certificate is kept in."""

import glob
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from utils.config.section import Section
from utils.errors import InputError, one_line
from utils.mechanisms.registry import PLANS
from utils.paths import find
from utils.plain_files import Unreadable, read_json
from utils.weights import is_hub_id, is_original

FILE = "certificate.json"
TOOL = "tools/calibrate_certificate.py"
EARLY_STOP = ("stop_step", "stop_deviation")  # of thresholds from before it was retired
# of a configuration: what a certificate holds for, beside the prior
HOLDS_FOR = (
    *("task", "sampler", "temperature", "precision", "fidelity", "mechanisms"),
    *(key for plan in PLANS for key in plan.certified),
)
MEASURED = ("channels", "mask", "mask_dataset", "scale")  # of the block `data`: what of a spectrum is known


class Thresholds(Section):
    """A particle passes with a deviation of at most `deviation` and one of the next two held, where one of them is a number."""

    deviation: float  # of the loss above its floor, in standard deviations of the true image's loss
    denoising: float | None = None  # the prior's denoising score, at most
    agreement: float | None = None  # correlation with another particle of the image, at least


UNCALIBRATED = Thresholds(deviation=3.0, agreement=0.95)


class Sequential(Section):
    start: int = Field(default=2, ge=1)
    add: int = Field(default=2, ge=1)
    sigmas: list[Annotated[float, Field(gt=0)]] = Field(default=[0.3, 0.5, 0.7], min_length=1)
    certificate: Annotated[str, Field(min_length=1)] | None = None  # a file; None: beside the checkpoint
    thresholds: Thresholds | None = None  # None: from that file

    def rounds(self, most: int) -> tuple[int, ...]:
        """How many particles each round starts, `most` in all."""
        sizes = [min(self.start, most)]
        while (left := most - sum(sizes)) > 0:
            sizes.append(min(self.add, left))
        return tuple(sizes)


class Certificate(Section):
    """A calibration's result; `rates` and `images` are for readers."""

    thresholds: Thresholds
    sigmas: list[float]  # noise levels of the denoising score
    holds_for: dict[str, Any]
    prior: dict[str, str] = {}  # digests of its weights (utils/digests.py); none of an older calibration
    images: int
    rates: dict[str, Any]
    early_stop: bool = False  # whether its thresholds had one, which is left out

    @model_validator(mode="before")
    @classmethod
    def without_early_stop(cls, content: Any) -> Any:
        thresholds = content.get("thresholds") if isinstance(content, dict) else None
        if not isinstance(thresholds, dict):
            return content
        kept = {key: value for key, value in thresholds.items() if key not in EARLY_STOP}
        stops = any(thresholds.get(key) is not None for key in EARLY_STOP)
        return {**content, "thresholds": kept, "early_stop": stops}


def certificate_path(model_path: str) -> Path | None:
    """Where the certificate of a checkpoint lies: in its folder, or beside its file; None for a hub id."""
    if is_hub_id(model_path):
        return None
    path = find(model_path)
    return path.with_suffix(f".{FILE}") if is_original(path) else path / FILE


def certificates(model_path: str) -> list[Path]:
    """All that lie beside a checkpoint, the usual one first: of certificate.json and certificate-NAME.json those that exist."""
    usual = certificate_path(model_path)
    if usual is None:
        return []
    named = sorted(usual.parent.glob(f"{glob.escape(usual.stem)}-*{usual.suffix}"))
    return [path for path in (usual, *named) if path.is_file()]


def read_certificate(path: Path) -> Certificate:
    """Raises InputError for a file that is none."""
    try:
        return read_json(path, Certificate)
    except (OSError, Unreadable) as error:
        raise InputError(f"certificate {path}: cannot be read ({one_line(error)}); make it again with {TOOL}") from None


def holds_for(identity: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration's identity that a certificate depends on; switches that are off are absent."""
    held = {key: identity[key] for key in HOLDS_FOR if identity.get(key) not in (None, -1, 0, 0.0)}
    held |= {f"data.{key}": identity["data"][key] for key in MEASURED if key in identity["data"]}
    for plan in PLANS:
        held |= plan.holds_for(identity)
    return held
