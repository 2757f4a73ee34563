"""Pictures of a run, drawn from its records: grid_results.png and trace.png, ten images a page."""

import hashlib
import logging
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray
from PIL import Image

from utils.analysis import runs
from utils.analysis.runs import Run
from utils.figures.style import (
    DASHES,
    DPI,
    PICKED,
    TURNED,
    Arrays,
    Record,
    draw_measurement,
    event_times,
    frame,
    is_turned,
    legend_outside,
    mark_events,
    note,
    particle_columns,
    particle_title,
    picture_axes,
    plt,
    save_figure,
    shown,
    time_axis,
)
from utils.plain_files import Unreadable, read_yaml
from utils.records.aggregate import aggregate, finite
from utils.records.files import read_record, record_paths
from utils.records.summary import resolution

log = logging.getLogger("latentdaps")

PAGE = 10
PAGES = 2  # drawn on a call: each takes about two seconds of a core
PNG = {"compress_level": 2}  # half the time of matplotlib's own, and files hardly larger
STATE = "LatentDAPS records"  # what a page says of the records that it was drawn from, in its PNG
SPREAD_WARNING = (
    "std: how far the particles differ, at most settings far less than they err: no error bar (tools/calibration.py)"
)


def draw_all(folder: str | Path) -> list[Path]:
    """Draw the pages of a run folder whose records have changed since; returns the paths of those drawn.

    Of many images the first PAGES pages that are missing or old, which the log says; the next call draws the next ones.
    """
    paths = record_paths(folder)
    config = config_of(Path(folder))
    written: list[Path] = []
    for page, start in enumerate(range(0, len(paths), PAGE)):
        of_page = paths[start : start + PAGE]
        number = "" if page == 0 else f"_{page + 1}"
        targets = {Path(folder) / f"{name}{number}.png": draw for name, draw in DRAWINGS.items()}
        state = state_of(of_page)
        if all(drawn_from(target) == state for target in targets):
            continue
        if len(written) == PAGES * len(DRAWINGS):
            log.info("pictures: up to image %d of %d; the same command draws those of the next ones", start, len(paths))
            break
        records = [(record, arrays) for record, arrays in map(read_record, of_page) if arrays]
        if not records:  # stripped of their pictures
            continue
        for target, draw in targets.items():
            save_figure(draw(records, config), target, dpi=DPI, metadata={STATE: state}, pil_kwargs=PNG)
            written.append(target)
    return written


def config_of(folder: Path) -> dict[str, Any] | None:
    """The config of a run folder, for its events; None where it cannot be read."""
    try:
        return read_yaml(folder / "config.yaml")
    except (OSError, Unreadable):
        return None


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


def draw_grid(records: Sequence[tuple[Record, Arrays]], config: Mapping[str, Any] | None = None) -> Figure:
    """One row per image: truth where there is one, measurement, every particle, those found turned by 180 degrees turned back.

    Then, where the records have them, the mean of the particles that agree with the pick, and their standard deviation.
    """
    particles = particle_columns(record for record, _ in records)
    summarised = any("summary_mean" in arrays for _, arrays in records)
    truth_columns = int(any("truth" in arrays for _, arrays in records))
    turned = any(is_turned(record, position) for record, _ in records for position in shown(record))
    lines = ["orange frame: the particle picked without the truth (lowest measurement loss)"]
    lines += ["⟲, dashed frame: found turned by 180°, shown turned back"] * turned
    lines += [SPREAD_WARNING] * summarised
    if "resolved" in records[0][0]:
        lines.append(resolution(records[0][0]["resolved"]))
    columns = truth_columns + 1 + particles + 2 * summarised
    lines = [part for line in lines for part in textwrap.wrap(line, 27 * columns)]
    figure, axes = picture_axes(len(records), columns, above=0.52, head=0.15 * len(lines) + 0.1)
    for row, (record, arrays) in zip(axes, records):
        if "truth" in arrays:
            row[0].imshow(arrays["truth"])
            row[0].set_title(f"truth {record['image_id']}", fontsize=8)
        draw_measurement(row[truth_columns], arrays["y"])
        if "truth" not in arrays:
            row[truth_columns].set_title(f"{record['image_id']}: {row[truth_columns].get_title()}", fontsize=8)
        draw_particles(row[truth_columns + 1 : truth_columns + 1 + particles], record, arrays)
        if "summary_mean" in arrays:
            draw_summary(row[truth_columns + 1 + particles :], record, arrays)
    figure.text(0.01, 1 - 0.08 / figure.get_figheight(), "\n".join(lines), fontsize=8, va="top")
    return figure


def draw_particles(axes: np.ndarray, record: Record, arrays: Arrays) -> None:
    """Those that pictures show, axes: (at least so many,); one that is not there at the end has a note in its place."""
    pictures = dict(zip(record["survivors"], arrays["images"]))
    for axis, position in zip(axes, shown(record)):
        index, title = record["particles"][position], particle_title(record, position)
        if index not in pictures:
            note(axis, title.replace(": ", "\n"))
            continue
        turned = is_turned(record, position)
        axis.imshow(np.rot90(pictures[index], 2) if turned else pictures[index])
        axis.set_title(title.replace("\n", " ⟲\n", 1) if turned else title, fontsize=8)
        if turned:
            frame(axis, linewidth=1.2, linestyle="--", color=TURNED)
        if position == record["selection"]["picked"]:
            frame(axis, linewidth=3, linestyle="--" if turned else "-", color=PICKED)


