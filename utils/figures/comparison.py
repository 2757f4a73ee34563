"""Figures of compared experiments, readable in black and white: lines differ in dash, points in shape, areas in grey."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.analysis import runs
from utils.analysis.costs import cost, mean_std
from utils.analysis.experiments import Experiment
from utils.errors import InputError
from utils.figures import measured as measured_figures
from utils.figures import pareto, reconstructions
from utils.figures.run import numbers
from utils.figures.style import plt, save_figure
from utils.records.aggregate import finite
from utils.records.metrics import Metrics

DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 3)))
GREYS = ("black", "0.45", "0.25", "0.6", "0.1", "0.5")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LABEL_MARKERS = {"0": ("o", "black"), "180": ("o", "white"), "mixed": ("^", "0.6"), "failed": ("x", "black")}
LABEL_GREYS = {"0": 1.0, "180": 0.35, "mixed": 0.7, "failed": 0.85}
MAP_ROWS = 30


def draw_all(experiments: Sequence[Experiment], folder: str | Path, images: int = reconstructions.IMAGES) -> list[Path]:
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


def every(experiments: Sequence[Experiment], images: int = reconstructions.IMAGES) -> Iterator[tuple[str, Figure]]:
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
    if scored:
        yield "quality_cost", quality_cost(scored)
    if len(labelled) > 2:
        yield "pareto", pareto.draw(labelled)
    curves = {e.label: transfer_functions(e) for e in measured}
    if any(len(of_images) for of_images in curves.values()):
        yield "prtf", prtf(curves)
    for e in measured:
        figure = reconstructions.draw(e, images)
        if figure is not None:
            yield picture_name(e), figure
        figure = reconstructions.draw_summaries(e, images)
        if figure is not None:
            yield summary_name(e), figure
        figure = measured_figures.draw(e, [other for other in measured if other is not e], images)
        if figure is not None:
            yield measured_name(e), figure


def picture_name(experiment: Experiment) -> str:
    """File name of an experiment's reconstructions, without suffix."""
    return f"reconstructions_{experiment.label.replace('/', '--')}"


def summary_name(experiment: Experiment) -> str:
    """The same of its aligned means."""
    return picture_name(experiment).replace("reconstructions_", "summary_", 1)


def measured_name(experiment: Experiment) -> str:
    """The same of measurements without a truth."""
    return picture_name(experiment).replace("reconstructions_", "measured_", 1)


def style(i: int) -> dict[str, Any]:
    return {"linestyle": DASHES[i % len(DASHES)], "color": GREYS[i % len(GREYS)]}


def mark_events(axis: Axes, experiments: Sequence[Experiment]) -> None:
    """A vertical line per event step, named once however many experiments share it."""
    names: dict[int, dict[str, None]] = {}  # {step: names}, in the order of the experiments
    for e in experiments:
        for name, step in runs.events(e.runs[0]):
            names.setdefault(step, {})[name] = None
    for step, event_names in names.items():
        axis.axvline(step - 0.5, color="0.7", linewidth=0.8, zorder=0)
        axis.annotate(
            ", ".join(event_names),
            (step - 0.5, 1),
            xycoords=("data", "axes fraction"),
            rotation=90,
            fontsize=7,
            ha="right",
            va="top",
            color="0.3",
            xytext=(-2, -3),
            textcoords="offset points",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
        )


