"""The three figures of tools/evidence/readings.py. What they show is sampled there; `found`, `alone`: its `Sampled`."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.evaluation.scores import rotated
from utils.figures.style import plt
from utils.mechanisms.recombination.plan import channel
from utils.metrics.pixels import to_pixels
from utils.running.build import Parts
from utils.sampling.outcome import SampleResult

NAMES, TINTS = ("red", "green", "blue"), ((1.0, 0.45, 0.45), (0.45, 1.0, 0.45), (0.5, 0.7, 1.0))
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:purple")  # of the particles at the start
FOUND = {"0": "upright", "180": "turned", "mixed": "mixed: failed", "failed": "failed"}
ROLES = {"repulsion": "explore", "recombination": "share", "pruning": "prune", "children": "expand", "optimization": "refine"}
BARS = (
    (5, "What the measurement says: its loss over the noise floor. All eight fit alike."),
    (2, "What the prior says: its denoising loss, less is likelier. Mixed orientations look wrong."),
)
FOOTER = (
    "bad: behind the best particle's by more than the noise explains.   p3 turned: that of particle 3, turned by 180 degrees.\n"
    "Mutation: fresh noise at each annealing step from the child to the end; a chain refines what it leaves."
)


class Sampled(Protocol):
    """tools.evidence.readings.Sampled, as far as it is drawn."""

    @property
    def parts(self) -> Parts: ...

    @property
    def result(self) -> SampleResult: ...

    @property
    def modes(self) -> dict[str, Any]: ...

    @property
    def exchanges(self) -> list[tuple[dict[str, Any], torch.Tensor, torch.Tensor]]: ...


def bare(axis: Axes, picture: np.ndarray, title: str, colour: str | None = None, **text: Any) -> None:
    """Shows a picture (H, W, 3) without ticks, framed in a colour."""
    axis.set(xticks=[], yticks=[])
    axis.set_axis_on()
    axis.spines[:].set(visible=colour is not None, color=colour, linewidth=3)
    axis.imshow(picture)
    axis.set_title(title, pad=3, **{"fontsize": 9.5, **text})


def symmetry(turns: Sequence[Sequence[int]], images: torch.Tensor, loss: torch.Tensor, score: torch.Tensor) -> Figure:
    """The eight images that one measurement allows, and what measurement and prior say of each.

    turns: the turned channels of each; images (8, 3, H, W): the four below are those above, turned; loss, score (8,).
    """
    figure = plt.figure(figsize=(9, 7.8), layout="constrained")
    grid = figure.add_gridspec(4, 4, height_ratios=(2, 2, 0.9, 0.9))
    for i, (channels, picture) in enumerate(zip(turns, to_pixels(images))):
        name = {0: "the whole image", 3: "the whole image turned"}.get(len(channels))
        name = name or f"{' and '.join(NAMES[c] for c in channels)} turned"
        bare(figure.add_subplot(grid[i // 4, i % 4]), picture, name, "black" if i % 4 == 0 else None, fontsize=11)
    figure.get_layout_engine().set(h_pad=0.06)
    for row, values, (digits, title) in zip((2, 3), (loss, score), BARS):
        axis = figure.add_subplot(grid[row, :])
        places = [i % 4 + (0.19 if i > 3 else -0.19) for i in range(len(turns))]
        for i, (x, value) in enumerate(zip(places, values.tolist())):
            axis.bar(x, value, 0.36, color="black" if i % 4 == 0 else "0.7")
            axis.annotate(f"{value:.{digits}f}", (x, value), ha="center", va="bottom", fontsize=10)
        axis.set(xlim=(-0.5, 3.5), ylim=(0, 1.3 * float(values.max())), yticks=[])
        axis.set_xticks(places, ["upper"] * 4 + ["lower"] * 4, fontsize=9)
        axis.tick_params(length=0)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.set_title(title, fontsize=11, loc="left")
    return figure


def tinted(image: torch.Tensor, c: int) -> np.ndarray:
    """One channel of an image (3, H, W) as a picture (H, W, 3) in its colour."""
    return to_pixels(image[c].expand(3, -1, -1)[None])[0] / 255 * TINTS[c]


def genetic(found: Sampled, alone: Sampled) -> Figure:
    """The first exchange, particle by particle: genes and their fitness, crossover, child, and what becomes of it."""
    event, before, after = found.exchanges[0]
    floor = found.parts.operator.noise_floor(found.result.particles.y, axis=2)[0].tolist()
    widths = [1, 0.3, *[1] * 3, 0.45, *[1] * 3, 0.3, 1, 0.45, 1, 0.1, 1]
    figure, axes = plt.subplots(len(before), len(widths), figsize=(10, 5.8), width_ratios=widths)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.83, bottom=0.08, wspace=0.08, hspace=0.42)
    for axis in axes.flat:
        axis.set_axis_off()
    pictures = [to_pixels(x) for x in (before, after, found.result.image, alone.result.image)]
    for row, (line, p) in enumerate(zip(axes, event["particles"])):
        number, colour = p["index"], COLOURS[p["index"]]
        titles = (f"particle {number}", "child" if p["accepted"] else "unchanged", ending(found, row), ending(alone, row))
        for column, picture, title in zip((0, 10, 12, 14), pictures, titles):
            bare(line[column], picture[row], title, colour)
        for c, (donor, turn, loss) in enumerate(zip(p["donors"], p["turned"], p["loss"])):
            taken = donor != number
            bare(line[2 + c], tinted(before[row], c), f"{loss / floor[c]:.3f}{' bad' if taken else ''}", colour)
            gene = tinted(rotated(before[donor]) if turn else before[donor], c)
            bare(line[6 + c], gene, channel(number, donor, turn), COLOURS[donor])
    steps = found.parts.clock.num_steps - 1 - event["step_index"]
    for first, last, reading, what in (
        (0, 0, "population", f"t = {event['timestep']:.0f}"),
        (2, 4, "genes and their fitness", "channels, loss / noise floor"),
        (6, 8, "selection and crossover", "own, or the best particle's (frame)"),
        (10, 10, "offspring", "prior's choice"),
        (12, 12, "in the end", f"{steps} steps later"),
        (14, 14, "without", "no exchange"),
    ):
        x = (axes[0, first].get_position().x0 + axes[0, last].get_position().x1) / 2
        figure.text(x, 0.985, reading, ha="center", va="top", fontsize=11, fontweight="bold")
        figure.text(x, 0.94, what, ha="center", va="top", fontsize=10)
    figure.text(0.01, 0.01, FOOTER, fontsize=10, va="bottom")
    return figure


def ending(found: Sampled, row: int) -> str:
    """Title of what became of the particle in row `row`."""
    return f"{FOUND[found.modes['label'][row]]}\n{found.modes['psnr_aligned'][row]:.1f} dB"


def planning(found: Sampled, lines: Mapping[int, Sequence[tuple[float, float, float]]]) -> Figure:
    """A population that is pruned and has children: what acts when, where the particles are, how they fit, the leaves.

    lines: {particle: [(t, upright, loss / floor)]}.
    """
    sampler, clock, particles = found.parts.sampler, found.parts.clock, found.result.particles
    width, opening = 1000 / clock.num_steps, sampler.phases.openings[0]
    figure = plt.figure(figsize=(10, 7.2), layout="constrained")
    grid = figure.add_gridspec(8, 2, width_ratios=(6, 1))
    plan = figure.add_subplot(grid[:2, 0])
    where, fit = (figure.add_subplot(grid[rows, 0], sharex=plan) for rows in (slice(2, 6), slice(6, 8)))
    for row, m in enumerate(sampler.mechanisms):
        for step in filter(m.acts, range(clock.num_steps)):
            t, strength = clock.timestep(step), m.strength(step) / (m.strength(0) or 1)
            # what acts after the chain is drawn in the middle of its step
            size, shade = (width, strength) if strength else (0.4 * width, 1.0)
            plan.barh(row, size, left=t - width / 2 - size / 2, height=0.75, color="black", alpha=shade)
    plan.set_yticks(range(len(sampler.mechanisms)), [f"{ROLES[m.name]}: {m.name}" for m in sampler.mechanisms], fontsize=11)
    plan.set_ylim(len(sampler.mechanisms) - 0.4, -0.6)
    for step, name in ((found.exchanges[0][0]["step_index"], "exchange"), (opening.step - 1, "pruning, children")):
        at = clock.timestep(step) - width / 2
        where.axvline(at, color="0.6", linestyle=":", zorder=0)
        where.annotate(name, (at, 0), ha="center", va="center", rotation=90, fontsize=11, backgroundcolor="white")
    parents = dict(zip(particles.index.tolist(), particles.parent.tolist()))
    for number, line in lines.items():
        root, child = parents.get(number, number), number in parents
        shift = 0.04 * (root - 1.5) + child * (0.09 if number % 2 else -0.09)  # so that none hides another
        style = {"color": COLOURS[root], "linestyle": "--" if child and number % 2 else "-", "linewidth": 2}
        t, x, loss = zip(*line)
        where.plot(t, [x[0] + 0.04 * (root - 1.5), *(v + shift for v in x[1:])], **style)
        fit.plot(t, loss, **style)
        if not child and number not in parents.values():
            where.plot(t[-1], x[-1] + shift, "x", color="black", markersize=11, markeredgewidth=3, zorder=5)
    labels = {n: line[0][1] for n, line in lines.items() if n not in parents}
    free = -9.0
    for number in sorted(labels, key=labels.get):
        free = max(labels[number], free + 0.22)  # a label's height
        where.annotate(f"particle {number}", (1010, free), ha="right", va="center", color=COLOURS[number], fontsize=11)
    where.set(yticks=[-1, 0, 1], ylim=(-1.6, 1.6))
    where.set_yticklabels(["turned", "neither", "upright"], fontsize=11)
    fit.set(yscale="log", xlim=(1130, -10), yticks=[1, 2, 5])
    fit.set_yticklabels(["1", "2", "5"], fontsize=11)
    fit.minorticks_off()
    fit.tick_params(labelsize=11)
    fit.set_xlabel("timestep t of the annealing", fontsize=11)
    for axis, title in (
        (plan, "What acts when (grey: how strongly)"),
        (where, "Where the particles are, seen with the truth (×: pruned)"),
        (fit, "How well they fit: measurement loss / noise floor"),
    ):
        axis.set_title(title, fontsize=11, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelbottom=axis is fit)
    leaves = particles.index.tolist()
    for row, i in enumerate(sorted(range(len(leaves)), key=lambda i: -lines[leaves[i]][-1][1])):
        parent = int(particles.parent[i])
        title = f"from {parent}: {found.modes['psnr_aligned'][i]:.1f} dB"
        axis = figure.add_subplot(grid[2 * row : 2 * row + 2, 1])
        bare(axis, to_pixels(found.result.image[i : i + 1])[0], title, COLOURS[parent], fontsize=10)
    return figure
