"""LatentDAPS: posterior sampling with a latent diffusion prior by decoupled noise annealing.

Source: Zhang et al., "Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing",
arXiv 2407.01521, algorithm 2, and the DAPS code, sampler.py.
"""

from dataclasses import replace
from typing import NamedTuple

import torch

from utils import device as devices
from utils.priors.wrappers import CountingPrior, SplitPrior
from utils.sampling import mcmc
from utils.sampling.events import Events
from utils.sampling.passes import Passes
from utils.sampling.profiler import Phase
from utils.sampling.scalars import StepScalars
from utils.sampling.schedule import StepClock, annealing_sigmas, learning_rate, ode_sigmas


class StepInfo(NamedTuple):
    """What one annealing step hands to the callback; tensors are on the device."""

    step: int
    particles: object  # utils.particles.Particles whose chain this was; z is z0y, before the parts' events
    image: torch.Tensor  # (P, 3, H, W) what the last inner iteration decoded
    loss: torch.Tensor  # (P,) its squared residual


class SampleResult(NamedTuple):
    particles: object  # utils.particles.Particles with the final latents
    image: torch.Tensor  # (P, 3, H, W) the decoded result
    loss: torch.Tensor  # (P,) its squared residual
    timing_info: list  # seconds per annealing step
    pruning: dict  # {image id: report of utils.pruning}, empty if off
    optimization: list  # one report of utils.optimization per call, with image, index and time_s