def per_step(experiments: Sequence[Experiment], get: Callable[[Metrics], Sequence[Sequence[float | None]]], axis: Axes) -> None:
    """One line per experiment: the mean over its images of get(metrics), a list per annealing step per image."""
    for i, e in enumerate(experiments):
        lengths = {len(get(run.metrics)[0]) for run in e.runs}
        rows = [numbers(row) for run in e.runs for row in get(run.metrics)]
        if len(lengths) > 1 or np.isnan(rows).all():
            continue
        measured = np.isfinite(rows)
        mean = np.where(measured.any(0), np.nansum(rows, 0) / np.maximum(measured.sum(0), 1), np.nan)
        axis.plot(
            mean,
            label=legend_name(e),
            marker=MARKERS[i % len(MARKERS)],
            markevery=(i, max(1, len(mean) // 6)),
            markersize=4,
            linewidth=1.2,
            **style(i),
        )
    mark_events(axis, experiments)
    axis.set_xlabel("annealing step")
    legend(axis)


def legend(axis: Axes, **options: Any) -> None:
    """A legend of what is labelled; none where nothing was drawn, which matplotlib warns of."""
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=7, **options)


def legend_name(experiment: Experiment) -> str:
    return shown_name(experiment.label)


def shown_name(label: str) -> str:
    """A label as a legend shows it; matplotlib leaves those out that begin with an underscore."""
    return f" {label}" if label.startswith("_") else label


def step_time(experiments: Sequence[Experiment]) -> Figure:
    """Seconds per annealing step, mean over images, with the events."""
    figure, axis = plt.subplots(figsize=(6.5, 3.6))
    per_step(experiments, lambda m: m.time.per_step_s, axis)
    axis.set_ylabel("time per step and image (s)")
    axis.set_ylim(bottom=0)
    return figure


def pairwise_distance(experiments: Sequence[Experiment]) -> Figure:
    """Mean pairwise latent distance per annealing step, mean over images."""
    figure, axis = plt.subplots(figsize=(6.5, 3.6))
    per_step([e for e in experiments if e.num_samples > 1], lambda m: m.diversity.pairwise_distance, axis)
    axis.set_ylabel("mean pairwise latent distance")
    return figure


def transfer_functions(experiment: Experiment) -> np.ndarray:
    """PRTF of each image of which particles agree, (images, shells); empty where there is none, or of several sizes."""
    name = "summary_prtf"
    recorded = (arrays for run in experiment.runs for _, arrays in run.records(wanted=(name,)))
    curves = [arrays[name] for arrays in recorded if name in arrays]
    return np.stack(curves) if len({len(curve) for curve in curves}) == 1 else np.empty((0, 0))


def prtf(curves: Mapping[str, np.ndarray]) -> Figure:
    """Phase retrieval transfer function per frequency shell, mean over images, and the 1/e that counts as resolved.

    curves: {label: (images, shells)}.
    """
    figure, axis = plt.subplots(figsize=(6.5, 3.6))
    for i, (label, curve) in enumerate(curves.items()):
        if len(curve):
            shells = np.arange(curve.shape[1])
            axis.plot(0.5 * shells / shells[-1], curve.mean(0), label=shown_name(label), linewidth=1.2, **style(i))
    axis.axhline(np.exp(-1), color="0.7", linewidth=0.8, zorder=0)
    axis.annotate("1/e", (0, np.exp(-1)), fontsize=7, color="0.3", va="bottom")
    axis.set_xlabel("frequency (cycles per pixel)")
    axis.set_ylabel("PRTF of the agreeing particles")
    axis.set_ylim(0, 1.02)
    legend(axis)
    return figure


def psnr_distribution(experiments: Sequence[Experiment]) -> Figure:
    """All particles of an experiment, their quartiles, and its mean best and mean label-free pick."""
    aligned = all(e.runs[0].metrics.modes for e in experiments)
    quantity = "psnr_aligned" if aligned else "psnr"
    figure, axis = plt.subplots(figsize=(1.6 + 1.3 * len(experiments), 4))
    spread = np.random.default_rng(0)
    for i, e in enumerate(experiments):
        points = [(value, label) for run in e.runs for value, label in _particles(run.metrics, aligned)]
        if not points:
            continue
        axis.boxplot(
            [[value for value, _ in points]],
            positions=[i],
            widths=0.7,
            showfliers=False,
            medianprops={"color": "black"},
            boxprops={"color": "0.5"},
            whiskerprops={"color": "0.5"},
            zorder=1,
        )
        for label in LABEL_MARKERS:
            values = [value for value, particle_label in points if particle_label == label]
            axis.scatter(i + spread.uniform(-0.25, 0.25, len(values)), values, zorder=2, **point_style(label))
        for part, marker in (("best", "_"), ("pick", "*")):
            values = e.values(f"{quantity}.{part}")
            if values:
                axis.scatter([i + 0.42], [np.mean(values)], marker=marker, s=90, color="black", zorder=3)
    if aligned:
        for label in LABEL_MARKERS:
            axis.scatter([], [], label=f"{label}°" if label in ("0", "180") else label, **point_style(label))
    axis.scatter([], [], marker="_", s=90, color="black", label="mean of the best")
    axis.scatter([], [], marker="*", s=90, color="black", label="mean of the pick")
    axis.set_xticks(range(len(experiments)), [e.label for e in experiments], rotation=20, ha="right", fontsize=8)
    axis.set_ylabel("PSNR, better orientation (dB)" if aligned else "PSNR (dB)")
    legend(axis, loc="center left", bbox_to_anchor=(1, 0.5))
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
    figure, axes = plt.subplots(
        1,
        len(experiments),
        squeeze=False,
        layout="constrained",
        figsize=(1.0 + sum(0.9 + 0.36 * e.num_listed for e in experiments), 1.6 + 0.22 * rows),
        width_ratios=[0.9 + 0.36 * e.num_listed for e in experiments],
    )
    for axis, e, images in zip(axes[0], experiments, shown):
        images = images[:rows]
        greys = [[LABEL_GREYS.get(label, np.nan) for label in labels] for _, labels, _ in images]
        axis.patch.set(hatch="////", edgecolor="0.8")  # shows where a particle was pruned, not started or diverged
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
                    fontsize=6,
                    color="white" if label == "180" else "black",
                    fontweight="bold" if x == picked else "normal",
                )
        axis.set_yticks(range(len(images)), [image for image, _, _ in images], fontsize=6)
        first = (e.runs[0].config or {}).get("first_particle", 0)
        axis.set_xticks(range(e.num_listed), [f"p{first + k}" for k in range(e.num_listed)], fontsize=6)
        axis.set_xticks(np.arange(e.num_listed + 1) - 0.5, minor=True)
        axis.set_yticks(np.arange(len(images) + 1) - 0.5, minor=True)
        axis.grid(which="minor", color="black", linewidth=0.4)
        axis.tick_params(which="both", length=0)
        axis.set_title(e.label.replace("_", "\n", 1), fontsize=7)
    axes[0][0].set_ylabel("image")
    figure.supxlabel(
        "0, 180: orientation found · m: channels mixed · ×: failed · hatched: not there at the end · P: label-free pick",
        fontsize=6,
    )
    return figure


