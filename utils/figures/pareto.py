"""What a decoder pass buys: quality and success of experiments against the passes of an image."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from utils.analysis.costs import cost, mean_std
from utils.analysis.experiments import Experiment
from utils.analysis.rates import rate
from utils.figures.style import plt


def draw(experiments: Sequence[Experiment]) -> Figure:
    """Label-free pick (dB) and success rate against decoder passes per image, of experiments with labels of success.

    Points that no other one beats in both are joined. Bars: standard error over images, Wilson's interval.
    """
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained")
    passes = [cost(e)["passes"] for e in experiments]
    picks = [mean_std(e, "psnr_aligned.pick") for e in experiments]
    rates = [rate(e.values("success"), e.clusters("success")) for e in experiments]
    quality = [(p["mean"], *2 * ((p["std"] or 0.0) / p["n"] ** 0.5,)) for p in picks]
    success = [tuple(100 * v for v in (r["rate"], r["rate"] - r["low"], r["high"] - r["rate"])) for r in rates]
    for axis, points, name in (
        (axes[0], quality, "label-free pick, better orientation (dB)"),
        (axes[1], success, "success rate (%)"),
    ):
        middle = [value for value, _, _ in points]
        lower, upper = [low for _, low, _ in points], [high for _, _, high in points]
        axis.errorbar(passes, middle, [lower, upper], fmt="o", markersize=4, color="black", elinewidth=0.6, ecolor="0.6")
        front = best_for_less(passes, middle)
        axis.plot([passes[i] for i in front], [middle[i] for i in front], color="0.5", linewidth=0.8, linestyle="--", zorder=0)
        for e, x, y in zip(experiments, passes, middle):
            note = {"xytext": (2, 3), "textcoords": "offset points", "fontsize": 6, "rotation": 40}
            axis.annotate(e.label.split("/")[-1], (x, y), **note)
        axis.margins(x=0.15, y=0.25)  # room for the names
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")  # text is not read as mathematics: names of runs may hold a $
        axis.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))  # numbers, and where few powers of ten are seen
        axis.set_xlabel("decoder passes per image")
        axis.set_ylabel(name)
    return figure


def best_for_less(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Indices, cheapest first, of the points whose value no point of the same cost or less reaches."""
    front: list[int] = []
    for i in sorted(range(len(costs)), key=lambda i: (costs[i], -values[i])):
        if not front or values[i] > values[front[-1]]:
            front.append(i)
    return front
