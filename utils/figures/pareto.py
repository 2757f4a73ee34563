"""What a decoder pass buys: quality and success of experiments against the passes of an image."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from utils.analysis import stats
from utils.analysis.costs import cost, mean_std
from utils.analysis.experiments import Experiment
from utils.analysis.rates import rate
from utils.figures.style import legend_outside, plt, point_face, shown_name


def draw(experiments: Sequence[Experiment]) -> Figure:
    """Label-free pick (dB) and success rate against decoder passes per image, of experiments with labels of success.

    Points that no other one beats in both are joined. Bars: standard error over images, Wilson's interval.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    figure.subplots_adjust(left=0.06, right=0.77, top=0.96, bottom=0.13, wspace=0.2)
    passes = [cost(e)["passes"] for e in experiments]
    picks = [mean_std(e, "psnr_aligned.pick") for e in experiments]
    rates = [rate(e.values("success"), e.clusters("success")) for e in experiments]
    quality = [(p["mean"], *2 * ((p["std"] or 0.0) / p["n"] ** 0.5,)) for p in picks]
    said = [len(e.images) >= stats.FEW_IMAGES for e in experiments]  # of fewer an interval says nothing
    success = [
        tuple(100 * v for v in (r["rate"], enough * (r["rate"] - r["low"]), enough * (r["high"] - r["rate"])))
        for r, enough in zip(rates, said)
    ]
    for axis, points, name in (
        (axes[0], quality, "label-free pick, better orientation (dB)"),
        (axes[1], success, "success rate (%)"),
    ):
        middle = [value for value, _, _ in points]
        lower, upper = [low for _, low, _ in points], [high for _, _, high in points]
        for i, (e, x) in enumerate(zip(experiments, passes)):
            bar = [[lower[i]], [upper[i]]]
            ink = {"color": "black", "elinewidth": 0.6, "ecolor": "0.6", "linestyle": "none", "markersize": 6, "clip_on": False}
            axis.errorbar([x], [middle[i]], bar, label=shown_name(e.label), **point_face(i), **ink)
        front = best_for_less(passes, middle)
        axis.plot([passes[i] for i in front], [middle[i] for i in front], color="0.5", linewidth=0.8, linestyle="--", zorder=0)
        axis.margins(x=0.1)
        axis.set_xscale("log")
        low, high = axis.get_xlim()
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 4 * low else MaxNLocator(4))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter("{x:g}")  # text is not read as mathematics: names of runs may hold a $
        axis.set_xlabel("decoder passes per image")
        axis.set_ylabel(name)
    axes[1].set_ylim(min(axes[1].get_ylim()[0], 95.0), 100)
    legend_outside(axes[1])
    return figure


def best_for_less(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Indices, cheapest first, of the points whose value no point of the same cost or less reaches."""
    front: list[int] = []
    for i in sorted(range(len(costs)), key=lambda i: (costs[i], -values[i])):
        if not front or values[i] > values[front[-1]]:
            front.append(i)
    return front
