"""What all figures share."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from numpy.typing import NDArray

from utils.analysis.experiments import folded
from utils.errors import InputError
from utils.files import write_atomically
from utils.mechanisms import registry

if os.environ.get("MPLBACKEND") == "Agg":  # as utils.figures has set it; else matplotlib is that of a notebook, of latentdaps
    matplotlib.rcdefaults()  # settings of the user's own, such as text.usetex, need what may not be installed
    matplotlib.use("Agg")
matplotlib.rcParams["text.parse_math"] = False  # names of runs are no formulas
import matplotlib.pyplot as plt  # noqa: E402

# readable in black and white: lines differ in dash, points in shape, areas in grey
DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 3)))
GREYS = ("black", "0.45", "0.25", "0.6", "0.1", "0.5")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
FACES = ("black", "white", "0.6")  # of markers, where there are more of them than shapes
LABEL_MARKERS = {"0": ("o", "black"), "180": ("o", "white"), "mixed": ("^", "0.6"), "failed": ("x", "black")}
LABEL_GREYS = {"0": 1.0, "180": 0.35, "mixed": 0.7, "failed": 0.85}
PICKED, TURNED, ABSENT = "tab:orange", "black", "0.9"  # frames of pictures, and the note in place of one
COLOURS = matplotlib.colormaps["magma"]  # its lightness rises evenly
DPI = 110
TIMESTEPS = 1000

Record = dict[str, Any]  # of one image, as read_record gives it
Arrays = dict[str, np.ndarray]


def picture_axes(rows: int, columns: int, above: float, head: float = 0.0) -> tuple[Figure, np.ndarray]:
    """(figure, axes (rows, columns)) for pictures, each placed by hand: a layout engine draws a page twice or three times.

    Inches: `above` a picture, for its title; `head` above all of them.
    """
    width, gap = 1.86, 0.1  # of a column, and what of it is left free
    height = width - gap + above
    size = (width * columns, height * rows + head + gap)
    figure = plt.figure(figsize=size)
    axes = np.empty((rows, columns), dtype=object)
    for row, column in np.ndindex(rows, columns):
        corner = (width * column + gap / 2, size[1] - head - height * (row + 1))
        place = (corner[0] / size[0], corner[1] / size[1], (width - gap) / size[0], (width - gap) / size[1])
        axes[row, column] = axis = figure.add_axes(place, anchor="N")
        for part in (axis.xaxis, axis.yaxis, *axis.spines.values()):
            part.set_visible(False)
    return figure, axes


def frame(axis: Axes, **options: Any) -> None:
    """Around a picture; options: of its lines."""
    for spine in axis.spines.values():
        spine.set(visible=True, **options)


def note(axis: Axes, text: str) -> None:
    """In place of a picture that there is none of."""
    axis.set_facecolor(ABSENT)
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", fontsize=8, color="0.35")


def event_times(timesteps: Sequence[float]) -> NDArray[np.float64]:
    """(n,) places on an axis of t of the n annealing steps; steps after the last t stand beyond 0, where t falls."""
    t = np.asarray(timesteps, dtype=float)
    beyond = np.cumsum(t <= 0) * (TIMESTEPS / max(1, int((t > 0).sum())))
    return np.where(t <= 0, -1.0 * beyond, t)


def time_axis(axis: Axes, end: float) -> None:
    """t falls from left to right, as a run goes, down to `end`: the lowest of event_times."""
    axis.set_xlim(1.03 * TIMESTEPS, min(end, 0.0) - 0.03 * TIMESTEPS)
    axis.xaxis.set_major_locator(FixedLocator([1000, 800, 600, 400, 200, 0]))


def mark_events(axis: Axes, events: Sequence[tuple[str, float]], named: bool = True) -> None:
    """A line for each event at its t, and the names above the axis, spread so that none stands on another.

    events: (name, t); those of one t share a line, and what happens again is named the first time, with how often it does.
    """
    lines: dict[float, list[str]] = {}
    for name, t in sorted(events, key=lambda event: -event[1]):
        names = lines.setdefault(t, [])
        if name not in names:
            names.append(name)
    often = {name: sum(name in names for names in lines.values()) for names in lines.values() for name in names}
    left, right = axis.get_xlim()
    width, fontsize = 72 * axis.bbox.width / axis.figure.dpi, 7  # points
    gap = (left - right) * 1.9 * fontsize / width  # names stand at 45 degrees, so that a line's height parts two of them
    place, named_before = np.inf, set()
    for t, names in lines.items():
        axis.axvline(t, color="0.7", linewidth=0.8, zorder=0)
        new = [name for name in names if name not in named_before]
        named_before.update(new)
        if not named or not new:
            continue
        place = min(t, place - gap)
        axis.annotate(
            ", ".join(name if often[name] == 1 else f"{name} (×{often[name]})" for name in new),
            (t, 1),
            (place, 1.05),
            xycoords=("data", "axes fraction"),
            textcoords=("data", "axes fraction"),
            rotation=45,
            rotation_mode="anchor",
            fontsize=fontsize,
            color="0.3",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "0.7", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0},
        )


def line_style(i: int, marked: bool = False) -> dict[str, Any]:
    """Of the i-th line of a figure."""
    style = {"linestyle": DASHES[i % len(DASHES)], "color": GREYS[i % len(GREYS)], "linewidth": 1.2}
    return style | {"marker": MARKERS[i % len(MARKERS)]} if marked else style


def point_face(i: int) -> dict[str, Any]:
    """Marker of the i-th of many points: shapes first, then other faces."""
    return {"marker": MARKERS[i % len(MARKERS)], "markerfacecolor": FACES[i // len(MARKERS) % len(FACES)]}


def legend_outside(axis: Axes, columns: int = 1) -> None:
    """A legend in so many columns to the right of what is labelled, where it hides nothing; none where nothing was drawn, of
    which matplotlib warns."""
    if axis.get_legend_handles_labels()[0]:
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0, "columnspacing": 0.8}
        axis.legend(fontsize=8, labelspacing=0.35, frameon=False, ncols=columns, **place)


def shown_name(label: str) -> str:
    """A label as a legend shows it, folded; matplotlib leaves those out that begin with an underscore."""
    return f" {folded(label)}" if label.startswith("_") else folded(label)


def save_figure(figure: Figure, path: str | Path, **options: Any) -> None:
    """Write a figure, in the format that the path ends with, and close it; options: of savefig. Raises InputError, OSError."""
    ending = Path(path).suffix[1:].lower()
    if ending not in (supported := figure.canvas.get_supported_filetypes()):
        raise InputError(f"{path}: its ending is no figure's; end it in one of {', '.join(sorted(supported))}")
    write_atomically(path, lambda file: figure.savefig(file, format=ending, **options))
    plt.close(figure)


def particle_title(record: Record, position: int) -> str:
    """Two lines: particle number and mode label; PSNR as is, and in the better orientation where that differs."""
    index = record["particles"][position]
    if index not in record["survivors"]:
        return f"p{index}: {_absence(record, index)}"
    if record["diverged"][position]:
        return f"p{index}: diverged"
    psnr = record["scores"]["psnr"][position]
    loss = record["loss"][position]
    if psnr is None:
        return f"p{index}\nloss {loss:.4g}" if loss is not None else f"p{index}\nno finite loss"
    if record["modes"] is None:
        return f"p{index}\n{psnr:.1f} dB"
    label, aligned = record["modes"]["label"][position], record["modes"]["psnr_aligned"][position]
    if index in stopped_early(record):
        label = "stopped early"
    turned = f" (rotated {aligned:.1f})" if aligned > psnr else ""
    return f"p{index}: {label}{'°' if label in ('0', '180') else ''}\n{psnr:.1f}{turned} dB"


def is_turned(record: Record, position: int) -> bool:
    """Whether a particle is the solution turned by 180 degrees."""
    return bool(record["modes"]) and record["modes"]["label"][position] == "180"


ALL_SHOWN = 8  # up to so many particles, those that are not there at the end have a place in pictures too


def shown(record: Record) -> list[int]:
    """Positions of the particles that pictures show: not those that no image started, and of many only those at the end."""
    positions = list(range(len(record["particles"])))
    if record.get("population"):
        return positions[: max(map(record["particles"].index, record["survivors"])) + 1]
    return positions if len(positions) <= ALL_SHOWN else [p for p in positions if record["particles"][p] in record["survivors"]]


def particle_columns(records: Iterable[Record]) -> int:
    """How many particles the pictures of these records show."""
    return max(len(shown(record)) for record in records)


def stopped_early(record: Record) -> set[int]:
    """The numbers of particles that did not run to their end; only in records of before that was retired."""
    population = record.get("population") or {"rounds": ()}
    return {index for part in population["rounds"] for index in part.get("stopped") or ()}


def _absence(record: Record, index: int) -> str:
    """Why a particle is not there at the end."""
    if record.get("population"):
        return "not started"
    return registry.absence(record, index) or "not there"


def measured_size(y: np.ndarray) -> np.ndarray:
    """Of a measurement (C, H, W[, 2]), or anything with fewer axes, which is one line: (C, H, W), what was not measured 0."""
    y = np.nan_to_num(y.astype(np.float64))  # squares of large measurements leave float32
    if y.ndim < 3:
        y = y.reshape(1, 1, -1)
    return y if y.ndim == 3 else np.linalg.norm(y.reshape(*y.shape[:3], -1), axis=-1)


def measurement_range(y: np.ndarray) -> tuple[float, float] | None:
    """(low, high), which are black and white of a measurement's picture on its logarithmic scale; None of an image in
    [-1, 1]."""
    size = measured_size(y)
    if np.abs(size).max() < 2:  # noise takes an image a little beyond 1; a spectrum goes far beyond
        return None
    mean = np.abs(size).mean(0)
    high = float(mean.max())
    return max(float(np.percentile(mean, 5)), 1e-4 * high), high


def measurement_picture(y: np.ndarray) -> np.ndarray:
    """A measurement as a picture (H, W, 3) in [0, 1]: an image in [-1, 1] as it is, anything larger its mean over channels, on
    the logarithmic scale of `measurement_range`, in the colours of COLOURS."""
    size, ends = measured_size(y), measurement_range(y)
    if ends is None:
        picture = np.clip(0.5 * size + 0.5, 0, 1).transpose(1, 2, 0)
        return picture if picture.shape[-1] == 3 else np.repeat(picture.mean(-1, keepdims=True), 3, -1)
    low, high = ends
    share = np.log(np.clip(np.abs(size).mean(0), low, high) / low) / (np.log(high / low) or 1.0)
    return COLOURS(share)[..., :3]


def draw_measurement(axis: Axes, y: np.ndarray) -> None:
    """The picture of a measurement; below one on a logarithmic scale the bar of its colours, with the values at its ends."""
    picture, ends = measurement_picture(y), measurement_range(y)
    axis.set_title("measurement" if ends is None else "measurement\n(logarithmic)", fontsize=8)
    if ends is not None:
        height, width = picture.shape[:2]
        bar = COLOURS(np.linspace(0, 1, width))[None, :, :3].repeat(max(1, height // 14), 0)
        picture = np.concatenate([picture, np.ones((max(1, height // 24), width, 3)), bar])
    axis.imshow(picture)
    for x, end in zip((0, 1), ends or ()):
        axis.text(x, -0.02, f"{end:.3g}", transform=axis.transAxes, fontsize=6, va="top", ha=("left", "right")[x], color="0.3")
