"""Figures of compared experiments."""

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.analysis import runs
from utils.analysis.experiments import Experiment
from utils.errors import InputError
from utils.figures import measured as measured_figures
from utils.figures import pareto, picks
from utils.figures.run import at_times, draw_grid, numbers
from utils.figures.style import (
    LABEL_GREYS,
    LABEL_MARKERS,
    TIMESTEPS,
    event_times,
    legend_outside,
    line_style,
    mark_events,
    plt,
    save_figure,
    shown_name,
    time_axis,
)
from utils.records.aggregate import finite
from utils.records.metrics import Metrics

MAP_ROWS = 30
MAP_PARTICLES = 32  # side by side; more go below
IMAGES = 4
PICTURES = ("images", "truth", "y", "summary_mean", "summary_std")


def draw_all(experiments: Sequence[Experiment], folder: str | Path, images: int = IMAGES) -> list[Path]:
    """Write every figure that the experiments have data for, as PNG and PDF; returns the paths. Raises InputError."""
    written = []
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, figure in every(experiments, images):
            for suffix in ("png", "pdf"):
                written.append(Path(folder) / f"{name}.{suffix}")
                save_figure(figure, written[-1], dpi=150, bbox_inches="tight")
    except OSError as error:
        raise InputError(f"figures={folder}: cannot be written ({error.strerror})") from None
    return written


def every(experiments: Sequence[Experiment], images: int = IMAGES) -> Iterator[tuple[str, Figure]]:
    """(name, Figure) of every figure that the experiments have data for; pictures of the first `images` images."""
    measured = [e for e in experiments if not e.derived]
    yield "step_time", step_time(measured)
    if any(e.num_samples > 1 for e in measured):
        yield "pairwise_distance", pairwise_distance(measured)
    scored = [e for e in measured if any(finite(row) for run in e.runs for row in run.metrics.psnr.sample)]
    if scored:
        yield "psnr_distribution", psnr_distribution(scored)
    labelled = [e for e in measured if e.runs[0].metrics.modes]
    if labelled:
        yield "mode_map", mode_map(labelled)
    if len(scored) > 1:
        yield "pareto", pareto.draw(scored)
    side_by_side = picks.draw(scored, images)
    if side_by_side is not None:
        yield "picks", side_by_side
    curves = {e.label: transfer_functions(e) for e in measured}
    if any(len(of_images) for of_images in curves.values()):
        yield "prtf", prtf(curves)
    for e in measured:
        figure = reconstructions(e, images)
        if figure is not None:
            yield name_of("reconstructions", e), figure
        figure = measured_figures.draw(e, [other for other in measured if other is not e], images)
        if figure is not None:
            yield name_of("measured", e), figure


def name_of(kind: str, experiment: Experiment) -> str:
    """File name of a figure of one experiment, without suffix."""
    return f"{kind}_{experiment.label.replace('/', '--')}"


def reconstructions(experiment: Experiment, count: int = IMAGES) -> Figure | None:
    """The grid of the first `count` images of an experiment's first run; None where no record holds pictures."""
    run = experiment.runs[0]
    recorded = [(record, arrays) for record, arrays in run.records(count, wanted=PICTURES) if "images" in arrays]
    return draw_grid(recorded, run.config) if recorded else None


