"""What an image costs and what it buys: quality and success of experiments against decoder passes, and time x memory."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from utils.analysis import stats
from utils.analysis.costs import cost, mean_std
from utils.analysis.experiments import Experiment
from utils.analysis.rates import rate
from utils.figures.style import legend_outside, plt, point_face, shown_name

Point = tuple[float, float, float]  # of a panel: the value, and its error below and above


def draw(experiments: Sequence[Experiment]) -> Figure:
    """Label-free pick (dB) against decoder passes, where all have labels of success its rate too, and the pick against time x
    memory (seconds where the memory is not known). All costs are of an image.

    Points that no other one beats in both are joined. Bars: standard error over images, Wilson's interval.
    """
    aligned = all(e.runs[0].metrics.modes for e in experiments)
    picks = [mean_std(e, "pick_psnr") or {"mean": float("nan"), "std": None, "n": 1} for e in experiments]
    quality: list[Point] = [(p["mean"], *2 * ((p["std"] or 0.0) / p["n"] ** 0.5,)) for p in picks]
    costs = [cost(e) for e in experiments]
    passes = [c["passes"] for c in costs]
    memory = all(c["time_x_memory_mb_s"] is not None for c in costs)
    spent = [c["time_x_memory_mb_s" if memory else "seconds"] for c in costs]
    decibel = f"label-free pick{', better orientation' if aligned else ''} (dB)"
    panels = [
        (passes, quality, "decoder passes", decibel),
        (spent, quality, "time × peak memory (MB s)" if memory else "seconds", ""),
    ]
    if aligned:
        panels.insert(1, (passes, [success(e) for e in experiments], "decoder passes", "success rate (%)"))
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels) + 2.3, 4), squeeze=False)
    figure.subplots_adjust(left=0.05, right=0.82, top=0.96, bottom=0.13, wspace=0.2)
    for axis, (x, points, paid, bought) in zip(axes[0], panels):
        for i, (e, at, (value, below, above)) in enumerate(zip(experiments, x, points)):
            ink = {"color": "black", "elinewidth": 0.6, "ecolor": "0.6", "linestyle": "none", "markersize": 6, "clip_on": False}
            axis.errorbar([at], [value], [[below], [above]], label=shown_name(e.label), **point_face(i), **ink)
        front = best_for_less(x, [value for value, _, _ in points])
        line = [x[i] for i in front], [points[i][0] for i in front]
        axis.plot(*line, color="0.5", linewidth=0.8, linestyle="--", zorder=0)
        axis.margins(x=0.1)
        several_decades = False
        if min(x) > 0:  # an algorithm without passes has no place on a logarithmic axis
            axis.set_xscale("log")
            low, high = axis.get_xlim()
            several_decades = high > 4 * low
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if several_decades else MaxNLocator(4))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter("{x:g}")  # text is not read as mathematics: names of runs may hold a $
        axis.set_xlabel(f"{paid} per image")
        axis.set_ylabel(bought)
        if points is not quality:
            axis.set_ylim(min(axis.get_ylim()[0], 95.0), 100)
    legend_outside(axes[0][-1])
    return figure


def success(e: Experiment) -> Point:
    """In percent; of few images an interval says nothing."""
    solved = rate(e.clusters("success"))
    if len(e.images) < stats.FEW_IMAGES:
        return 100 * solved["rate"], 0.0, 0.0
    return 100 * solved["rate"], 100 * (solved["rate"] - solved["low"]), 100 * (solved["high"] - solved["rate"])


def best_for_less(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Indices, cheapest first, of the points whose value no point of the same cost or less reaches."""
    front: list[int] = []
    for i in sorted(range(len(costs)), key=lambda i: (costs[i], -values[i])):
        if not front or values[i] > values[front[-1]]:
            front.append(i)
    return front
