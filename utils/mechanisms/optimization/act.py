"""Hard data consistency in latent space: a short optimisation of every particle towards its measurement.

Source: Song et al., ReSample, arXiv 2307.08123 (latent optimisation). Ours: loss, step, stop and best iterate per
particle, the discrepancy principle instead of a tolerance below the noise, no weight decay. A particle's result does
not depend on which others are optimised with it.

What moves is the latent itself. A mechanism of one's own that moves something else inherits HardDataConsistency and
overrides `variables`, `latent` and `descended`; docs/extending.md names one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from operators.base import Operator, column
from utils import device as devices
from utils.mechanisms.optimization.plan import PLAN, Optimization
from utils.mechanisms.plan import Course, Settings
from utils.priors.base import LatentPrior
from utils.sampling.mechanism import Mechanism, Report, Sampler
from utils.sampling.particles import Particles
from utils.sampling.phases import Opening
from utils.sampling.scalars import StepScalars
from utils.sampling.schedule import StepClock

BETAS = (0.9, 0.999)


@dataclass
class Optimised(Particles):
    """Particles with the state of their optimiser (Adam), sliced together."""

    start: torch.Tensor = None  # (P, C, h, w) where the call began
    x: torch.Tensor = None  # (P, ...) what is optimised: HardDataConsistency.variables
    best: torch.Tensor = None  # (P, C, h, w) iterate with the lowest loss so far
    best_loss: torch.Tensor = None  # (P,)
    momentum: torch.Tensor = None  # (P, ...) of x
    variance: torch.Tensor = None  # (P, ...) of x
    limit: torch.Tensor = None  # (P,) loss at which it stops
    slot: torch.Tensor = None  # (P,) position in the batch of the call


class HardDataConsistency(Mechanism):
    """Acts after the chain of every `settings.every`-th annealing step from `first` on, and of the last one.

    settings: max_iterations; lr (Adam); stop_factor: a particle stops when its loss is at most stop_factor times the
    operator's noise floor (a mean squared residual of sigma^2); max_move: it stops before its latent has moved by more
    than this, as root mean square.
    """

    name = "optimization"
    needs_grad = True

    def __init__(self, settings: Optimization, first: int, clock: StepClock) -> None:
        self.settings, self.first, self.clock = settings, first, clock
        self.opening = Opening(first, f"pre_{PLAN.PHASE}", PLAN.PHASE)

    def variables(self, start: torch.Tensor) -> torch.Tensor:
        """What is optimised, (P, ...), of particles whose call begins at the latents `start` (P, C, h, w), at its beginning."""
        return start

    def latent(self, x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """The latents (P, C, h, w) of the variables x."""
        return x

    def descended(self, active: Optimised, gradient: torch.Tensor, iteration: int) -> torch.Tensor:
        """The variables after one step down the loss, from `active.x`; gradient (P, C, h, w): of the loss in the latent.

        One step of Adam, bias-corrected and without weight decay, which updates the moments of `active`; another chain rule
        hands it a gradient of its own.
        """
        active.momentum = torch.lerp(gradient, active.momentum, BETAS[0])
        active.variance = torch.lerp(gradient.square(), active.variance, BETAS[1])
        # as data on the device: numbers that change would be constants of a new graph each time
        corrections = torch.tensor([1 - beta ** (iteration + 1) for beta in BETAS], dtype=torch.float64)
        corrections = corrections.to(gradient.dtype).to(gradient.device)
        momentum, variance = active.momentum / corrections[0], active.variance / corrections[1]
        return active.x - self.settings.lr * momentum / (variance.sqrt() + 1e-8)

    def acts(self, step: int) -> bool:
        return self.do_optimization(step)

    def do_optimization(self, step: int) -> bool:
        """Whether latents are optimised after the chain of this annealing step."""
        if step < self.first:
            return False
        return (step - self.first) % self.settings.every == 0 or step == self.clock.annealing_steps - 1

    def after_chain(self, particles: Particles, s: StepScalars, sampler: Sampler) -> tuple[Particles, Report]:
        started = devices.clock(particles.z.device)
        operator = sampler.operator
        z, outcome = self(particles, sampler.data_gradient, operator.noise_floor(particles.y))
        seconds = devices.clock(z.device) - started
        images = dict.fromkeys(particles.image.tolist())
        report: Report = {image: {"particles": [], "time_s": seconds / len(images)} for image in images}
        for image, *one in zip(
            particles.image.tolist(), particles.index.tolist(), outcome["iterations"], outcome["stopped_by"]
        ):
            report[image]["particles"].append(one)
        return particles.at(z), report

    def block(self, reports: list[dict], indices: range) -> dict:
        """Calls, iterations and stop reasons of each particle, and the seconds of the image's share of the calls."""
        block: dict = {
            "calls": [0] * len(indices),
            "iterations": [0] * len(indices),
            "calls_without_iteration": [0] * len(indices),
            "stopped_by": [[] for _ in indices],
            "time_s": 0.0,
        }
        for report in reports:
            for index, iterations, stop in report["particles"]:
                slot = indices.index(index)
                block["calls"][slot] += 1
                block["iterations"][slot] += iterations
                block["calls_without_iteration"][slot] += iterations == 0
                block["stopped_by"][slot].append(stop)
            block["time_s"] += report["time_s"]
        return block

    def __call__(
        self,
        particles: Particles,
        data_gradient: Callable[[Particles], tuple[torch.Tensor, ...]],
        floor: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[str, list]]:
        """Optimise `particles.z`; data_gradient(particles) -> (gradient, loss, image); floor (P,): expected loss of the truth.

        Returns (z, report): z (P, C, h, w), the best iterate of each particle; report: iterations (P ints) and
        stopped_by (P strings).
        """
        s, count = self.settings, len(particles)
        device = particles.z.device
        x = self.variables(particles.z)
        active = Optimised(
            **vars(particles),
            start=particles.z,
            x=x,
            best=particles.z,
            best_loss=torch.full((count,), torch.inf, dtype=particles.z.dtype, device=device),
            momentum=torch.zeros_like(x),
            variance=torch.zeros_like(x),
            limit=s.stop_factor * floor,
            slot=torch.arange(count),
        )
        result = particles.z.clone()
        iterations, stopped_by = [0] * count, [None] * count
        for iteration in range(s.max_iterations + 1):
            gradient, loss, _ = data_gradient(active)
            better = loss < active.best_loss
            active.best_loss = torch.where(better, loss, active.best_loss)
            active.best = torch.where(column(better, active.z), active.z, active.best)
            x = self.descended(active, gradient, iteration)
            proposal = self.latent(x, active.start)
            moved = (proposal - active.start).square().flatten(1).mean(1).sqrt()
            reasons = torch.stack([loss <= active.limit, moved > s.max_move, ~torch.isfinite(loss)])  # (3, P)
            devices.mark_step(device)
            last = iteration == s.max_iterations
            stops = [stop_reason(*flags, last=last) for flags in reasons.T.tolist()]  # the only wait
            for slot, stop in zip(active.slot.tolist(), stops):
                if stopped_by[slot] is None:
                    stopped_by[slot], iterations[slot] = stop, iteration
            result[active.slot.to(device)] = active.best
            going = torch.tensor([stopped_by[slot] is None for slot in active.slot.tolist()])
            if not going.any():
                break
            active.x = x
            if devices.batch_may_shrink(device):
                active.z = proposal
                active = active.select(torch.nonzero(going).flatten())
            else:  # one compiled graph for all iterations: a stopped particle stays in place
                active.z = torch.where(column(going.to(device), proposal), proposal, active.z)
        return result, {"iterations": iterations, "stopped_by": stopped_by}


def stop_reason(reached: bool, far: bool, broken: bool, last: bool) -> str | None:
    """Why a particle stops, the first reason that holds; None: it goes on."""
    reasons = {"discrepancy": reached, "max_iterations": last, "max_move": far, "not_finite": broken}
    return next((name for name, holds in reasons.items() if holds), None)


def build(s: Settings, course: Course, prior: LatentPrior, operator: Operator) -> HardDataConsistency:
    """Of a run."""
    opening = PLAN.opening(s, course.clock)
    assert opening is not None
    return HardDataConsistency(s.optimization, opening.step, course.clock)
