"""What the three tracking tools have in common: the same numbers, pictures and table, each sent in its own way."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from utils.callbacks.base import Callback, End, ImageDone, Run, Step, known

if TYPE_CHECKING:
    import numpy as np


class Tracker(Callback):
    """Says what is sent; subclasses define run_begins, `numbers`, `picture` and `finish`."""

    def numbers(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Finite values at a step: of `image 3` at an annealing step, of `result` at an image's id."""
        raise NotImplementedError

    def picture(self, name: str, pixels: "np.ndarray", step: int) -> None:
        """pixels: (H, W, 3) uint8."""
        raise NotImplementedError

    def finish(self, table: str, end: End) -> None:
        """table: Markdown, empty where nothing is done."""
        raise NotImplementedError

    def annealing_step(self, step: Step) -> None:
        for image, of_image in step.images.items():
            values = {"loss": min(known(of_image.loss)), "distance": of_image.distance}
            if of_image.psnr is not None:
                values["psnr"] = max(known(of_image.psnr))
            if of_image.ratio is not None:
                values["loss over floor"] = min(known(of_image.ratio))
            self._finite(f"image {image}" + (f" {step.level}" if step.level else ""), values, step.number)

    def image_done(self, image: ImageDone) -> None:
        values = {"seconds": image.seconds}
        if image.picked is not None:
            values |= {f"{name.replace(' / ', ' over ')} of the pick": v[image.picked] for name, v in image.scores.items()}
        self._finite("result", values, image.image)
        if len(image.pictures):
            height, width = image.pictures.shape[1:3]  # the particles side by side
            self.picture("particles", image.pictures.transpose(1, 0, 2, 3).reshape(height, -1, 3), image.image)

    def run_ends(self, end: End) -> None:
        rows = ["| " + " | ".join(row) + " |" for row in end.table]
        self.finish("\n".join([*rows[:1], "|---" * len(end.table[0]) + "|", *rows[1:]]) if rows else "", end)

    def _finite(self, group: str, values: Mapping[str, float | None], step: int) -> None:
        if finite := {name: v for name, v in values.items() if v is not None and math.isfinite(v)}:
            self.numbers(group, finite, step)


def shown_name(run: Run) -> str:
    """Of the run, with the shard where it is one of several."""
    return run.name if run.shard.endswith("/1") else f"{run.name} shard {run.shard}"
