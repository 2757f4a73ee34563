"""Three figures that explain how the search can be read: its symmetries, as a genetic algorithm, as planning in a tree.

    python tools/make_demo_data.py --split val --count 64 --out dataset/val
    python tools/evidence/readings.py [OUT]        # default docs/pictures; two minutes on one core

reading_symmetry.jpg, reading_genetic.jpg and reading_planning.jpg show one validation scene at the hard setting: the first
from 16 on in which a child mixes the channels of two particles and the same particle fails without the exchange. They
illustrate, nothing is counted. docs/research/readings.md explains them.
"""

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import torch

from operators.base import Operator
from tools.evidence.reading_figures import genetic, planning, symmetry
from utils.command_line import Parser, run, say
from utils.config.check import check
from utils.config.compose import compose
from utils.data import select_images
from utils.evaluation.scores import mode_labels, rotated
from utils.figures.style import save_figure
from utils.paths import PROJECT
from utils.population.prior_score import PriorScore
from utils.running.build import Parts, build, load_batch
from utils.sampling.mechanism import Mechanism, Report, Sampler
from utils.sampling.outcome import SampleResult, StepInfo
from utils.sampling.particles import Particles
from utils.sampling.profiler import Profiler
from utils.sampling.scalars import StepScalars

FIRST = 16  # of the validation images that the other tables use
COMMON = ["gpu=-1", "sampler=fast", "task_group=demo_hard", "data=demo-scenes", "model=demo-scenes"]
COMMON += ["data.root=dataset/val/demo-scenes", "repulsion_scale=0.15", "repulsion.end_step=500"]
EXCHANGE = ["recombination_step=300"]
TREE = [*EXCHANGE, "pruning_step=200", "pruning_keep=2", "children=2", "optimization_step=200"]
SIGMAS = (0.5, 1.0, 2.0)  # as recombination.sigmas
# columns are arrangements of the channels, the lower row is the upper one turned as a whole
TURNS = [(), (0,), (1,), (2,), (0, 1, 2), (1, 2), (0, 2), (0, 1)]


class Sampled(NamedTuple):
    """One image sampled, and what was seen on the way."""

    image: int
    truth: torch.Tensor  # (3, H, W)
    parts: Parts
    result: SampleResult
    modes: dict[str, Any]  # of utils.evaluation.scores.mode_labels, in the order of result.particles
    seen: dict[int, list[tuple[int, torch.Tensor, float]]]  # {particle: [(step, (3, H, W) decoded, loss / floor)]}
    # (event of the record, pictures before and after, (P, 3, H, W))
    exchanges: list[tuple[dict[str, Any], torch.Tensor, torch.Tensor]]


def turned_versions(x: torch.Tensor) -> torch.Tensor:
    """(8, 3, H, W): the image (3, H, W) with the channels of each of TURNS rotated by 180 degrees."""
    turned = torch.tensor([[c in turns for c in range(3)] for turns in TURNS])
    return torch.where(turned[..., None, None], rotated(x), x)


def losses_of_versions(x: torch.Tensor, y: torch.Tensor, operator: Operator) -> torch.Tensor:
    """(8,) measurement loss of the turned versions of x (3, H, W) over the noise floor; y (1, ...)."""
    return operator.loss(turned_versions(x), y) / operator.noise_floor(y)


def mixed_children(event: dict) -> list[int]:
    """Numbers of the particles that an exchange gave channels of two or more particles."""
    return [p["index"] for p in event["particles"] if len(set(p["donors"])) > 1]


def upright(image: torch.Tensor, truth: torch.Tensor) -> float:
    """1 for the truth, -1 for the truth turned: how far the odd part of an image (3, H, W) under 180 degrees goes along it."""
    odd, along = image - rotated(image), truth - rotated(truth)
    return float((odd * along).sum() / along.square().sum())


