"""Start from a bank: particles that begin at classical reconstructions, at a low noise level, in place of noise at the highest.

For each image a classical solver (utils/sampling/phase_solvers.py), which knows no network, goes on from many starts. Of each
channel the solutions with the smallest residuals are kept, and pictures are put together from channels that agree. The k-th
best picture x_k starts particle k of the image at z = E(x_k) + sigma n. E is the encoder, sigma the annealing's first level at
or below start.sigma. From there on the annealing is the same for all.

What is moved by the solver are pixels, before the annealing; the particles themselves are only ever moved in latent space.
"""

from functools import partial
from typing import NamedTuple

import torch

from operators.base import Operator
from utils.errors import InputError
from utils.mechanisms.plan import Course, Settings
from utils.mechanisms.start.plan import PLAN
from utils.mechanisms.start.plan import Start as Section
from utils.noise import KeyedNoise
from utils.priors.base import LatentPrior
from utils.sampling.mechanism import Entrance, Mechanism, OnStep, Report, Sampler
from utils.sampling.particles import Particles
from utils.sampling.phase_solvers import TINY, bank_of, put_together
from utils.sampling.phases import Opening
from utils.sampling.profiler import Profiler
from utils.sampling.schedule import StepClock


class Pictures(NamedTuple):
    """What the bank of one image offers, best first."""

    x: torch.Tensor  # (K, C, H, W) in [0, 1], C is 1 or 3
    residual: torch.Tensor  # (K,) sum (|F x| - y)^2 of all channels over the noise floor
    turns: bool  # whether their turns by 180 degrees fit as well


def fill(y: torch.Tensor, image: int, side: int, settings: Section, operator: Operator, noise: KeyedNoise) -> Pictures:
    """The bank of one image; y (1, C, H', W'): its measurement."""
    bank, floors = bank_of(y, image, side, operator, noise, settings)
    bank.advance(settings.iterations)
    bank.finish()
    x, residual = bank.ranked()
    turns, floor = bank.support.symmetric, float(floors.mean())
    x, residual = put_together(x[: settings.keep], residual[: settings.keep], settings.bank, floor, turns)
    return Pictures(x, residual.sum(1) / floors.sum().clamp(min=TINY), turns)


class Start(Mechanism):
    """Brings in the first `settings.bank` particles of each image at annealing step `step`."""

    name = "start"

    def __init__(self, settings: Section, step: int, sigma: float, clock: StepClock, opening: Opening | None) -> None:
        self.settings, self.sigma, self.clock = settings, sigma, clock
        self.entrance, self.opening = Entrance(step, (PLAN.PHASE,)), opening

    def waits(self, particles: Particles) -> torch.Tensor:
        return particles.index < self.settings.bank

    def enter(self, particles: Particles, sampler: Sampler, profiler: Profiler, on_step: OnStep) -> tuple[Particles, Report]:
        with profiler.apart(PLAN.PHASE, len(particles), partial(sampler.probe_peak_mb, particles)):
            return self.brought(particles, sampler)

    def brought(self, particles: Particles, sampler: Sampler) -> tuple[Particles, Report]:
        """The particles at the noise level of the entrance, and of each image where they began."""
        side = sampler.prior.resolution
        starts, report = [], {}
        for image, rows in particles.by_image().items():
            pictures = fill(particles.y[rows[:1]], image, side, self.settings, sampler.operator, sampler.noise)
            rank = particles.index[rows]
            turned = (rank % 2 == 1) & (self.settings.turn and pictures.turns)
            x = pictures.x[rank.to(pictures.x.device)].expand(-1, 3, -1, -1)
            starts.append(torch.where(turned.to(x.device)[:, None, None, None], x.flip(-2, -1), x))
            report[image] = {
                "particles": rank.tolist(),
                "rank": rank.tolist(),
                "residual": pictures.residual[rank.to(x.device)].tolist(),
                "turned": turned.tolist(),
            }
        x = 2 * torch.cat(starts).to(particles.z.device, particles.z.dtype) - 1  # (P, 3, H, W)
        z = sampler.prior.encode(x)
        return particles.at(z + self.sigma * sampler.noise.draw(particles, "initial")), report

    def block(self, reports: list[dict], indices: range) -> dict | None:
        """Where each of the particles from the bank began; None where there are none."""
        if not reports:
            return None
        step = self.entrance.step
        together = {key: [value for report in reports for value in report[key]] for key in reports[0]}
        return {"step_index": step, "timestep": self.clock.timestep(step), **together}


def build(s: Settings, course: Course, prior: LatentPrior, operator: Operator) -> Start:
    """Of a run."""
    if not operator.spectrum:
        raise InputError(
            f"{PLAN.switch(s)}: {type(operator).__name__} measures no spectrum (Operator.spectrum), and the bank's solvers "
            "need one; choose phase_retrieval, or start.bank=0"
        )
    step = PLAN.step(s)
    return Start(s.start, step, s.sampler.annealing_sigmas[step], course.clock, PLAN.opening(s, course.clock))
