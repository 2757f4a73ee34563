"""LatentDAPS: posterior sampling with a latent diffusion prior by decoupled noise annealing.

With noise levels sigma_0 > ... > sigma_N = 0, denoiser D_s, decoder D and measurement y = A(x) + noise, for P particles
(algorithm 2 of Zhang et al., arXiv 2407.01521, and the DAPS code, sampler.py):

    z ~ N(0, sigma_0^2)
    for i = 0 .. N - 1:
        z0hat <- solve dz/ds = (z - D_s(z, s)) / s from sigma_i to almost 0    probability flow
        z0y   <- chain from z0hat towards exp(-|A(D(z)) - y|^2 / tau^2) N(z; z0hat, sigma_i^2)
        z     <- z0y + sigma_(i+1) N(0, 1)
    return D(z)

Ours: mechanisms act on z0hat, within the chain and on z0y (utils/sampling/mechanism.py), and the last z may be denoised at a
level of its own, which takes out what a chain of few iterations leaves in it; without any of these it is DAPS.
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Self

import torch

from operators.base import Operator, column
from utils import device as devices
from utils.noise import KeyedNoise
from utils.priors.base import LatentPrior
from utils.priors.wrappers import CountingPrior, SplitPrior
from utils.sampling import mcmc
from utils.sampling.events import Events
from utils.sampling.handicap import owed
from utils.sampling.mechanism import Mechanism, Report
from utils.sampling.outcome import Paused, SampleResult, StepInfo
from utils.sampling.particles import Particles
from utils.sampling.passes import Passes
from utils.sampling.portfolio import Portfolio, low_passed
from utils.sampling.profiler import Profiler
from utils.sampling.scalars import Numbers, StepScalars
from utils.sampling.schedule import StepClock, annealing_sigmas, learning_rate, ode_sigmas
from utils.sampling.vocabulary import Annealing, Chain, Diffusion


class LatentDAPS:
    """The annealing loop. It holds settings only; all state is in the particles.

    annealing:  num_steps, sigma_max, sigma_min of the annealing grid
    diffusion:  num_steps, sigma_min of the probability-flow ODE; final_sigma of a last denoising
    chain:      mc_algo, num_steps, lr, lr_min_ratio, tau, momentum, keep_velocity, likelihood_factor, gradient_clip
    events:     the phases, and the flags do_repulsion and do_optimization of each step; None: one phase, none of them
    mechanisms: in the order in which they act
    passes:     how many particles go through a network at once
    portfolio:  where particles of one image differ in setting; None: they are alike
    """

    def __init__(
        self,
        prior: LatentPrior,
        operator: Operator,
        noise: KeyedNoise,
        annealing: Annealing,
        diffusion: Diffusion,
        chain: Chain,
        events: Events | None = None,
        mechanisms: Sequence[Mechanism] = (),
        passes: Passes | None = None,
        portfolio: Portfolio | None = None,
    ) -> None:
        self.passes = passes or Passes()
        self.counted = CountingPrior(prior)
        self.prior: LatentPrior = SplitPrior(self.counted, self.passes)  # type: ignore[assignment]  # stands for what it wraps
        self.operator, self.noise = operator, noise
        self.diffusion, self.chain = diffusion, chain
        self.kernel = mcmc.langevin_step if chain.mc_algo == "langevin" else partial(mcmc.hmc_step, momentum=chain.momentum)
        self.sigmas = annealing_sigmas(annealing.num_steps, annealing.sigma_max, annealing.sigma_min)
        self.final_sigma: torch.Tensor | None = None
        if diffusion.final_sigma:
            self.final_sigma = torch.tensor(diffusion.final_sigma, dtype=prior.dtype, device=prior.device)
        self.events = events or Events(StepClock("progress", self.sigmas))
        self.mechanisms, self.portfolio = tuple(mechanisms), portfolio

    def beside(self, finished: SampleResult) -> Self:
        """The loop of a further round, with the particles of its images that are finished."""
        other = copy(self)
        other.mechanisms = tuple(mechanism.beside(finished) for mechanism in self.mechanisms)
        return other

    def sample(
        self, particles: Particles, profiler: Profiler, on_step: Callable[[StepInfo], None] = lambda info: None
    ) -> SampleResult:
        """Run all annealing steps; `particles` gives y, image and index. `on_step` gets a StepInfo after each of them."""
        with torch.no_grad(), profiler.run(self.counted.calls, self.events.phases):
            end = self.anneal(self.drawn(particles), range(len(self.sigmas) - 1), profiler, on_step)
            return self.decoded(end.particles, profiler, end.reports)

    def begin(self, particles: Particles, step: int, profiler: Profiler, on_step: Callable[[StepInfo], None]) -> Paused:
        """`sample` through annealing step `step`."""
        with torch.no_grad(), profiler.run(self.counted.calls, self.events.phases):
            return self.anneal(self.drawn(particles), range(step + 1), profiler, on_step)

    def resume(self, paused: Paused, profiler: Profiler, on_step: Callable[[StepInfo], None]) -> SampleResult:
        """The rest of a run that paused, to its end; with its reports."""
        steps = range(paused.info.step + 1, len(self.sigmas) - 1)
        with torch.no_grad(), profiler.run(self.counted.calls, self.events.phases):
            end = self.anneal(paused.particles, steps, profiler, on_step)
            reports = {name: paused.reports[name] + later for name, later in end.reports.items()}
            return self.decoded(end.particles, profiler, reports)

    def drawn(self, particles: Particles) -> Particles:
        """Pure noise at the first level."""
        return particles.at(self.sigmas[0] * self.noise.draw(particles, "initial"))

    def anneal(self, particles: Particles, steps: range, profiler: Profiler, on_step: Callable[[StepInfo], None]) -> Paused:
        """Consecutive annealing steps, one at least."""
        reports: dict[str, list[Report]] = {mechanism.name: [] for mechanism in self.mechanisms}
        for step in steps:
            do_repulsion, do_optimization = self.events.do_repulsion(step), self.events.do_optimization(step)
            with (
                profiler.step(self.events.phase(step), len(particles), partial(self.probe_peak_mb, particles)),
                torch.set_grad_enabled(do_repulsion or do_optimization),
            ):
                particles, info, said = self.annealing_step(particles, self.scalars(step))
                devices.mark_step(particles.z.device)
            for name, report in said.items():
                reports[name].append(report)
            on_step(info)
        return Paused(info, particles, reports)

    def decoded(self, particles: Particles, profiler: Profiler, reports: dict[str, list[Report]]) -> SampleResult:
        """What these latents are handed out as: with a final level, as the prior's mean given them with noise of that level."""
        with torch.no_grad():
            if self.final_sigma is not None:
                particles = particles.at(self.prior.denoise(particles.z, self.final_sigma))
            image = self.prior.decode(particles.z)
            loss = self.operator.loss(image, particles.y)
        return SampleResult(particles, image, loss, timing_info=profiler.step_s, reports=reports)

    def annealing_step(self, particles: Particles, s: StepScalars) -> tuple[Particles, StepInfo, dict[str, Report]]:
        """From z at sigma to z at sigma_next. Also what the chain found, and what each mechanism reports."""
        acting = self.acting(s.step)
        z0hat = self.probability_flow(particles.z, self.numbers(particles, s).ode)
        for mechanism in acting:
            z0hat = mechanism.guide(z0hat, particles, s, self)
        particles, image, loss = self.inner_chain(particles, z0hat, s, acting)
        info, reports = StepInfo(s.step, particles, image, loss), {}
        for mechanism in acting:
            particles, reports[mechanism.name] = mechanism.after_chain(particles, s, self)
        noise = self.noise.draw(particles, "annealing", s.step)
        own = self.numbers(particles, s)  # of those that are there now
        return particles.at(particles.z + own.sigma_next * noise), info, reports

    def acting(self, step: int) -> list[Mechanism]:
        """The mechanisms of one annealing step, those included that only stay in the graph."""
        device = self.prior.device
        return [m for m in self.mechanisms if m.acts(step) or devices.one_graph(device, m.may_stay(step))]

    def scalars(self, step: int) -> StepScalars:
        """The numbers of one annealing step on the device."""
        sigma, sigma_next = self.sigmas[step], self.sigmas[step + 1]
        lr = learning_rate(self.chain.lr, self.chain.lr_min_ratio, step, len(self.sigmas) - 1)
        ode = ode_sigmas(sigma, self.diffusion.num_steps, self.diffusion.sigma_min)
        strengths = {mechanism.name: mechanism.strength(step) for mechanism in self.mechanisms}
        return StepScalars(step, sigma, sigma_next, lr, ode, strengths, self.prior.device, self.prior.dtype)

    def numbers(self, particles: Particles, s: StepScalars) -> Numbers:
        """What the flow and the chain of these particles use: the step's, but where a portfolio has others."""
        weight = mcmc.likelihood_weight(self.chain.tau, self.chain.likelihood_factor)
        common = Numbers(s.sigma, s.sigma_next, s.lr, s.ode, weight)
        return common if self.portfolio is None else self.portfolio.of(particles.index, common, s.step)

    def probability_flow(self, z: torch.Tensor, sigmas: Sequence[torch.Tensor]) -> torch.Tensor:
        """Euler steps of dz/dsigma = (z - D(z, sigma)) / sigma along `sigmas` (0-d or (P,) tensors); z0hat (P, C, h, w)."""
        for sigma, sigma_next in zip(sigmas[:-1], sigmas[1:]):
            z = z + column(sigma_next - sigma, z) * (z - self.prior.denoise(z, sigma)) / column(sigma, z)
        return z

    def inner_chain(
        self, particles: Particles, z0hat: torch.Tensor, s: StepScalars, acting: Sequence[Mechanism] = ()
    ) -> tuple[Particles, torch.Tensor, torch.Tensor]:
        """Langevin or HMC from z0hat towards p(z0 | z_t, y); also what the last iteration decoded, and its loss.

        Returns the particles at z0y, image (P, 3, H, W) and loss (P,), that of the whole measurement.
        """
        c, own = self.chain, self.numbers(particles, s)
        seen = particles if own.share is None else replace(particles, y=low_passed(particles.y, own.share))
        # num_steps times (P, C, h, w)
        noise = self.noise.draw(particles, "mcmc", s.step, count=c.num_steps).unbind()
        velocity = particles.velocity
        if c.mc_algo == "hmc" and velocity is None:
            velocity = self.noise.draw(particles, "velocity", s.step)
        state = mcmc.ChainState(z0hat.clone(), velocity)  # its own memory: the first iteration is the others' graph
        devices.mark_step(z0hat.device)
        for i in range(c.num_steps):
            gradient, loss, image = self.data_gradient(seen.at(state.z), acting, s)
            score = mcmc.posterior_score(gradient, state.z, z0hat, own.sigma, own.weight, c.gradient_clip)
            state = self.kernel(state, score, own.lr, noise=noise[i])
            devices.mark_step(z0hat.device)
        if own.share is not None:
            loss = self.operator.loss(image, particles.y)
        return replace(particles, z=state.z, velocity=state.velocity if c.keep_velocity else None), image, loss

    def data_gradient(
        self, particles: Particles, acting: Sequence[Mechanism] = (), s: StepScalars | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradient of ||A(D(z)) - y||^2 in z, (P, C, h, w); the loss (P,); the decoded image. One decoder pass.

        Mechanisms of the chain bend the gradient where they are measured: on the image or on the latent.
        """
        n, strengths = particles.per_image, {} if s is None else s.strengths
        on_image = [m for m in acting if m.bends == "image"]

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
        for m in acting:
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
        """Peak memory of one inner iteration where the device keeps no peak of its own; None elsewhere."""
        resident = self.prior.resident_bytes() + sum(t.nbytes for t in (particles.z, particles.y))
        return devices.probe_peak_mb(particles.z.device, lambda: self.data_gradient(particles), resident)