def sample(number: int, *overrides: str) -> Sampled:
    """One image of the set under COMMON and the overrides."""
    settings = check(compose([*COMMON, f"data.start_id={number}", f"data.end_id={number + 1}", *overrides]))
    parts, looked, seen = build(settings), [], {}
    particles, truth = load_batch(parts, settings, select_images(settings))
    floor = parts.operator.noise_floor(particles.y[:1])
    exchanging = [m for m in parts.sampler.mechanisms if m.name == "recombination"]
    for mechanism in exchanging:
        watch(mechanism, looked)

    def look(info: StepInfo) -> None:
        for index, image, loss in zip(info.particles.index.tolist(), info.image, (info.loss / floor).tolist()):
            seen.setdefault(index, []).append((info.step, image, loss))

    result = parts.sampler.sample(particles, Profiler(parts.device), on_step=look)
    modes = mode_labels(result.image, truth[0], settings.success.threshold_db, settings.success.margin_db)
    events = [m.block(result.of_image(m.name, number), range(settings.num_samples))["events"] for m in exchanging]
    looks = [(event, *pictures) for event, pictures in zip(itertools.chain(*events), looked, strict=True)]
    return Sampled(number, truth[0], parts, result, modes, seen, looks)


def watch(mechanism: Mechanism, looked: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Adds what the particles look like before and after each of a mechanism's events to the list `looked`."""
    act = mechanism.after_chain

    def after_chain(particles: Particles, s: StepScalars, sampler: Sampler) -> tuple[Particles, Report]:
        new, report = act(particles, s, sampler)
        looked.append((sampler.prior.decode(particles.z), sampler.prior.decode(new.z)))
        return new, report

    mechanism.after_chain = after_chain


def first_crossing() -> tuple[Sampled, Sampled]:
    """The image of the figures with the exchange and without it."""
    for number in itertools.count(FIRST):
        exchanged = sample(number, *EXCHANGE)
        if children := mixed_children(exchanged.exchanges[0][0]):
            alone = sample(number)
            if any(
                alone.modes["label"][i] not in ("0", "180") and exchanged.modes["label"][i] in ("0", "180") for i in children
            ):
                return exchanged, alone


def scores_of_versions(found: Sampled) -> torch.Tensor:
    """(8,) the prior's denoising loss of the turned versions of a truth, under one noise: the smaller, the likelier."""
    prior, y = found.parts.prior, found.result.particles.y[:1]
    particles = Particles.start(y, [found.image], len(TURNS), 0, prior.latent_shape, prior.dtype)
    return PriorScore(prior, found.parts.noise, SIGMAS)(turned_versions(found.truth), particles)


def descent(found: Sampled) -> dict[int, list[tuple[float, float, float]]]:
    """{particle: [(t, upright, loss / floor)]} of all that were there; a child's line begins where its parent's ends."""
    clock, result, particles = found.parts.clock, found.result, found.result.particles
    ends = result.loss / found.parts.operator.noise_floor(particles.y)
    lines = {n: [(clock.timestep(step), upright(x, found.truth), loss) for step, x, loss in s] for n, s in found.seen.items()}
    for number, parent, x, loss in zip(particles.index.tolist(), particles.parent.tolist(), result.image, ends.tolist()):
        lines[number].append((0.0, upright(x, found.truth), loss))
        if parent >= 0:
            lines[number].insert(0, lines[parent][-1])
    return lines


def main() -> None:
    parser = Parser(prog="readings.py", description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=PROJECT / "docs/pictures", help="folder of the three pictures")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    exchanged, alone = first_crossing()
    grown = sample(exchanged.image, *TREE)
    images, y = turned_versions(exchanged.truth), exchanged.result.particles.y[:1]
    loss = losses_of_versions(exchanged.truth, y, exchanged.parts.operator)
    figures = {
        "symmetry": symmetry(TURNS, images, loss, scores_of_versions(exchanged)),
        "genetic": genetic(exchanged, alone),
        "planning": planning(grown, descent(grown)),
    }
    for name, figure in figures.items():
        save_figure(figure, out / f"reading_{name}.jpg", dpi=100, pil_kwargs={"quality": 88})
        say(out / f"reading_{name}.jpg")


if __name__ == "__main__":
    run(main)
