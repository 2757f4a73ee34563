"""What tools/calibration.py found, as a picture: ranks of the truth, and the spread of the particles against their error."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.figures.style import plt, save_figure


def draw(content: Mapping[str, Any], path: Path) -> None:
    """Write the figure of the content of one calibration file as PNG."""
    save_figure(panels(content), path, dpi=110, bbox_inches="tight")


def panels(content: Mapping[str, Any]) -> Figure:
    """Figure: histogram of the pixels' ranks with the uniform level; a point per truth on spread and error."""
    figure, (ranks, errors) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    shares = content["rank_histogram"] or []
    ranks.bar(np.arange(len(shares)), shares, color="0.6", edgecolor="black")
    ranks.axhline(1 / (content["particles"] + 1), color="black", linestyle="--", linewidth=0.8)
    ranks.xaxis.set_major_locator(MaxNLocator(integer=True))
    ranks.set_xlabel(f"particles below the truth, of {content['particles']}")
    ranks.set_ylabel("share of pixels (dashed: calibrated)")
    top = 0.0
    for name, marker, face in (("all", "o", "white"), ("agreeing", "s", "black")):
        for point in content[name]["per_truth"] if content[name] else ():
            errors.plot(point["spread"], point["error"], marker, color="black", markerfacecolor=face, markersize=4)
            top = max(top, point["spread"], point["error"])
    errors.plot([0, top], [0, top], color="black", linestyle="--", linewidth=0.8)
    errors.set_xlabel("spread of a pixel (filled: particles that agree)")
    errors.set_ylabel("error of the mean")
    return figure
