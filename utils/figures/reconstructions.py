"""Pictures of reconstructions as they were found and turned to the better orientation, from the records."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.analysis.experiments import Experiment
from utils.figures.run import draw_summary
from utils.figures.style import Arrays, Record, bare_axes, particle_columns, particle_title, shown
from utils.records.summary import resolution

IMAGES = 4


def draw(experiment: Experiment, count: int = IMAGES) -> Figure | None:
    """Figure of the first `count` images of an experiment's first run; None where no record holds pictures.

    Two rows per image. Above: truth and every particle as found. Below: the truth turned by 180 degrees, and every
    particle in its better orientation; one that had to be turned carries a turned arrow and a dashed frame. The
    label-free pick has a thick frame.
    """
    found = experiment.runs[0].records(count, wanted=("images", "truth"))
    recorded = [(record, arrays) for record, arrays in found if len(arrays) == 2]
    if not recorded:
        return None
    columns = 1 + particle_columns(record for record, _ in recorded)
    figure, axes = bare_axes(2 * len(recorded), columns, height=1.75, width=1.5, layout="constrained")
    for i, (record, arrays) in enumerate(recorded):
        draw_image(axes[2 * i], axes[2 * i + 1], record, arrays)
    figure.suptitle(
        f"{titled(experiment.label, recorded[0][0])}: above as found, below in the better orientation (⟲: turned by 180°); "
        "thick frame: label-free pick",
        fontsize=8,
    )
    return figure


def draw_summaries(experiment: Experiment, count: int = IMAGES) -> Figure | None:
    """Figure of the first `count` images of an experiment's first run: the label-free pick, the mean of the particles that
    agree with it, and their spread; None where no record holds them."""
    found = experiment.runs[0].records(count, wanted=("images", "summary_mean", "summary_std"))
    recorded = [(record, arrays) for record, arrays in found if "summary_mean" in arrays]
    if not recorded:
        return None
    figure, axes = bare_axes(len(recorded), 3, height=1.95, width=1.75, layout="constrained")
    for row, (record, arrays) in zip(axes, recorded):
        picked = record["particles"][record["selection"]["picked"]]
        row[0].imshow(arrays["images"][record["survivors"].index(picked)])
        row[0].set_title(f"{record['image_id']}: pick p{picked}", fontsize=8)
        draw_summary(row[1:], record["summary"], arrays)
    figure.suptitle(f"{titled(experiment.label, recorded[0][0])}: pick, aligned mean, std over particles", fontsize=8)
    return figure


def titled(label: str, record: Record) -> str:
    """The label, and to how many pixels the pictures are resolved where that is less than the object has."""
    return f"{label} ({resolution(record['resolved'])})" if "resolved" in record else label


def draw_image(above: np.ndarray, below: np.ndarray, record: Record, arrays: Arrays) -> None:
    """Fill the two rows of one image, each (1 + particles,) axes."""
    truth = arrays["truth"]
    above[0].imshow(truth)
    above[0].set_title(f"truth {record['image_id']}", fontsize=8)
    below[0].imshow(np.rot90(truth, 2))
    below[0].set_title("truth turned", fontsize=8)
    pictures = dict(zip(record["survivors"], arrays["images"]))
    for top, bottom, position in zip(above[1:], below[1:], shown(record)):
        index = record["particles"][position]
        top.set_title(particle_title(record, position), fontsize=7)
        if index not in pictures or record["diverged"][position]:
            continue
        turned = is_turned(record, position)
        top.imshow(pictures[index])
        bottom.imshow(np.rot90(pictures[index], 2) if turned else pictures[index])
        bottom.set_title("⟲ 180°" if turned else "as found", fontsize=7)
        if turned:
            frame(bottom, linewidth=1.2, linestyle="--")
        if position == record["selection"]["picked"]:
            frame(top, linewidth=3)


def is_turned(record: Record, position: int) -> bool:
    """Whether a particle is nearer to the truth when turned by 180 degrees."""
    return bool(record["modes"]) and record["modes"]["psnr_180"][position] > record["modes"]["psnr_0"][position]


def frame(axis: Axes, **kwargs: Any) -> None:
    for spine in axis.spines.values():
        spine.set(visible=True, color="black", **kwargs)