def per_step(
    experiments: Sequence[Experiment], get: Callable[[Metrics], Sequence[Sequence[float | None]]], name: str
) -> Figure:
    """One line per experiment: the mean over its images of get(metrics), against t."""
    figure, axis = line_axes()
    events: dict[tuple[str, float], None] = {}
    end = 0.0
    for i, e in enumerate(experiments):
        lengths = {len(get(run.metrics)[0]) for run in e.runs}
        rows = [numbers(row) for run in e.runs for row in get(run.metrics)]
        if len(lengths) > 1 or np.isnan(rows).all():
            continue
        measured = np.isfinite(rows)
        mean = np.where(measured.any(0), np.nansum(rows, 0) / np.maximum(measured.sum(0), 1), np.nan)
        n = len(mean)
        times = event_times(e.runs[0].timesteps or TIMESTEPS * (n - np.arange(n)) / n)
        end = min(end, times.min())
        every_sixth = (i, max(1, n // 6))
        axis.plot(times, mean, label=shown_name(e.label), markevery=every_sixth, markersize=4, **line_style(i, marked=True))
        events |= dict.fromkeys(at_times(runs.events(e.runs[0]), times))
    time_axis(axis, end)
    mark_events(axis, list(events))
    axis.set_xlabel("t")
    axis.set_ylabel(name)
    legend_outside(axis)
    return figure


def line_axes() -> tuple[Figure, Axes]:
    """Axes with room for the names of events above and for a legend to the right."""
    figure = plt.figure(figsize=(8, 4))
    return figure, figure.add_axes((0.09, 0.13, 0.61, 0.62))


def step_time(experiments: Sequence[Experiment]) -> Figure:
    """Seconds per annealing step, mean over images, with the events."""
    figure = per_step(experiments, lambda m: m.time.per_step_s, "time per step and image (s)")
    figure.axes[0].set_ylim(bottom=0)
    return figure


def pairwise_distance(experiments: Sequence[Experiment]) -> Figure:
    """Mean pairwise latent distance per annealing step, mean over images."""
    several = [e for e in experiments if e.num_samples > 1]
    return per_step(several, lambda m: m.diversity.pairwise_distance, "mean pairwise latent distance")


def transfer_functions(experiment: Experiment) -> np.ndarray:
    """PRTF of each image of which particles agree, (images, shells); empty where there is none, or of several sizes."""
    curves = [curve for run in experiment.runs if run.metrics.summary for curve in run.arrays("summary_prtf")]
    return np.stack(curves) if len({len(curve) for curve in curves}) == 1 else np.empty((0, 0))


def prtf(curves: Mapping[str, np.ndarray]) -> Figure:
    """Phase retrieval transfer function per frequency shell, mean over images, and the 1/e that counts as resolved.

    curves: {label: (images, shells)}.
    """
    figure, axis = line_axes()
    for i, (label, curve) in enumerate(curves.items()):
        if len(curve):
            shells = np.arange(curve.shape[1])
            axis.plot(0.5 * shells / shells[-1], curve.mean(0), label=shown_name(label), **line_style(i))
    axis.axhline(np.exp(-1), color="0.7", linewidth=0.8, zorder=0)
    axis.annotate("1/e", (0, np.exp(-1)), fontsize=7, color="0.3", va="bottom")
    axis.set_xlabel("frequency (cycles per pixel)")
    axis.set_ylabel("PRTF of the agreeing particles")
    axis.set_ylim(0, 1)
    axis.set_xlim(0, 0.5)
    legend_outside(axis)
    return figure


def psnr_distribution(experiments: Sequence[Experiment]) -> Figure:
    """All particles of an experiment, and their quartiles."""
    aligned = all(e.runs[0].metrics.modes for e in experiments)
    figure, axis = plt.subplots(figsize=(3 + 0.75 * len(experiments), 4))
    spread = np.random.default_rng(0)
    for i, e in enumerate(experiments):
        points = [(value, label) for run in e.runs for value, label in _particles(run.metrics, aligned)]
        grey, black = {"color": "0.5"}, {"color": "black"}
        lines: dict[str, Any] = {"boxprops": grey, "whiskerprops": grey, "medianprops": black, "showfliers": False}
        axis.boxplot([[value for value, _ in points]], positions=[i], widths=0.7, zorder=1, **lines)
        for label in LABEL_MARKERS:
            values = [value for value, particle_label in points if particle_label == label]
            axis.scatter(i + spread.uniform(-0.25, 0.25, len(values)), values, zorder=2, **point_style(label))
    for label in LABEL_MARKERS if aligned else ():
        axis.scatter([], [], label=f"{label}°" if label in ("0", "180") else label, **point_style(label))
    names = [shown_name(e.label) for e in experiments]
    axis.set_xticks(range(len(experiments)), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
    axis.set_ylabel("PSNR, better orientation (dB)" if aligned else "PSNR (dB)")
    legend_outside(axis)
    return figure


def point_style(label: str) -> dict[str, Any]:
    """Marker of a particle by its mode label."""
    marker, colour = LABEL_MARKERS[label]
    face = {"color": "black"} if marker == "x" else {"facecolors": colour, "edgecolors": "black"}
    return {"marker": marker, "s": 16, "linewidths": 0.7, **face}


def _particles(m: Metrics, aligned: bool) -> list[tuple[float, str | None]]:
    """(PSNR, label) of all surviving particles; without labels they count as "0", so that they have one marker."""
    values = m.modes.psnr_aligned if aligned else m.psnr.sample
    labels = m.modes.label if aligned else [["0"] * len(row) for row in values]
    return [(v, label) for row, row_labels in zip(values, labels) for v, label in zip(row, row_labels) if v is not None]


def mode_map(experiments: Sequence[Experiment]) -> Figure:
    """Images x particles by label, one panel per experiment; P: the label-free pick; the first images where many."""
    shown = [
        list(zip(run.metrics.metadata.image_ids, run.metrics.modes.label, run.metrics.selection.picked))
        for run in (e.runs[0] for e in experiments)
    ]
    rows = min(MAP_ROWS, max(map(len, shown)))
    bands: list[list[int]] = [[]]  # of panels, as wide as the page
    for i, e in enumerate(experiments):
        if bands[-1] and sum(experiments[k].num_listed for k in bands[-1]) + e.num_listed > MAP_PARTICLES:
            bands.append([])
        bands[-1].append(i)
    cell, apart, above, below = 0.3, 0.45, 0.55, 0.35  # inches
    wide = max(sum(cell * experiments[k].num_listed + apart for k in band) for band in bands)
    band_height = above + 0.2 * rows + below
    size = (max(wide + 0.2, 6.0), band_height * len(bands) + 0.3)
    figure = plt.figure(figsize=size)
    for b, band in enumerate(bands):
        left = apart
        for k in band:
            height, width = 0.2 * min(rows, len(shown[k])), cell * experiments[k].num_listed
            bottom = size[1] - b * band_height - above - height
            axis = figure.add_axes((left / size[0], bottom / size[1], width / size[0], height / size[1]))
            draw_modes(axis, experiments[k], shown[k][:rows])
            left += width + apart
    figure.text(
        0.1 / size[0],
        0.1 / size[1],
        "0, 180: orientation found · m: channels mixed · ×: failed · black: not there at the end · P: label-free pick",
        fontsize=8,
    )
    return figure


def draw_modes(axis: Axes, experiment: Experiment, images: Sequence[tuple[int, Sequence[str | None], int | None]]) -> None:
    """One panel: [(image id, labels of its particles, position of the pick)]."""
    greys = [[LABEL_GREYS.get(label, np.nan) for label in labels] for _, labels, _ in images]
    axis.set_facecolor("black")  # where a particle was pruned, not started or diverged
    axis.imshow(np.array(greys, dtype=float), cmap="gray", vmin=0, vmax=1, aspect="auto")
    for y, (_, labels, picked) in enumerate(images):
        for x, label in enumerate(labels):
            text = {None: "", "failed": "×", "mixed": "m"}.get(label, label)
            axis.text(
                x,
                y,
                text + ("P" if x == picked else ""),
                ha="center",
                va="center",
                fontsize=7,
                color="white" if label == "180" else "black",
                fontweight="bold" if x == picked else "normal",
            )
    n = experiment.num_listed
    first = (experiment.runs[0].config or {}).get("first_particle", 0)
    axis.set_yticks(range(len(images)), [image for image, _, _ in images], fontsize=7)
    axis.set_xticks(range(n), [f"p{first + k}" for k in range(n)], fontsize=7)
    for k in range(n + 1):
        axis.axvline(k - 0.5, color="black", linewidth=0.4)
    for k in range(len(images) + 1):
        axis.axhline(k - 0.5, color="black", linewidth=0.4)
    axis.tick_params(length=0, pad=2)
    axis.set_title("\n".join(textwrap.wrap(experiment.label.replace("_", " "), max(10, 4 * n))), fontsize=8, loc="left")
