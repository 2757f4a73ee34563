"""What sampling found, as arrays, pictures and a run folder."""

import html
import io
import os
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from latentdaps.inputs import Measurements, pictures
from utils.config.settings import Settings
from utils.errors import InputError
from utils.records.aggregate import aggregate
from utils.records.folder import RunFolder
from utils.records.summary import verdict_of_pick
from utils.running.ranks import Rank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from utils.digests import Digests
    from utils.running.build import Parts

SHOWN = 10  # images of a plot


class Kept(NamedTuple):
    """Of one image: its record, the arrays of the record, and its particles' pictures (P, 3, H, W) in [0, 1]."""

    record: dict[str, Any]
    arrays: dict[str, np.ndarray]
    pictures: np.ndarray


class Result:
    """Of N images with P particles each. What is not known, or not there at the end, is NaN, and -1 in `pick`.

    records: what `save` writes of each image, docs/results.md says what stands in them
    images:  (N, P, 3, H, W) in [0, 1]
    loss:    (N, P), the sum of squared residuals; noise_floor: (N,), that of the true image, on average
    pick:    (N,), the particle that is chosen without the truth
    verdict: N words: is the pick's loss "within" what the noise explains, or "above (7.1 sd)"?
    aligned_mean: (N, 3, H, W) in [0, 1], the mean of the particles that agree with the pick, turned onto it
    metrics: the content of metrics.json
    """

    def __init__(
        self,
        settings_of: Callable[[Path | None], Settings],
        parts: "Parts",
        y: Measurements,
        kept: Sequence[Kept],
        digests: "Digests",
    ) -> None:
        """settings_of: those of the run, written into a folder or none."""
        self.settings, self._settings_of = settings_of(None), settings_of
        self.measurements, self._parts, self._kept, self._digests = y, parts, kept, digests
        self.records = [each.record for each in kept]
        self.images = np.stack([self._placed(each) for each in kept])
        self.loss = np.array([record["loss"] for record in self.records], dtype=float)
        self.noise_floor = np.array([record["noise_floor"] for record in self.records])
        picks = [record["selection"]["picked"] for record in self.records]
        self.pick = np.array([-1 if pick is None else pick for pick in picks])
        self.metrics = aggregate(self.records, self.settings.name).content()
        self.verdict = [verdict_of_pick(self.metrics, i) for i in range(len(kept))]

    def _placed(self, kept: Kept) -> np.ndarray:
        """The pictures at the places of their particles, (P, 3, H, W)."""
        record = kept.record
        placed = np.full((len(record["particles"]), *kept.pictures.shape[1:]), np.nan, np.float32)
        placed[[record["particles"].index(number) for number in record["survivors"]]] = kept.pictures
        placed[np.array(record["diverged"], dtype=bool)] = np.nan
        return placed

    @cached_property
    def aligned_mean(self) -> np.ndarray:
        import torch

        from utils.evaluation.aligned import summarise, symmetry

        means = np.full((len(self.images), *self.images.shape[2:]), np.nan, np.float32)
        for i, (particles, pick) in enumerate(zip(self.images, self.pick)):
            fine = np.flatnonzero(np.isfinite(particles).all((1, 2, 3)))
            if pick in fine:
                at = int(np.flatnonzero(fine == pick)[0])
                means[i] = summarise(torch.from_numpy(particles[fine]), at, symmetry(self._parts.operator)).mean.numpy()
        return means

    def scores(self, truth: Any = None) -> dict[str, np.ndarray]:
        """{"psnr": (N, P), "ssim": ..., "psnr_aligned": ..., "label": (N, P) texts}. Raises InputError.

        truth: (N, 3, H, W) in [0, 1]; None: the images that were measured. The last two where a turn leaves y as it is: PSNR
        in the better orientation, and which one it is (`0`, `180`, `mixed`, `failed`).
        """
        import torch

        from utils.evaluation.scores import mode_labels
        from utils.metrics.base import numbers
        from utils.metrics.registry import computed

        if truth is None and self.measurements.truth is None:
            raise InputError("truth: of the measurements none is known; give an array (N, 3, H, W) in [0, 1]")
        if truth is None:
            blocks = [{**record["scores"], **(record["modes"] or {})} for record in self.records]
        else:
            truths = np.stack([each.rgb for each in pictures(truth)])
            if truths.shape != self.images[:, 0].shape:
                raise InputError(f"truth: has shape {truths.shape}; give an array {self.images[:, 0].shape} in [0, 1]")
            metrics = [metric for metric in (*computed(), *self._parts.metrics) if metric.of == "image"]
            success, blocks = self.settings.success, []
            for x, t in zip(torch.from_numpy(2 * self.images - 1), torch.from_numpy(2 * truths - 1)):
                blocks.append({metric.name: numbers(metric, x, t) for metric in metrics})
                if self._parts.operator.rotation_ambiguity:
                    blocks[-1] |= mode_labels(x, t, success.threshold_db, success.margin_db)
        there = np.isfinite(self.images).all((2, 3, 4))  # (N, P)
        found = {name: [block[name] for block in blocks] for name, row in blocks[0].items() if of_each(row)}
        labels = {name: np.where(there, np.array(rows, str), "") for name, rows in found.items() if name == "label"}
        return labels | {
            name: np.where(there, np.array(rows, float), np.nan) for name, rows in found.items() if name not in labels
        }

    def plot(self) -> "Figure":
        """A matplotlib figure of the first images: truth where known, measurement, particles, the pick framed, their mean."""
        with our_figures():
            from matplotlib import pyplot as plt

            from utils.figures.run import draw_grid

            figure = draw_grid([(each.record, each.arrays) for each in self._kept[:SHOWN]])
            plt.close(figure)  # else a notebook shows it twice
        return figure

    def save(self, folder: str | Path) -> Path:
        """Write the run folder that posterior_sample.py would have written, or add to it. Raises InputError."""
        from utils.figures import draw_run

        with RunFolder.open(self._settings_of(Path(folder)), Rank()) as opened:
            opened.made_of(self._digests)
            opened.pending(self.measurements.items)
            for each in self._kept:
                opened.write(each.record, each.arrays)
            opened.aggregate()
        with our_figures():
            draw_run(opened.path)
        return opened.path

    def __repr__(self) -> str:
        return f"<Result: {len(self.images)} images, {self.images.shape[1]} particles, picks {self.pick.tolist()}>"

    def _repr_html_(self) -> str:
        """A table of the first images, and their pictures."""
        rows = []
        for i, record in enumerate(self.records[:SHOWN]):
            pick = record["selection"]["picked"]
            ratio = "" if pick is None or not self.noise_floor[i] else f"{self.loss[i, pick] / self.noise_floor[i]:.3f}"
            score = record["selection"]["psnr_aligned"] or record["selection"]["psnr"]
            cells = (record["image_id"], record["file"], "" if pick is None else f"p{pick}", ratio, self.verdict[i] or "")
            rows.append((*cells, "" if score is None else f"{score:.2f}"))
        head = ("image", "file", "pick", "loss / floor", "verdict", "PSNR of the pick (dB)")
        lines = "".join(
            f"<tr>{''.join(f'<{tag}>{html.escape(str(cell))}</{tag}>' for cell in row)}</tr>"
            for tag, row in [("th", head), *(("td", row) for row in rows)]
        )
        picture = b64encode(jpeg(self.plot())).decode()
        return f'<table>{lines}</table><img style="max-width: 100%" src="data:image/jpeg;base64,{picture}">'


def of_each(row: Any) -> bool:
    """Whether a part of a record has numbers or labels, one of each particle."""
    return isinstance(row, list) and any(value is not None for value in row)


def jpeg(figure: "Figure") -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="jpeg", dpi=80, bbox_inches="tight")
    return content.getvalue()


@contextmanager
def our_figures() -> Iterator[None]:
    """Inside, matplotlib's settings are those of our figures; afterwards the caller's again. Its backend stays throughout."""
    variable = os.environ.get("MPLBACKEND")
    import utils.figures  # it names the backend of programs without windows, which a caller may have

    os.environ.pop("MPLBACKEND", None)
    os.environ.update({} if variable is None else {"MPLBACKEND": variable})
    import matplotlib
    from matplotlib import pyplot

    pyplot.switch_backend(pyplot.get_backend())  # loads the caller's now, with what a notebook does to the settings at that
    with matplotlib.rc_context():
        import utils.figures.style  # noqa: F401

        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"text.parse_math": False, "interactive": False})
        yield