def draw_summary(axes: np.ndarray, record: Record, arrays: Arrays) -> None:
    """The aligned mean, and beside it the spread of a pixel over particles, averaged over channels; axes: (2,) or more.

    Both lie as the pick was found, and are shown turned back where it is.
    """
    summary, picked = record["summary"], record["selection"]["picked"]
    agreeing = finite(summary["agreeing"])
    score = "" if summary["psnr"] is None else f"\n{summary['psnr']:.1f} dB"
    quarters = 2 if picked is not None and is_turned(record, picked) else 0
    axes[0].imshow(np.rot90(arrays["summary_mean"], quarters))
    axes[0].set_title(f"mean of {sum(agreeing)} of {len(agreeing)}{score}", fontsize=8)
    if "summary_std" not in arrays:
        axes[1].set_title("no spread:\nnone agrees", fontsize=8)
        return
    spread = np.rot90(arrays["summary_std"].astype(np.float64).mean(0), quarters)
    axes[1].imshow(spread, cmap="gray", vmin=0, vmax=spread.max() or 1)
    axes[1].set_title(f"std, white: {spread.max():.3f}\nof [0, 1]", fontsize=8)


def draw_trace(records: Sequence[tuple[Record, Arrays]], config: Mapping[str, Any] | None = None) -> Figure:
    """One row per image: PSNR of the particles, mean pairwise latent distance, measurement loss against t, with the events.

    What no record has gets no column: PSNR without a truth, distances of one particle.
    """
    traces = [record["trace"] for record, _ in records]
    scored = any(finite(row) for trace in traces for row in trace["psnr"])
    apart = any(finite(trace["pairwise_distance"]) for trace in traces)
    columns = {"psnr": "PSNR as is (dB)"} if scored else {}
    columns |= {"pairwise_distance": "mean pairwise latent distance"} if apart else {}
    columns |= {"loss": "measurement loss (grey: noise floor)"}
    all_times = [event_times(record["trace"]["timestep"]) for record, _ in records]
    events = [events_of(record, config, times) for (record, _), times in zip(records, all_times)]
    height, width, left, below = 1.7, 4.0, 0.55, 0.3  # inches; below a panel: its numbers
    above = 1.2 if any(events) else 0.4  # for the names of the events
    names = math.ceil(0.16 * len(records[0][0]["particles"]) / (height * len(records)))  # columns of the legend, 0.16 a line
    size = (width * len(columns) + 0.45 + 0.75 * names, height * len(records) + above + 0.2)
    figure = plt.figure(figsize=size)
    for i, ((record, _), times) in enumerate(zip(records, all_times)):
        bottom = size[1] - above - height * (i + 1) + below
        for j, (key, title) in enumerate(columns.items()):
            place = (left + width * j) / size[0], bottom / size[1], (width - left) / size[0], (height - below) / size[1]
            axis = figure.add_axes(place)
            draw_lines(axis, record, times, key)
            time_axis(axis, times.min())
            axis.yaxis.set_minor_locator(NullLocator())
            axis.tick_params(labelsize=7, labelbottom=i == len(records) - 1)
            mark_events(axis, events[i], named=i == 0)
            if i == 0:
                figure.text(place[0], 1 - 0.15 / size[1], title, fontsize=9, va="top")
            if i == len(records) - 1:
                axis.set_xlabel("t", fontsize=8)
            if j == 0:
                axis.set_ylabel(f"image {record['image_id']}", fontsize=8)
            if i == 0 and j == len(columns) - 1:
                legend_outside(axis, names)
    return figure


def draw_lines(axis: Axes, record: Record, times: NDArray[np.float64], key: str) -> None:
    """What the trace holds under `key`: a line per particle, or one of what it has a number of per step."""
    rows = record["trace"][key]
    if isinstance(rows[0], list):
        for position, index in enumerate(record["particles"]):
            values = numbers(row[position] for row in rows)
            named = f"p{index}" if np.isfinite(values).any() else "_"  # which the legend leaves out: no line, no name
            axis.plot(times, values, linestyle=DASHES[position % len(DASHES)], linewidth=1, label=named)
    else:
        axis.plot(times, numbers(rows), color="black", linewidth=1)
    axis.yaxis.set_major_locator(MaxNLocator(4))
    if key == "loss":
        axis.axhline(record["noise_floor"], color="grey", linewidth=0.8)
        axis.set_yscale("log")
        # few ticks of plain numbers: the default writes formulas, which names of runs must not be taken for
        axis.yaxis.set_major_locator(FixedLocator(np.geomspace(*axis.get_ylim(), 5)[1:-1].tolist()))
        axis.yaxis.set_major_formatter("{x:.3g}")


def events_of(record: Record, config: Mapping[str, Any] | None, times: NDArray[np.float64]) -> list[tuple[str, float]]:
    """[(name, t)] of the events of one image."""
    return at_times(runs.events(Run(Path(), aggregate([record], ""), None if config is None else dict(config))), times)


def at_times(events: Sequence[tuple[str, int]], times: NDArray[np.float64]) -> list[tuple[str, float]]:
    """[(name, t)] of [(name, first annealing step after it)]: half-way between that step and the one before."""
    between = (times[1:] + times[:-1]) / 2
    ends = np.concatenate([times[:1], between, times[-1:]])
    return [(name, float(ends[min(step, len(times))])) for name, step in events]


def numbers(values: Iterable[float | None]) -> NDArray[np.float64]:
    """(n,) of n values; None becomes a gap in the line."""
    return np.array([np.nan if v is None else v for v in values], dtype=float)


DRAWINGS = {"grid_results": draw_grid, "trace": draw_trace}
