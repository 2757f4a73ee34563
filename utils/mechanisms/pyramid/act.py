"""Coarse to fine: a level's particles begin at what the level below it found, scaled up.

The centre of a spectrum is the measurement of a small image (operators/phase_retrieval.py), with more signal in each number and
at a fraction of the cost. So the image is solved small first; the particles with the smallest losses are scaled up, encoded and
begin this level at noise pyramid.sigma, where the coarse structure stands and the detail is still open.

pyramid.consensus: all of them begin at their mean. Particles of one solution err each in its own way, so the mean is often
nearer to it than they are. Averaging the best solutions before they go on is guided phase retrieval (Chen, Miao, Wang and Lee,
Phys. Rev. B 76, 064113 (2007)).

pyramid.solutions: they begin half way from there to the mean of so many solutions of the classical solver
(utils/sampling/phase_solvers.py), each from near it. The prior draws less detail than the measurement holds, and a solution
without a prior follows its noise. Their errors differ, so half of each is often nearer to the object than both. Without a
consensus each particle goes half way to its share of them, those that are most alike to its own picture.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import torch

from operators.base import Operator
from utils.errors import InputError
from utils.evaluation.aligned import symmetry, turned_onto
from utils.mechanisms.plan import Course, Settings
from utils.mechanisms.pyramid.plan import PLAN
from utils.mechanisms.pyramid.plan import Pyramid as Section
from utils.priors.base import LatentPrior
from utils.sampling.handicap import owed
from utils.sampling.mechanism import Entrance, Mechanism, OnStep, Report, Sampler
from utils.sampling.outcome import SampleResult
from utils.sampling.particles import Particles
from utils.sampling.phase_solvers import Solver, averaged, bank_of
from utils.sampling.pictures import enlarged
from utils.sampling.profiler import Profiler


class LocalSolver(NamedTuple):
    """The classical solver as it goes on from near a picture: utils.sampling.phase_solvers.BankSettings."""

    restarts: int
    solver: Solver = "raar"
    beta: float = 0.9
    iterations: int = 50


class Pyramid(Mechanism):
    """Brings in what the level below found.

    below: utils.algorithms.contract.Algorithm of that level; step, sigma: where this one begins; field: pixels of the object
    """

    name = "pyramid"
    needs_all = True

    def __init__(self, below: Any, settings: Section, step: int, sigma: float, field: int) -> None:
        self.below, self.settings, self.sigma, self.field = below, settings, sigma, field
        self.size = below.prior.resolution
        self.prefix, self.name_of_below = f"level_{self.size}_", f"{self.size} of {field} pixels"
        self.entrance = Entrance(step, (*(self.prefix + name for name in below.phases.names), "scaling_up"))

    def waits(self, particles: Particles) -> torch.Tensor:
        return torch.ones(len(particles), dtype=torch.bool)

    def enter(self, particles: Particles, sampler: Sampler, profiler: Profiler, on_step: OnStep) -> tuple[Particles, Report]:
        below, inner = self.below, Profiler(particles.z.device)
        z = torch.empty(len(particles), *below.prior.latent_shape, dtype=below.prior.dtype, device=particles.z.device)
        y = sampler.operator.centre(particles.y, sampler.prior.resolution, self.size)
        start = Particles(z, y, particles.image, particles.index)
        result = below.sample(start, inner, lambda info: on_step(info._replace(level=info.level or self.name_of_below)))
        profiler.adopt(self.prefix, inner)
        rows, pictures, report = self.chosen(result)
        kept = particles.select(self.rows_of(particles, result.particles.select(rows)))
        with profiler.apart("scaling_up", len(kept), partial(sampler.probe_peak_mb, kept)):
            x = enlarged(pictures, sampler.prior.resolution)
            if self.settings.solutions:
                x = self.settled(x, kept, sampler)
            z = sampler.prior.encode(x.to(sampler.prior.dtype))
            return kept.at(z + self.sigma * sampler.noise.draw(kept, "initial")), report

    def chosen(self, result: SampleResult) -> tuple[torch.Tensor, torch.Tensor, Report]:
        """Positions of the particles that go on, those of an image together; the picture each goes on from; what was found."""
        operator, particles = self.below.operator, result.particles
        compared = result.loss
        if (more := owed(operator, result.image, particles.y, particles.same_image(compared.device))) is not None:
            compared = compared + more
        compared = compared.double().cpu().nan_to_num(torch.inf)
        ratio = (result.loss / operator.noise_floor(particles.y)).double().cpu()
        rows, pictures, report = [], [], {}
        for image, of_image in particles.by_image().items():
            order = of_image[compared[of_image].argsort(stable=True)][: self.settings.keep]
            rows.append(order.sort().values)
            x = result.image[rows[-1].to(result.image.device)]
            best = int((rows[-1] == order[0]).nonzero())
            pictures.append(consensus(x, best, symmetry(operator)) if self.settings.consensus else x)
            report[image] = {
                "resolution": self.size,
                "loss": {int(i): float(r) for i, r in zip(particles.index[of_image], ratio[of_image])},
                "kept": particles.index[order].tolist(),
                "agreement": agreement(result.image[order.to(result.image.device)], symmetry(operator)),
                "blocks": {m.name: result.of_image(m.name, image) for m in self.below.mechanisms},
            }
        return torch.cat(rows), torch.cat(pictures), report

    def settled(self, x: torch.Tensor, kept: Particles, sampler: Sampler) -> torch.Tensor:
        """Pictures x (P, 3, H, W), half way to the mean of classical solutions from near those of their image."""
        operator, solver, settled = sampler.operator, LocalSolver(self.settings.solutions), x.clone()
        for image, rows in kept.by_image().items():
            y, of_image = kept.y[rows[:1]], x[rows.to(x.device)]
            seen = (operator.visible(of_image)[:, : y.shape[1]] + 1) / 2  # (K, C, H, W) in [0, 1]
            bank, _ = bank_of(y, image, x.shape[-1], operator, sampler.noise, solver, around=seen)
            bank.advance(solver.iterations)
            bank.finish()
            solutions = bank.ranked()[0]
            count = len(solutions) if self.settings.consensus else -(-len(solutions) // len(seen))
            mean = averaged(seen.to(solutions), solutions, count, bank.support.symmetric)
            settled[rows.to(x.device)] = of_image + (mean.to(seen) - seen)  # of pictures in [-1, 1], half of the way
        return settled.clamp(-1, 1)

    @staticmethod
    def rows_of(particles: Particles, chosen: Particles) -> torch.Tensor:
        """Positions among `particles` of those of the same image and number."""
        at = {key: row for row, key in enumerate(zip(particles.image.tolist(), particles.index.tolist()))}
        return torch.tensor([at[key] for key in zip(chosen.image.tolist(), chosen.index.tolist())])

    def block(self, reports: list[dict[str, Any]], indices: range) -> dict[str, Any] | None:
        """What each level below found, coarse to fine; None before there is anything."""
        if not reports:
            return None
        report = reports[0]
        blocks = {m.name: m.block(report["blocks"][m.name], indices) for m in self.below.mechanisms}
        coarser = blocks.pop(self.name, None)
        losses = [report["loss"].get(i, math.nan) for i in indices]
        level = {
            **report,
            "loss": [loss if math.isfinite(loss) else None for loss in losses],
            "blocks": {name: block for name, block in blocks.items() if block is not None},
        }
        return {"field": self.field, "levels": [*(coarser["levels"] if coarser else ()), level]}


def consensus(x: torch.Tensor, best: int, turns: str | None) -> torch.Tensor:
    """Mean of one image's pictures x (K, 3, H, W), each turned onto number `best`; handed back in the orientation of each.

    turns: of utils.evaluation.aligned.symmetry. Channels are turned each on its own where the measurement does not see it, and
    the mean only as a whole, so that a particle whose channels are turned against each other is put right. One that has
    diverged takes no part, and begins at the mean.
    """
    finite = x.isfinite().flatten(1).all(1).cpu().nonzero().flatten()  # on the CPU: XLA compiles for sizes that it knows
    if not len(finite):
        return x
    mean = turned_onto(x[finite.to(x.device)], x[best], turns).mean(0, keepdim=True)
    if turns is None:
        return mean.expand_as(x)
    return turned_onto(mean.expand_as(x), x, "image")


def agreement(x: torch.Tensor, turns: str | None) -> float | None:
    """Largest correlation of the first picture of x (K, 3, H, W) with another one, also turned as a whole where `turns`.

    turns: of utils.evaluation.aligned.symmetry. None where the first has diverged, or all others have.
    """
    flat = x - x.mean((-3, -2, -1), keepdim=True)
    first, others = flat[0].flatten(), torch.cat([flat[1:], flat[1:].flip(-2, -1)] if turns else [flat[1:]]).flatten(1)
    correlations = others @ first / (others.norm(dim=1) * first.norm()).clamp(min=1e-12)
    return max((value for value in correlations.tolist() if math.isfinite(value)), default=None)


def build(s: Settings, course: Course, prior: LatentPrior, operator: Operator) -> Pyramid:
    """Of a level after the first."""
    if not hasattr(operator, "centre"):
        raise InputError(
            f"{PLAN.switch(s)}: {type(operator).__name__} cannot measure a coarser image (coarse, centre); write []"
        )
    if s.pyramid.solutions and not operator.spectrum:
        raise InputError(
            f"pyramid.solutions={s.pyramid.solutions}: {type(operator).__name__} measures no spectrum (Operator.spectrum), "
            "and the classical solver needs one; write 0"
        )
    step = PLAN.step(s)
    return Pyramid(course.below, s.pyramid, step, s.sampler.annealing_sigmas[step], s.data.resolution)
