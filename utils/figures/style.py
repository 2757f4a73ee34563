"""What all figures share."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from utils.errors import InputError
from utils.files import write_atomically
from utils.mechanisms import registry

if os.environ.get("MPLBACKEND") == "Agg":  # as utils.figures has set it; else matplotlib is that of a notebook, of latentdaps
    matplotlib.rcdefaults()  # settings of the user's own, such as text.usetex, need what may not be installed
    matplotlib.use("Agg")
matplotlib.rcParams["text.parse_math"] = False  # names of runs are no formulas
import matplotlib.pyplot as plt  # noqa: E402

Record = dict[str, Any]  # of one image, as read_record gives it
Arrays = dict[str, np.ndarray]


def bare_axes(
    rows: int, columns: int, height: float, width: float = 1.75, layout: str | None = None
) -> tuple[Figure, np.ndarray]:
    """(figure, axes (rows, columns)) without ticks and frames; height of a row and width of a column in inches."""
    figure, axes = plt.subplots(rows, columns, squeeze=False, figsize=(width * columns, height * rows), layout=layout)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set_visible(False)
    return figure, axes


def save_figure(figure: Figure, path: str | Path, **options: Any) -> None:
    """Write a figure, in the format that the path ends with, and close it; options: of savefig. Raises InputError, OSError."""
    ending = Path(path).suffix[1:].lower()
    if ending not in (known := figure.canvas.get_supported_filetypes()):
        raise InputError(f"{path}: its ending is no figure's; end it in one of {', '.join(sorted(known))}")
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


def measurement_picture(y: np.ndarray) -> np.ndarray:
    """A measurement as a picture: an image in [-1, 1] as it is, anything larger on a logarithmic scale.

    (C, H, W[, 2]) is an image, anything with fewer axes one line of grey. What was not measured (NaN) is drawn as 0.
    """
    y = np.nan_to_num(y.astype(np.float64))  # squares of large measurements leave float32
    if y.ndim < 3:
        y = y.reshape(1, 1, -1)
    y = y if y.ndim == 3 else np.linalg.norm(y.reshape(*y.shape[:3], -1), axis=-1)
    if np.abs(y).max() < 2:  # noise takes an image a little beyond 1; a spectrum goes far beyond
        picture = np.clip(0.5 * y + 0.5, 0, 1).transpose(1, 2, 0)
    else:
        picture = np.log1p(np.abs(y)).transpose(1, 2, 0)
        picture = picture / picture.max()
    return picture if picture.shape[-1] == 3 else picture.mean(-1)
