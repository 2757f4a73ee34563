"""LatentDAPS: posterior sampling with a latent diffusion prior by decoupled noise annealing.

With noise levels sigma_0 > ... > sigma_N = 0, denoiser D_s, decoder D and measurement y = A(x) + noise, for P particles
(algorithm 2 of Zhang et al., arXiv 2407.01521, and the DAPS code, sampler.py):

    z ~ N(0, sigma_0^2)
    for i = 0 .. N - 1:
        z0hat <- solve dz/ds = (z - D_s(z, s)) / s from sigma_i to almost 0    probability flow
        z0y   <- chain from z0hat towards exp(-|A(D(z)) - y|^2 / tau^2) N(z; z0hat, sigma_i^2)
        z     <- z0y + sigma_(i+1) N(0, 1)
    return D(z)

Ours: mechanisms act on z0hat, within the chain and on z0y (utils/sampling/mechanism.py). One of them may bring in particles at
a later step, and one may add a second stage, with a chain of its own, after the last step. The last z may be denoised at a
level of its own, which takes out what a chain of few iterations leaves in it. Without any of these it is DAPS.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Self

import torch

from operators.base import Operator
from utils import device as devices
from utils.algorithms.contract import Algorithm, OnStep, ignore
from utils.errors import InputError
from utils.noise import KeyedNoise
from utils.priors.base import LatentPrior
from utils.sampling import mcmc
from utils.sampling.mechanism import Mechanism, Report
from utils.sampling.outcome import SampleResult, StepInfo
from utils.sampling.particles import Particles
from utils.sampling.passes import Passes
from utils.sampling.phases import Phases
from utils.sampling.profiler import Profiler
from utils.sampling.scalars import StepScalars
from utils.sampling.schedule import StepClock, annealing_sigmas, ode_sigmas
from utils.sampling.vocabulary import Annealing, Chain, Diffusion, Stage, stage_of


class LatentDAPS(Algorithm):
    """The annealing loop. It holds settings only; all state is in the particles.

    annealing:  num_steps, sigma_max, sigma_min of the annealing grid
    diffusion:  num_steps, sigma_min of the probability-flow ODE; final_sigma of a last denoising
    chain:      mc_algo, num_steps, lr, lr_min_ratio, tau, momentum, keep_velocity, likelihood_factor, gradient_clip
    mechanisms: in the order in which they act
    passes:     how many particles go through a network at once
    """

    takes_mechanisms = True
    chain: Chain

    def __init__(
        self,
        prior: LatentPrior,
        operator: Operator,
        noise: KeyedNoise,
        annealing: Annealing,
        diffusion: Diffusion,
        chain: Chain,
        mechanisms: Sequence[Mechanism] = (),
        passes: Passes | None = None,
    ) -> None:
        super().__init__(prior, operator, noise, passes)
        self.diffusion, self.chain = diffusion, chain
        grid = annealing_sigmas(annealing.num_steps, annealing.sigma_max, annealing.sigma_min)
        further = [mechanism.stage for mechanism in mechanisms if mechanism.stage is not None]
        self.stages = (Stage(grid, chain), *further)
        self.sigmas = [sigma for stage in self.stages for sigma in stage.sigmas[:-1]] + [0.0]
        self.num_steps = len(self.sigmas) - 1
        self.final_sigma: torch.Tensor | None = None
        if diffusion.final_sigma:
            self.final_sigma = torch.tensor(diffusion.final_sigma, dtype=prior.dtype, device=prior.device)
        self.mechanisms = tuple(mechanisms)
        entering = [(m, m.entrance) for m in mechanisms if m.entrance is not None]
        if len(entering) > 1:
            names = " and ".join(mechanism.name for mechanism, _ in entering[:2])
            raise InputError(f"{names}: both bring in particles (Mechanism.entrance), and one may; leave one of the two out")
        self.entering = entering[0] if entering else None

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
        s = settings.sampler
        annealing, diffusion = s.annealing_scheduler_config, s.diffusion_scheduler_config
        return cls(prior, operator, noise, annealing, diffusion, settings.chain, mechanisms, passes)

    @property
    def clock(self) -> StepClock:
        annealing_steps = len(self.stages[0].sigmas) - 1
        return StepClock(self.sigmas, further=self.num_steps - annealing_steps)

    @property
    def phases(self) -> Phases:
        """Those of a run, as the mechanisms open them."""
        openings = [mechanism.opening for mechanism in self.mechanisms if mechanism.opening is not None]
        apart = self.entering[1].phases if self.entering else ()
        return Phases(sorted(openings, key=lambda opening: opening.step), apart)

    def sample(self, particles: Particles, profiler: Profiler | None = None, on_step: OnStep = ignore) -> SampleResult:
        """Run all annealing steps; `particles` gives y, image and index. `on_step` gets a StepInfo after each of them.

        With a final level the last latents are handed out as the prior's mean given them with noise of that level.
        """
        profiler = profiler or Profiler(self.prior.device)
        reports: dict[str, list[Report]] = {mechanism.name: [] for mechanism in self.mechanisms}
        with torch.no_grad(), self.profiled(profiler):
            particles, waiting = self.begun(particles)
            for step in range(self.num_steps):
                if waiting is not None and self.entering is not None and step == self.entering[1].step:
                    mechanism, entrance = self.entering
                    brought, report = mechanism.enter(waiting, self, profiler, on_step)
                    particles, reports[mechanism.name] = self.joined(particles, brought, entrance.step), [report]
                if not len(particles):
                    profiler.idle()
                    continue
                step_needs_grad = any(m.needs_grad and m.acts(step) for m in self.mechanisms)
                with self.step(profiler, step, particles), torch.set_grad_enabled(step_needs_grad):
                    particles, info, reports_of_step = self.annealing_step(particles, self.scalars(step), profiler)
                    devices.mark_step(particles.z.device)
                for name, report in reports_of_step.items():
                    reports[name].append(report)
                on_step(info)
            particles = self.denoised(particles)
            return self.finished(particles, profiler, reports)

    def denoised(self, particles: Particles) -> Particles:
        """The last particles as they are handed out: at the prior's mean given them, where there is a final level."""
        if self.final_sigma is not None:
            particles = particles.at(self.prior.denoise(particles.z, self.final_sigma))
        return particles

    def begun(self, particles: Particles) -> tuple[Particles, Particles | None]:
        """Those that begin in noise at the first step, and those that a mechanism brings in later; None: there are none."""
        begun, waiting = particles, None
        if self.entering is not None and bool((waits := self.entering[0].waits(particles)).any()):
            waiting, begun = particles.select(waits.nonzero().flatten()), particles.select((~waits).nonzero().flatten())
        if len(begun):
            begun = begun.at(self.sigmas[0] * self.noise.draw(begun, "initial"))
        return begun, waiting

    def joined(self, particles: Particles, brought: Particles, step: int) -> Particles:
        """The particles with those that a mechanism brings in at this step."""
        if not len(particles):
            return brought
        if particles.velocity is not None:
            brought = replace(brought, velocity=self.noise.draw(brought, "velocity", step))
        return Particles.joined([brought, particles]).image_by_image()

    def annealing_step(
        self, particles: Particles, s: StepScalars, profiler: Profiler | None = None
    ) -> tuple[Particles, StepInfo, dict[str, Report]]:
        """From z at s.sigma to z at s.sigma_next. Also what the chain found, and what each mechanism reports."""
        acting = self.acting(s.step)
        z0hat = self.probability_flow(particles.z, s.ode)
        for mechanism in acting:
            z0hat = mechanism.guide(z0hat, particles, s, self)
        particles, image, loss = self.inner_chain(particles, z0hat, s, acting, profiler)
        info, reports = StepInfo(s.step, particles, image, loss, z0hat=z0hat), {}
        for mechanism in acting:
            particles, reports[mechanism.name] = mechanism.after_chain(particles, s, self)
        return particles.at(particles.z + s.sigma_next * self.noise.draw(particles, "annealing", s.step)), info, reports

    def acting(self, step: int) -> list[Mechanism]:
        """The mechanisms of one annealing step, those included that only stay in the graph."""
        device = self.prior.device
        return [m for m in self.mechanisms if m.acts(step) or devices.one_graph(device, m.may_stay(step))]

    def scalars(self, step: int) -> StepScalars:
        """The numbers of one annealing step on the device."""
        sigma, sigma_next = self.sigmas[step], self.sigmas[step + 1]
        stage, step_of_stage = stage_of(self.stages, step)
        lr = stage.rate(step_of_stage)
        ode = ode_sigmas(sigma, self.diffusion.num_steps, self.diffusion.sigma_min)
        strengths = {mechanism.name: mechanism.strength(step) for mechanism in self.mechanisms}
        return StepScalars(step, sigma, sigma_next, lr, ode, strengths, self.prior.device, self.prior.dtype)

    def probability_flow(self, z: torch.Tensor, sigmas: Sequence[torch.Tensor]) -> torch.Tensor:
        """Euler steps of dz/dsigma = (z - D(z, sigma)) / sigma along `sigmas` (0-d tensors); z0hat (P, C, h, w)."""
        for sigma, sigma_next in zip(sigmas[:-1], sigmas[1:]):
            z = z + (sigma_next - sigma) * (z - self.prior.denoise(z, sigma)) / sigma
        return z

    def inner_chain(
        self,
        particles: Particles,
        z0hat: torch.Tensor,
        s: StepScalars,
        acting: Sequence[Mechanism] = (),
        profiler: Profiler | None = None,
    ) -> tuple[Particles, torch.Tensor, torch.Tensor]:
        """Langevin or HMC from z0hat towards p(z0 | z_t, y); also what the last iteration decoded, and its loss.

        Returns the particles at z0y, image (P, 3, H, W) and loss (P,).
        """
        c = stage_of(self.stages, s.step)[0].chain
        # num_steps times (P, C, h, w)
        noise = self.noise.draw(particles, "mcmc", s.step, count=c.num_steps).unbind()
        velocity = particles.velocity
        if c.mc_algo == "hmc" and velocity is None:
            velocity = self.noise.draw(particles, "velocity", s.step)
        state = mcmc.ChainState(z0hat.clone(), velocity)  # its own memory: the first iteration is the others' graph
        with profiler.chain(c.num_steps * len(particles)) if profiler else nullcontext():
            return self.iterated(particles, state, z0hat, s, noise, acting)

    def iterated(
        self,
        particles: Particles,
        state: mcmc.ChainState,
        z0hat: torch.Tensor,
        s: StepScalars,
        noise: Sequence[torch.Tensor],
        acting: Sequence[Mechanism] = (),
    ) -> tuple[Particles, torch.Tensor, torch.Tensor]:
        """An iteration of the chain about z0hat for each noise (P, C, h, w), from `state` on; as `inner_chain`."""
        c = stage_of(self.stages, s.step)[0].chain
        weight = mcmc.likelihood_weight(c.tau, c.likelihood_factor)
        kernel: Callable[..., mcmc.ChainState] = mcmc.langevin_step
        if c.mc_algo != "langevin":
            kernel = partial(mcmc.hmc_step, momentum=c.momentum)
        devices.mark_step(z0hat.device)
        for i in range(len(noise)):
            gradient, loss, image = self.data_gradient(particles.at(state.z), acting, s.strengths)
            score = mcmc.posterior_score(gradient, state.z, z0hat, s.sigma, weight, c.gradient_clip)
            state = kernel(state, score, s.lr, noise=noise[i])
            devices.mark_step(z0hat.device)
        return replace(particles, z=state.z, velocity=state.velocity if c.keep_velocity else None), image, loss

    def continued(self, particles: Particles, z0hat: torch.Tensor, step: int, share: float) -> tuple[Particles, int]:
        """Particles at the end of the chain of an annealing step after this share more of its iterations; and their number.

        Under noise of its own, so that nothing of a run changes, and without mechanisms.
        """
        c = stage_of(self.stages, step)[0].chain
        iterations = math.ceil(share * c.num_steps)
        fresh, *noise = self.noise.draw(particles, "continuation", count=iterations + 1).unbind()
        state = mcmc.ChainState(particles.z, fresh if particles.velocity is None else particles.velocity)
        return self.iterated(particles, state, z0hat, self.scalars(step), noise)[0], iterations