def quality_cost(experiments: Sequence[Experiment]) -> Figure:
    """PSNR against time x memory per image (seconds where memory is not known): filled best, open label-free pick."""
    aligned = all(e.runs[0].metrics.modes for e in experiments)
    quantity = "psnr_aligned" if aligned else "psnr"
    costs = [cost(e) for e in experiments]
    memory = all(c["time_x_memory_mb_s"] is not None for c in costs)
    figure, axis = plt.subplots(figsize=(6.5, 4.2))
    for i, (e, c) in enumerate(zip(experiments, costs)):
        x = c["time_x_memory_mb_s" if memory else "seconds"]
        for part, face in (("best", "black"), ("pick", "white")):
            quality = mean_std(e, f"{quantity}.{part}")
            if quality:
                axis.errorbar(
                    [x],
                    [quality["mean"]],
                    [quality["std"] / quality["n"] ** 0.5],
                    markersize=7,
                    color="black",
                    marker=MARKERS[i % len(MARKERS)],
                    markerfacecolor=face,
                    linestyle="none",
                    elinewidth=0.7,
                    capsize=2,
                    label=legend_name(e) if part == "best" else None,
                )
    axis.set_xlabel("time × peak memory per image (MB s)" if memory else "time per image (s)")
    axis.set_ylabel("PSNR, better orientation (dB)" if aligned else "PSNR (dB)")
    axis.set_title("filled: best by the truth; open: label-free pick; bars: standard error over images", fontsize=8)
    axis.set_xlim(left=0)
    legend(axis)
    return figure
