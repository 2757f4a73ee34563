"""What sampling found, as arrays, pictures and a run folder."""

import html
import io
import os
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from utils.errors import InputError, counted, one_line, visible
from utils.records.aggregate import aggregate
from utils.records.files import read_record, record_path
from utils.records.folder import RunFolder
from utils.records.summary import verdict_of_pick
from utils.running.ranks import Rank

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SHOWN = 10  # images of a plot


class ImageResult(NamedTuple):
    """Of one image: its record, the arrays of the record, and its particles' pictures (P, 3, H, W) in [0, 1]."""

    record: dict[str, Any]
    arrays: dict[str, np.ndarray]
    pictures: np.ndarray


class Result:
    """Of N images with P particles each. What is not known, or not there at the end, is NaN, and -1 in `pick`.

    records: what `save` writes of each image, docs/guide/results.md says what stands in them
    images:  (N, P, 3, H, W) in [0, 1]
    loss:    (N, P), the sum of squared residuals; noise_floor: (N,), that of the true image, on average
    pick:    (N,), the particle that is chosen without the truth
    verdict: N words: is the pick's loss "within" what the noise explains, or "above (7.1 sd)"?
    aligned_mean: (N, 3, H, W) in [0, 1], the mean of the particles that agree with the pick, turned onto it
    metrics: the content of metrics.json
    """

    def __init__(self, model: Any, y: Any, image_results: Sequence[ImageResult]) -> None:
        """model, y: the Model and its Measurements (latentdaps/model.py)."""
        self.measurements, self._model, self._image_results = y, model, image_results
        self.records = [each.record for each in image_results]
        self.images = np.stack([self._placed(each) for each in image_results])
        self.loss = np.array([record["loss"] for record in self.records], dtype=float)
        self.noise_floor = np.array([record["noise_floor"] for record in self.records])
        picks = [record["selection"]["picked"] for record in self.records]
        self.pick = np.array([-1 if pick is None else pick for pick in picks])
        self.metrics = aggregate(self.records, model.settings.name).content()
        self.verdict = [verdict_of_pick(self.metrics, i) for i in range(len(image_results))]

    def _placed(self, image_result: ImageResult) -> np.ndarray:
        """The pictures at the places of their particles, (P, 3, H, W)."""
        record = image_result.record
        placed = np.full((len(record["particles"]), *image_result.pictures.shape[1:]), np.nan, np.float32)
        placed[[record["particles"].index(number) for number in record["survivors"]]] = image_result.pictures
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
                means[i] = summarise(torch.from_numpy(particles[fine]), at, symmetry(self._model.parts.operator)).mean.numpy()
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

        shape, given = self.images[:, 0].shape, None if truth is None else as_array(truth)
        if given is not None and given.dtype.kind not in "biuf":
            raise InputError(f"truth: holds {given.dtype} values, not real numbers; give an array {shape} in [0, 1]")
        truths = self.measurements.truth if given is None else given.astype(np.float32)
        if truths is None or truths.shape != shape or not (truths.min() >= 0 and truths.max() <= 1):
            reason = "of the measurements none is known"
            if truths is not None:
                reason = (
                    f"goes from {truths.min():g} to {truths.max():g}" if truths.shape == shape else f"has shape {truths.shape}"
                )
            raise InputError(f"truth: {reason}; give an array {shape} in [0, 1]")
        parts, success = self._model.parts, self._model.settings.success
        metrics = [metric for metric in (*computed(), *parts.metrics) if metric.of == "image"]
        columns: dict[str, list[Any]] = {}
        for x, t in zip(torch.from_numpy(2 * self.images - 1), torch.from_numpy(2 * truths - 1)):
            rows: dict[str, Any] = {metric.name: numbers(metric, x, t) for metric in metrics}
            if parts.operator.rotation_ambiguity:
                rows |= mode_labels(x, t, success.threshold_db, success.margin_db)
            for name, row in rows.items():
                columns.setdefault(name, []).append(row)
        is_whole = np.isfinite(self.images).all((2, 3, 4))  # (N, P)
        arrays = {name: np.array(rows) for name, rows in columns.items() if None not in rows}
        return {name: np.where(is_whole, rows, "" if rows.dtype.kind == "U" else np.nan) for name, rows in arrays.items()}

    def plot(self) -> "Figure":
        """A matplotlib figure of the first images: truth where known, measurement, particles, the pick framed, their mean."""
        with our_figures():
            from matplotlib import pyplot as plt

            from utils.figures.run import draw_grid

            figure = draw_grid([(each.record, each.arrays) for each in self._image_results[:SHOWN]])
            plt.close(figure)  # else a notebook shows it twice
        return figure

    def save(self, folder: str | Path) -> Path:
        """Write the run folder that posterior_sample.py would have written, or add to it. Raises InputError."""
        from utils.figures import draw_run

        if not isinstance(folder, str | Path):
            raise InputError(f"folder: has the type {type(folder).__name__}; give the path of a run folder")
        folder = Path(folder) if Path(folder).name else Path(folder).absolute()
        with RunFolder.open(self._model.settings_of(self.measurements, folder), Rank()) as opened:
            opened.pending(self.measurements.items)
            for each in self._image_results:
                path = record_path(opened.path, each.record["image_id"])
                if path.exists() and not np.array_equal(read_record(path, ("y",))[1]["y"], each.arrays["y"], equal_nan=True):
                    raise InputError(f"record {path} was made from other values of the same measurement; choose another folder")
                opened.write(each.record, each.arrays)
            opened.aggregate()
        with our_figures():
            draw_run(opened.path)
        return opened.path

    def __repr__(self) -> str:
        """One line for each of the first images."""
        lines = [f"{counted(len(self.images), 'image')}, {counted(self.images.shape[1], 'particle')}"]
        for record, pick, verdict in list(zip(self.records, self.pick, self.verdict))[:SHOWN]:
            scores = record["modes"]["psnr_aligned"] if record["modes"] else record["scores"]["psnr"]
            score = "" if pick < 0 or scores[pick] is None else f", {scores[pick]:.2f} dB"
            lines.append(f"image {record['image_id']} ({record['file']}): pick {pick}, {verdict or 'no verdict'}{score}")
        return "\n".join(map(visible, lines))

    def _repr_html_(self) -> str:
        """The same and the pictures."""
        content = io.BytesIO()
        self.plot().savefig(content, format="jpeg", dpi=80, bbox_inches="tight")
        picture = b64encode(content.getvalue()).decode()
        return f'<pre>{html.escape(repr(self))}</pre><img style="max-width: 100%" src="data:image/jpeg;base64,{picture}">'


def as_array(values: Any) -> np.ndarray:
    """Of a tensor, wherever it is, or of what NumPy takes. Raises InputError for a list of different shapes."""
    try:
        return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    except (ValueError, TypeError) as error:
        raise InputError(f"{type(values).__name__}: is no array ({one_line(error, 100)}); give one shape for all") from None


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