class LatentDAPS:
    """The annealing loop. It holds settings only; all state is in the particles.

    prior:        utils.priors.base.LatentPrior
    operator:     operators.base.Operator
    noise:        utils.noise.KeyedNoise
    annealing:    num_steps, sigma_max, sigma_min of the annealing grid
    diffusion:    num_steps, sigma_min of the probability-flow ODE
    chain:        mc_algo, num_steps, lr, lr_min_ratio, tau, momentum, keep_velocity, likelihood_factor, gradient_clip
    events:       utils.events.Events, when the parts act; None: never
    repulsion, pruning, optimization: the parts (utils/), None where off
    passes:       utils.passes.Passes, how many particles go through a network at once
    """

    def __init__(
        self,
        prior,
        operator,
        noise,
        annealing,
        diffusion,
        chain,
        events=None,
        repulsion=None,
        pruning=None,
        optimization=None,
        passes=None,
    ):
        self.prior, self.operator, self.noise = prior, operator, noise
        self.diffusion, self.chain = diffusion, chain
        self.repulsion, self.pruning, self.optimization = repulsion, pruning, optimization
        self.passes = passes or Passes()
        self.sigmas = annealing_sigmas(annealing.num_steps, annealing.sigma_max, annealing.sigma_min)
        self.events = events or Events(StepClock("progress", self.sigmas))

    def sample(self, particles, profiler, on_step=lambda info: None):
        """Run all annealing steps; `particles` gives y, image and index. `on_step` gets a StepInfo after each chain."""
        prior, events, device = SplitPrior(CountingPrior(self.prior, profiler), self.passes), self.events, particles.y.device
        pruned, optimised = {}, []
        with torch.no_grad():
            particles = particles.at(self.sigmas[0] * self.noise.draw(particles, "initial"))
            for step, (sigma, sigma_next) in enumerate(zip(self.sigmas[:-1], self.sigmas[1:])):
                profiler.enter(events.phase(step), len(particles), lambda: self.probe_peak_mb(particles))
                do_repulsion, do_optimization = events.do_repulsion(step), events.do_optimization(step)
                with profiler.step(), torch.set_grad_enabled(do_repulsion or do_optimization):
                    s = self.scalars(step, sigma, sigma_next)
                    keep_repulsion = do_repulsion or devices.one_graph(device, events.before_events(step))
                    repulsion = self.repulsion if keep_repulsion else None
                    z0hat = self.probability_flow(prior, particles.z, s.ode)
                    if repulsion:
                        z0hat = repulsion.shift(z0hat, prior, particles, s.repulsion, self.passes)
                    particles, image, loss = self.inner_chain(prior, particles, z0hat, s, step, repulsion)
                    info = StepInfo(step, particles, image, loss)
                    if events.prune_after(step):
                        particles, pruned = self.pruning(particles, self.exact_loss(prior, particles), self.operator)
                    if do_optimization:
                        particles, report = self.optimise(prior, particles)
                        optimised.append(report)
                    particles = particles.at(particles.z + s.sigma_next * self.noise.draw(particles, "annealing", step))
                    devices.mark_step(device)
                on_step(info)
            image = prior.decode(particles.z)
            loss = self.operator.loss(image, particles.y)
            profiler.close()
        # a phase between two events on the same step was never entered and has no steps
        profiler.phases = {name: profiler.phases.get(name, Phase()) for name in events.phases}
        return SampleResult(particles, image, loss, profiler.step_s, pruned, optimised)

    def scalars(self, step, sigma, sigma_next):
        lr = learning_rate(self.chain.lr, self.chain.lr_min_ratio, step, len(self.sigmas) - 1)
        grid = ode_sigmas(sigma, self.diffusion.num_steps, self.diffusion.sigma_min)
        strength = self.repulsion.strength(step) if self.repulsion else 0.0
        return StepScalars(sigma, sigma_next, lr, grid, strength, self.prior.device, self.prior.dtype)

    @staticmethod
    def probability_flow(prior, z, sigmas):
        """Euler steps of dz/dsigma = (z - D(z, sigma)) / sigma along `sigmas` (0-d tensors); z0hat (P, C, h, w)."""
        for sigma, sigma_next in zip(sigmas[:-1], sigmas[1:]):
            z = z + (sigma_next - sigma) * (z - prior.denoise(z, sigma)) / sigma
        return z

    def inner_chain(self, prior, particles, z0hat, s, step, repulsion=None):
        """Langevin or HMC from z0hat towards p(z0 | z_t, y); also what the last iteration decoded, and its loss.

        Returns the particles at z0y, image (P, 3, H, W) and loss (P,).
        """
        c = self.chain
        # num_steps times (P, C, h, w)
        noise = self.noise.draw(particles, "mcmc", step, count=c.num_steps).unbind()
        velocity = particles.velocity
        if c.mc_algo == "hmc" and velocity is None:
            velocity = self.noise.draw(particles, "velocity", step)
        state = mcmc.ChainState(z0hat.clone(), velocity)  # its own memory: the first iteration is the others' graph
        devices.mark_step(z0hat.device)
        for i in range(c.num_steps):
            gradient, loss, image = self.data_gradient(prior, particles.at(state.z), repulsion, s.repulsion)
            score = mcmc.posterior_score(gradient, state.z, z0hat, s.sigma, c.tau, c.likelihood_factor, c.gradient_clip)
            if c.mc_algo == "hmc":
                state = mcmc.hmc_step(state, score, s.lr, c.momentum, noise[i])
            else:
                state = mcmc.langevin_step(state, score, s.lr, noise[i])
            devices.mark_step(z0hat.device)
        return replace(particles, z=state.z, velocity=state.velocity if c.keep_velocity else None), image, loss

    def data_gradient(self, prior, particles, repulsion=None, strength=None):
        """Gradient of ||A(D(z)) - y||^2 in z, (P, C, h, w); the loss (P,); the decoded image. One decoder pass.

        A repulsion in the chain bends the gradient where its similarity is measured: on the image or on the latent.
        """
        n = particles.per_image
        on_image = repulsion is not None and repulsion.acts_on("chain", "image")

        def one_pass(z, y):
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                image = prior.decode(z)
                seen = image.detach().requires_grad_()
                loss = self.operator.loss(seen, y)
                (gradient,) = torch.autograd.grad(loss.sum(), seen)
                if on_image:
                    gradient = repulsion.bend(gradient, seen.detach(), n, strength)
                (gradient,) = torch.autograd.grad(image, z, gradient)
            return gradient, loss.detach(), image.detach()

        gradient, loss, image = self.passes(one_pass, particles.z, particles.y, together=n if on_image else 1)
        if repulsion is not None and repulsion.acts_on("chain", "latent"):
            gradient = repulsion.bend(gradient, particles.z, n, strength)
        return gradient, loss, image

    def exact_loss(self, prior, particles):
        """Squared residual of the current latents, (P,)."""
        loss = self.operator.loss(prior.decode(particles.z), particles.y)
        devices.mark_step(loss.device)
        return loss

    def optimise(self, prior, particles):
        """Hard data consistency on the current latents: (particles, report)."""
        started = devices.clock(particles.z.device)
        z, report = self.optimization(particles, lambda p: self.data_gradient(prior, p), self.operator.sigma)
        report |= {
            "image": particles.image.tolist(),
            "index": particles.index.tolist(),
            "time_s": devices.clock(z.device) - started,
        }
        return particles.at(z), report

    def probe_peak_mb(self, particles):
        """Peak memory of one inner iteration where the device keeps no peak of its own; None elsewhere."""
        resident = self.prior.resident_bytes() + sum(t.nbytes for t in (particles.z, particles.y))
        return devices.probe_peak_mb(particles.z.device, lambda: self.data_gradient(self.prior, particles), resident)
