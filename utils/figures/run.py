"""Pictures of a run, drawn from its records: grid_results.png and trace.png, ten images a page."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from utils.figures.style import (
    Arrays,
    Record,
    bare_axes,
    measurement_picture,
    particle_columns,
    particle_title,
    plt,
    save_figure,
    shown,
)
from utils.mechanisms import registry
from utils.records.aggregate import finite
from utils.records.files import read_record, record_paths
from utils.records.summary import resolution

log = logging.getLogger("latentdaps")

PAGE = 10
PAGES = 10
STATE = "LatentDAPS records"  # what a page says of the records that it was drawn from, in its PNG
SPREAD_WARNING = (
    "std: how far the particles differ, at most settings far less than they err: no error bar (tools/calibration.py)"
)


def draw_all(folder: str | Path) -> list[Path]:
    """Draw the pages of a run folder whose records have changed since; returns the paths of those drawn.

    Of very many images the first PAGES pages, which the log says.
    """
    paths = record_paths(folder)
    if len(paths) > PAGE * PAGES:
        log.info("pictures: of the first %d of %d images", PAGE * PAGES, len(paths))
    written = []
    for page, start in enumerate(range(0, min(len(paths), PAGE * PAGES), PAGE)):
        of_page = paths[start : start + PAGE]
        number = "" if page == 0 else f"_{page + 1}"
        targets = {Path(folder) / f"{name}{number}.png": draw for name, draw in DRAWINGS.items()}
        state = state_of(of_page)
        if all(drawn_from(target) == state for target in targets):
            continue
        records = [(record, arrays) for record, arrays in map(read_record, of_page) if arrays]
        if not records:  # stripped of their pictures
            continue
        for target, draw in targets.items():
            save_figure(draw(records), target, dpi=110, bbox_inches="tight", metadata={STATE: state})
            written.append(target)
    return written


def state_of(paths: Sequence[Path]) -> str:
    """A hash that changes where one of these files does, or where they are other files."""
    about = [(path.name, status.st_size, status.st_mtime_ns) for path in paths for status in (path.stat(),)]
    return hashlib.sha256(repr(about).encode()).hexdigest()


def drawn_from(picture: Path) -> str | None:
    """The state of the records that a page was drawn from; None for a missing page and one that does not say it."""
    try:
        with Image.open(picture) as opened:
            return opened.info.get(STATE)
    except (OSError, SyntaxError, ValueError):  # damaged: drawn anew
        return None


def draw_grid(records: Sequence[tuple[Record, Arrays]]) -> Figure:
    """One row per image: truth, measurement, every particle; the label-free pick is framed.

    Then, where the records have them, the mean of the particles that agree with the pick, and their standard deviation.
    """
    particles = particle_columns(record for record, _ in records)
    summarised = any("summary_mean" in arrays for _, arrays in records)
    known = any("truth" in arrays for _, arrays in records)
    columns = 1 + known + particles + 2 * summarised
    figure, axes = bare_axes(len(records), columns, height=2.35 + 0.5 / len(records), layout="constrained")
    for row, (record, arrays) in zip(axes, records):
        if "truth" in arrays:
            row[0].imshow(arrays["truth"])
            row[0].set_title(f"truth {record['image_id']}", fontsize=8)
        row = row[int(known) :]
        row[0].imshow(measurement_picture(arrays["y"]))
        row[0].set_title("measurement" if known else f"measurement {record['image_id']}", fontsize=8)
        pictures = dict(zip(record["survivors"], arrays["images"]))
        for axis, position in zip(row[1 : 1 + particles], shown(record)):
            index = record["particles"][position]
            if index in pictures:
                axis.imshow(pictures[index])
            axis.set_title(particle_title(record, position), fontsize=8)
            if position == record["selection"]["picked"]:
                for spine in axis.spines.values():
                    spine.set(visible=True, linewidth=3, color="tab:orange")
        if "summary_mean" in arrays:
            draw_summary(row[1 + particles :], record["summary"], arrays)
    lines = ["framed: the particle picked without the truth (lowest measurement loss)"]
    if summarised:
        lines.append(SPREAD_WARNING)
    if "resolved" in records[0][0]:
        lines.append(resolution(records[0][0]["resolved"]))
    for axis in axes.flat:
        if not axis.images:
            axis.set_box_aspect(1)  # its title stands level with the others
    figure.suptitle("\n".join([*lines, ""]), fontsize=8)  # an empty line apart from the titles
    return figure


def draw_summary(axes: np.ndarray, summary: Record, arrays: Arrays) -> None:
    """The aligned mean, and beside it the spread of a pixel over particles, averaged over channels; axes: (2,) or more."""
    agreeing = finite(summary["agreeing"])
    score = "" if summary["psnr"] is None else f"\n{summary['psnr']:.1f} dB"
    axes[0].imshow(arrays["summary_mean"])
    axes[0].set_title(f"mean of {sum(agreeing)} of {len(agreeing)}{score}", fontsize=8)
    if "summary_std" not in arrays:
        axes[1].set_title("no spread:\nnone agrees", fontsize=8)
        return
    spread = arrays["summary_std"].astype(np.float64).mean(0)
    axes[1].imshow(spread, cmap="gray", vmin=0, vmax=spread.max() or 1)
    axes[1].set_title(f"std, white: {spread.max():.3f}\nof [0, 1]", fontsize=8)


def draw_tasks(rows: Sequence[tuple[str, Record, Arrays, str, np.ndarray]]) -> Figure:
    """One row per (task, record, arrays, title of the trivial reconstruction, its image (3, H, W) in [-1, 1])."""
    figure, axes = bare_axes(len(rows), 4, height=2.2)
    for row, (task, record, arrays, title, trivial) in zip(axes, rows):
        picked = record["selection"]["picked"]
        pictures = dict(zip(record["survivors"], arrays["images"]))
        shown = (
            (f"{task}\ntruth {record['image_id']}", arrays["truth"]),
            ("measurement", measurement_picture(arrays["y"])),
            (title, measurement_picture(trivial)),
            (f"ours\n{record['selection']['psnr']:.1f} dB", pictures[record["particles"][picked]]),
        )
        for axis, (name, picture) in zip(row, shown):
            axis.imshow(picture)
            axis.set_title(name, fontsize=8)
    figure.tight_layout()
    return figure


def draw_trace(records: Sequence[tuple[Record, Arrays]]) -> Figure:
    """One row per image: PSNR of the particles, mean pairwise latent distance, measurement loss, per annealing step."""
    figure, axes = plt.subplots(len(records), 3, squeeze=False, figsize=(12, 2.4 * len(records)), sharex=True)
    styles = ("-", "--", ":", "-.")
    for row, (record, _) in zip(axes, records):
        trace = record["trace"]
        steps = np.arange(len(trace["psnr"]))
        for position, index in enumerate(record["particles"]):
            style = styles[position % len(styles)]
            row[0].plot(steps, numbers(values[position] for values in trace["psnr"]), style, label=f"p{index}")
            row[2].plot(steps, numbers(values[position] for values in trace["loss"]), style)
        row[1].plot(steps, numbers(trace["pairwise_distance"]), color="black")
        row[2].axhline(record["noise_floor"], color="grey", linewidth=0.8)
        row[2].set_yscale("log")
        for which in (row[2].yaxis.set_major_formatter, row[2].yaxis.set_minor_formatter):
            which("{x:g}")  # the default writes formulas, which names of runs must not be taken for
        row[0].set_ylabel(f"image {record['image_id']}")
        for name, step in registry.marks(record):
            for axis in row:
                axis.axvline(step - 0.5, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
            row[0].annotate(name, (step - 0.5, 0), xycoords=("data", "axes fraction"), rotation=90, fontsize=6, color="0.4")
    for axis, title in zip(
        axes[0], ("PSNR as is (dB)", "mean pairwise latent distance", "measurement loss (grey: noise floor)")
    ):
        axis.set_title(title, fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("annealing step")
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    return figure


def numbers(values: Iterable[float | None]) -> NDArray[np.float64]:
    """(n,) of n values; None becomes a gap in the line."""
    return np.array([np.nan if v is None else v for v in values], dtype=float)


DRAWINGS = {"grid_results": draw_grid, "trace": draw_trace}
