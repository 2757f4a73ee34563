"""The section `sequential`: when particles are started, and which of them pass; the file that a certificate is kept in."""

import glob
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from utils.config.section import Section
from utils.errors import InputError, one_line
from utils.mechanisms.registry import PLANS
from utils.plain_files import Unreadable, read_json
from utils.weights import beside_checkpoint

FILE = "certificate.json"
TOOL = "tools/calibrate_certificate.py"
# what a certificate does not depend on: which particles there are, where, how files write numbers; of weights it has digests
NOT_HELD = (
    *("num_samples", "first_particle", "population", "sequential", "seed", "success", "task_group", "use_tpu", "step_clock"),
    *("model.path", "data.root", "data.kind", "data.dataset", "data.quantity", "data.gain", "data.center", "data.norm"),
    "data.transpose",
)
# what a certificate held before all of the others were compared; one that is off is absent
HELD_ONCE = (
    *("task", "sampler", "temperature", "precision", "fidelity", "mechanisms", *(plan.key for plan in PLANS)),
    *("data.channels", "data.mask", "data.mask_dataset", "data.scale"),
)


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
    complete: bool = False  # whether holds_for has every setting that counts; in an older one it has those of HELD_ONCE

    def held_against(self, of_run: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """(`holds_for` with what an older one says nothing of as in `of_run`, a run's; the keys of that)."""
        if self.complete:
            return self.holds_for, []
        held = self.holds_for
        for plan in PLANS:
            held = dict(plan.of_older_certificate(held))
        untold = []
        for key, value in ((key, value) for key, value in of_run.items() if key not in HELD_ONCE):
            if isinstance(value, dict) and isinstance(held.get(key, {}), dict):
                untold += [f"{key}.{name}" for name in value if name not in held.get(key, {})]
                held[key] = {**value, **held.get(key, {})}
            elif key not in held:
                untold.append(key)
                held[key] = value
        return held, untold


def certificates(model_path: str) -> list[Path]:
    """All that lie beside a checkpoint, the usual one first: of certificate.json and certificate-NAME.json those that exist."""
    usual = beside_checkpoint(model_path, FILE)
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
    blocks = {f"{block}.{key}": value for block in ("data", "model") for key, value in identity[block].items()}
    others = {key: value for key, value in identity.items() if key not in ("data", "model") and value not in (None, -1, 0, 0.0)}
    return {key: value for key, value in {**others, **blocks}.items() if key not in NOT_HELD}
