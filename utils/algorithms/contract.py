"""The contract of an algorithm: what turns noise and a measurement into samples, chosen by `sampler._target_` of the config.

The program knows no algorithm by name. It builds the class that the config names, gives it particles without latents, and
takes a SampleResult; records, resuming, shards, tables and pictures are the same for all. The default, LatentDAPS, is
sampler.py. docs/extending.md shows one of one's own.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Self

import torch

from operators.base import Operator
from utils import device as devices
from utils.noise import KeyedNoise
from utils.priors.base import LatentPrior
from utils.priors.wrappers import CountingPrior, SplitPrior
from utils.sampling.handicap import owed
from utils.sampling.mechanism import Mechanism, OnStep, Report
from utils.sampling.outcome import SampleResult, StepInfo
from utils.sampling.particles import Particles
from utils.sampling.passes import Passes
from utils.sampling.phases import Phases
from utils.sampling.profiler import Profiler
from utils.sampling.schedule import StepClock
from utils.sampling.vocabulary import Chain


def ignore(info: StepInfo) -> None:
    """For callers who do not watch."""


class Algorithm:
    """Holds settings only; all state is in the particles. Override `sample`, and what else differs.

    prior:      counts what goes through its networks, in passes of bounded size; use this one for everything
    operator, noise: of the run; every random number comes from `noise`, so that single runs equal a batch
    num_steps:  steps of a run, of which each is told to `on_step`
    takes_mechanisms: whether particle mechanisms act within it
    decodes:    whether its pictures come out of the prior's decoder, and have its errors
    chain:      of an inner Langevin or HMC chain, whose rate is checked at the start; None: there is none
    """

    num_steps: int
    takes_mechanisms = False
    decodes = True
    mechanisms: tuple[Mechanism, ...] = ()
    chain: Chain | None = None

    def __init__(self, prior: LatentPrior, operator: Operator, noise: KeyedNoise, passes: Passes | None = None) -> None:
        self.passes = passes or Passes()
        self.counted = CountingPrior(prior)
        self.prior: LatentPrior = SplitPrior(self.counted, self.passes)  # type: ignore[assignment]  # stands for what it wraps
        self.operator, self.noise = operator, noise

    @classmethod
    def of_settings(
        cls,
        settings: Any,
        arguments: Mapping[str, Any],
        mechanisms: Sequence[Mechanism],
        prior: LatentPrior,
        operator: Operator,
        noise: KeyedNoise,
        passes: Passes,
    ) -> Self:
        """The algorithm of a run. settings: utils.config.settings.Settings; arguments: the block `sampler`, less `_target_`."""
        return cls(**arguments, prior=prior, operator=operator, noise=noise, passes=passes)

    @property
    def clock(self) -> StepClock:
        """The timestep, 1000 to 0, that each step stands for."""
        return StepClock([0.0] * (self.num_steps + 1))

    @property
    def phases(self) -> Phases:
        """Those of a run, by which seconds, network calls and memory are told apart; here one."""
        return Phases()

    def sample(self, particles: Particles, profiler: Profiler | None = None, on_step: OnStep = ignore) -> SampleResult:
        """The whole run; `particles` gives y, image and index. `on_step` gets a StepInfo after each step.

        Within `self.profiled(profiler)` and, for each step, `self.step(profiler, step, particles)`: what a network computes
        there is counted in the step's phase.
        """
        raise NotImplementedError

    def profiled(self, profiler: Profiler) -> Any:
        """The context of a whole run."""
        return profiler.run(self.counted.calls, self.phases.names)

    def step(self, profiler: Profiler, step: int, particles: Particles) -> Any:
        """The context of one step."""
        return profiler.step(self.phases.of(step), len(particles), partial(self.probe_peak_mb, particles))

    def finished(
        self, particles: Particles, profiler: Profiler, reports: Mapping[str, list[Report]] | None = None
    ) -> SampleResult:
        """What the final latents are handed out as: decoded, with their losses."""
        image = self.prior.decode(particles.z)
        loss = self.operator.loss(image, particles.y)
        return SampleResult(particles, image, loss, timing_info=profiler.step_s, reports=dict(reports or {}))

    def data_gradient(
        self, particles: Particles, bending: Sequence[Mechanism] = (), strengths: Mapping[str, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradient of ||A(D(z)) - y||^2 in z, (P, C, h, w); the loss (P,); the decoded image. One decoder pass.

        Mechanisms bend the gradient where they are measured, on the image or on the latent, at their strengths {name: 0-d}.
        """
        n, strengths = particles.per_image, strengths or {}
        on_image = [m for m in bending if m.bends == "image"]

        def one_pass(z: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                image = self.prior.decode(z)
                seen = image.detach().requires_grad_()
                loss = self.operator.loss(seen, y)
                (gradient,) = torch.autograd.grad(loss.sum(), seen)
                for m in on_image:
                    gradient = m.bend(gradient, seen.detach(), n, strengths[m.name])
                (gradient,) = torch.autograd.grad(image, z, gradient)
            return gradient, loss.detach(), image.detach()

        gradient, loss, image = self.passes(one_pass, particles.z, particles.y, together=n if on_image else 1)
        for m in bending:
            if m.bends == "latent":
                gradient = m.bend(gradient, particles.z, n, strengths[m.name])
        return gradient, loss, image

    def exact_loss(self, particles: Particles) -> torch.Tensor:
        """Loss of the current latents as particles of an image are compared by it, (P,)."""
        decoded = self.prior.decode(particles.z)
        loss = self.operator.loss(decoded, particles.y)
        if (more := owed(self.operator, decoded, particles.y, particles.same_image(decoded.device))) is not None:
            loss = loss + more
        devices.mark_step(loss.device)
        return loss

    def probe_peak_mb(self, particles: Particles) -> float | None:
        """Peak memory of the heaviest pass where the device keeps no peak of its own; None elsewhere."""
        resident = self.prior.resident_bytes() + sum(t.nbytes for t in (particles.z, particles.y))
        return devices.probe_peak_mb(particles.z.device, lambda: self.heaviest_pass(particles), resident)

    def heaviest_pass(self, particles: Particles) -> None:
        """The computation that needs most memory, once: here the data's gradient through the decoder."""
        self.data_gradient(particles)
