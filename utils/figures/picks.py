"""The same images solved by several experiments: the particle that each picks without the truth."""

import textwrap
from collections.abc import Collection, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.analysis.experiments import Experiment
from utils.figures.style import Arrays, Record, is_turned, note, particle_title, picture_axes, shown_name

WANTED = ("truth", "images")
LABEL_WIDTH = 24  # characters of an experiment's name in a line above its column


def draw(experiments: Sequence[Experiment], count: int) -> Figure | None:
    """One row for each of the first `count` images of the first experiment that has pictures: the truth, then every pick.

    A pick that was found turned by 180 degrees is shown turned back. None where fewer than two experiments have pictures of
    the same image.
    """
    first = next((rows for e in experiments if (rows := _with_pictures(e, count))), [])
    digests = {record["sha256"] for record, _ in first}
    columns = [(shown_name(e.label), picks) for e in experiments if (picks := picks_of(e, digests))]
    if len(columns) < 2:
        return None
    figure, axes = picture_axes(len(first), 1 + len(columns), above=0.72)
    for row, (record, arrays) in zip(axes, first):
        if "truth" in arrays:
            row[0].imshow(arrays["truth"])
            row[0].set_title(f"truth {record['image_id']}", fontsize=8)
        else:
            note(row[0], f"{record['file']}\nno truth")
        for axis, (name, picks) in zip(row[1:], columns):
            show_pick(axis, "\n".join(textwrap.wrap(name, LABEL_WIDTH)), picks.get(record["sha256"]))
    return figure


def _with_pictures(experiment: Experiment, count: int) -> list[tuple[Record, Arrays]]:
    """The first `count` images of each run of an experiment, of those that have pictures."""
    return [pair for run in experiment.runs for pair in run.records(count, wanted=WANTED) if "images" in pair[1]]


def picks_of(experiment: Experiment, digests: Collection[str]) -> dict[str, tuple[Record, Arrays]]:
    """{sha256: (record, arrays)} of those of an experiment's images with pictures whose files have these digests."""
    pairs = [pair for run in experiment.runs for pair in run.records(wanted=("images",), digests=digests)]
    return {record["sha256"]: (record, arrays) for record, arrays in pairs if arrays}


def show_pick(axis: Axes, name: str, solved: tuple[Record, Arrays] | None) -> None:
    """The picked particle under the experiment's name, with its number, label and PSNR; a note where there is none."""
    picked = solved and solved[0]["selection"]["picked"]
    if solved is None or picked is None:
        note(axis, f"{name}\n{'not run' if solved is None else 'no pick'}")
        return
    record, arrays = solved
    picture = arrays["images"][record["survivors"].index(record["particles"][picked])]
    axis.imshow(np.rot90(picture, 2) if is_turned(record, picked) else picture)
    axis.set_title(f"{name}\n{particle_title(record, picked)}", fontsize=8)
