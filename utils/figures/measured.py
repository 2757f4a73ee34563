"""A measurement without a truth beside what its result would give, from the records of a run and of others of its files."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from utils.analysis.experiments import Experiment
from utils.figures.picks import picks_of
from utils.figures.run import draw_summary
from utils.figures.style import Arrays, Record, plt
from utils.records.verdict import verdict_in

WANTED = ("y", "calculated", "images", "summary_mean", "summary_std")
DECADES = 1e-4  # of the brightest magnitude, down to which the scale goes


def draw(experiment: Experiment, others: Sequence[Experiment], count: int) -> Figure | None:
    """One row for each of the first `count` images of the experiment's first run; None where none has a calculated spectrum.

    Measured, calculated, their difference, all on one logarithmic scale; the label-free pick, the mean of the particles that
    agree with it and their spread; then the picks of the other experiments for the same file, such as sampler=classical.
    """
    recorded = [(r, a) for r, a in experiment.runs[0].records(count, wanted=WANTED) if "calculated" in a and a["y"].ndim == 3]
    if not recorded:
        return None
    beside = [(e.label, picks) for e in others if (picks := picks_of(e, {r["sha256"] for r, _ in recorded}))]
    summarised = 2 * any("summary_mean" in arrays for _, arrays in recorded)
    columns = 4 + summarised + len(beside)
    size, bare = (1.95 * columns, 2.4 * len(recorded)), dict[str, Any](xticks=[], yticks=[])
    figure, axes = plt.subplots(len(recorded), columns, squeeze=False, figsize=size, layout="constrained", subplot_kw=bare)
    for row, (record, arrays) in zip(axes, recorded):
        draw_spectra(row[:3], record, arrays)
        show_pick(row[3], f"{record['file']}\npick", record, arrays)
        if "summary_mean" in arrays:
            draw_summary(row[4:], record, arrays)
        for axis, (label, picks) in zip(row[4 + summarised :], beside):
            if record["sha256"] in picks:
                show_pick(axis, label, *picks[record["sha256"]])
    return figure


def show_pick(axis: Axes, title: str, record: Record, arrays: Arrays) -> None:
    """The label-free pick with its R-factor and its verdict."""
    picked = record["selection"]["picked"]
    if picked is None:
        axis.set_title(f"{title}: none", fontsize=8)
        return
    axis.imshow(arrays["images"][record["survivors"].index(record["particles"][picked])])
    r_factor = (record.get("r_factor") or {picked: None})[picked]
    lines = [title, "" if r_factor is None else f"R {r_factor:.4f}", verdict_in(record, picked) or ""]
    axis.set_title("\n".join(lines), fontsize=8)


def draw_spectra(axes: Sequence[Axes], record: Record, arrays: Arrays) -> None:
    """Three axes: measured, calculated and their difference, each the root mean square over channels, with one colour bar.

    The calculated one takes the exposure that was fitted. What was not measured is grey.
    """
    y = arrays["y"].astype(np.float64)
    calculated = arrays["calculated"] * (record["scale"] if record.get("exposure") else 1.0)
    noise = "" if record.get("r_factor_noise") is None else f"\nR of noise alone {record['r_factor_noise']:.4f}"
    titles = (f"measured{noise}", "calculated", "difference")
    top = np.nanmax(y) or 1.0
    norm = LogNorm(DECADES * top, top, clip=True)
    for axis, title, values in zip(axes, titles, (y, calculated, y - calculated)):
        measured = ~np.isnan(values).all(0)
        shown = np.sqrt(np.nansum(values**2, 0) / np.maximum((~np.isnan(values)).sum(0), 1))
        image = axis.imshow(np.where(measured, shown, np.nan), norm=norm, cmap="inferno")
        axis.set_facecolor("0.6")
        axis.set_title(title, fontsize=8)
    bar = axes[0].figure.colorbar(image, ax=list(axes), shrink=0.75, pad=0.02)
    bar.ax.tick_params(labelsize=6)
    bar.ax.yaxis.set_major_formatter("{x:g}")  # the default writes formulas
