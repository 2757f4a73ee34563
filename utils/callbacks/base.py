"""What a run tells of itself while it goes on, and the contract of a callback that is told.

A callback runs in the process that the user started: workers hand on what happens in them. Each rank of torchrun and each
shard has its own (`Run.shard`), for its own images. Of a TPU's cores only a single one (num_cores=1) has any.

Whatever a callback does, records, numbers and exit status are the same: one that raises is warned of once and not called
again. Callbacks are no part of the fingerprint.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np

Values = list[float | None]  # of each particle; None: it has none


class Run(NamedTuple):
    name: str
    folder: Path  # save_dir/name
    shard: str  # "k/n", 0/1 where the run is not divided
    config: dict[str, Any]  # resolved
    images: list[int]  # ids of those that are still to be sampled

    @property
    def is_part(self) -> bool:
        return not self.shard.endswith("/1")

    @property
    def shown_name(self) -> str:
        return f"{self.name} shard {self.shard}" if self.is_part else self.name


class OfImage(NamedTuple):
    """One image at one step; lists have an entry for each of its particles, NaN where it has diverged."""

    particles: list[int]  # their numbers
    psnr: list[float] | None  # dB, of the better orientation where the task has two; None without a truth
    loss: list[float]
    ratio: list[float] | None  # loss / noise floor; None without noise
    distance: float  # between latents, mean over the pairs of particles; NaN for one particle


class Step(NamedTuple):
    """One annealing step of a batch of images."""

    number: int  # from 0; each round of a sequential population begins anew
    images: dict[int, OfImage]
    level: str | None = None  # of a run within the run, such as a coarser level or an optimisation: its name

    @property
    def best(self) -> str:
        """The best particle of the batch in words: by the truth, or without one by the loss."""
        psnrs, ratios, losses = (
            without_diverged([value for image in self.images.values() for value in getattr(image, name) or ()])
            for name in ("psnr", "ratio", "loss")
        )
        if not math.isnan(psnrs[0]):
            return f"best PSNR {max(psnrs):.2f} dB"
        return f"lowest loss / floor {min(ratios):.3g}" if not math.isnan(ratios[0]) else f"lowest loss {min(losses):.4g}"


class ImageDone(NamedTuple):
    image: int
    file: str
    scores: dict[str, Values]  # {metric, loss, loss / floor: ...}; psnr is that of the better orientation
    picked: int | None  # the label-free pick's position in these lists
    seconds: float
    pictures: np.ndarray  # (P, H, W, 3) uint8, those that are left at the end

    @classmethod
    def of(cls, record: dict[str, Any], arrays: dict[str, Any]) -> ImageDone:
        scores, floor = {**record["scores"], "loss": record["loss"]}, record["noise_floor"]
        if record["modes"]:
            scores["psnr"] = record["modes"]["psnr_aligned"]
        if floor:
            scores["loss / floor"] = [None if v is None else v / floor for v in record["loss"]]
        scores = {name: list(values) for name, values in scores.items() if any(v is not None for v in values)}
        of_record = (record["selection"]["picked"], record["time"]["image_s"], arrays["images"].copy())
        return cls(record["image_id"], record["file"], scores, *of_record)


class End(NamedTuple):
    how: Literal["done", "interrupted", "failed"]
    metrics: dict[str, Any] | None  # metrics.json of what is done; None of a rank that is not the first
    table: list[tuple[str, ...]]  # heads and rows of eval.md


class Callback:
    """Subclass it, and override what you want to know. Its class is called with the other keys of its block."""

    def run_begins(self, run: Run) -> None:
        """Before the first image; not where all are done already."""

    def annealing_step(self, step: Step) -> None:
        """After each annealing step."""

    def image_done(self, image: ImageDone) -> None:
        """After its record is written."""

    def run_ends(self, end: End) -> None:
        """After the figures; after an error or Ctrl-C too."""


def without_diverged(values: list[float]) -> list[float]:
    """Without those of diverged particles, unless that leaves none."""
    return [value for value in values if not math.isnan(value)] or [math.nan]
