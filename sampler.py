"""LatentDAPS: posterior sampling with a latent diffusion prior by decoupled noise annealing.

Source: Zhang et al., "Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing",
arXiv 2407.01521, algorithm 2, and the DAPS code, sampler.py.
"""
from typing import NamedTuple

import torch

from utils import device as devices
from utils import mcmc
from utils.passes import Passes, SplitPrior
from utils.profiler import CountingPrior
from utils.schedule import StepScalars, annealing_sigmas, learning_rate, ode_sigmas


class StepInfo(NamedTuple):
    """What one annealing step hands to the callback; tensors are on the device."""
    step: int
    sigma: float
    z0y: torch.Tensor    # (P, C, h, w) latents after the inner chain
    image: torch.Tensor  # (P, 3, H, W) what the last inner iteration decoded
    loss: torch.Tensor   # (P,) its squared residual


class SampleResult(NamedTuple):
    particles: object          # utils.particles.Particles with the final latents
    image: torch.Tensor        # (P, 3, H, W) the decoded result
    loss: torch.Tensor         # (P,) its squared residual
    timing_info: list          # seconds per annealing step


class LatentDAPS:
    """The annealing loop. It holds settings only; all state is in the particles.

    prior:     utils.priors.base.LatentPrior
    operator:  operators.base.Operator
    noise:     utils.noise.KeyedNoise
    annealing: num_steps, sigma_max, sigma_min of the annealing grid
    diffusion: num_steps, sigma_min of the probability-flow ODE
    chain:     mc_algo, num_steps, lr, lr_min_ratio, tau, momentum, likelihood_factor, gradient_clip
    passes:    utils.passes.Passes, how many particles go through a network at once
    """

    def __init__(self, prior, operator, noise, annealing, diffusion, chain, passes=None):
        self.prior, self.operator, self.noise = prior, operator, noise
        self.diffusion, self.chain = diffusion, chain
        self.passes = passes or Passes()
        self.sigmas = annealing_sigmas(annealing.num_steps, annealing.sigma_max, annealing.sigma_min)

    def sample(self, particles, profiler, on_step=lambda info: None):
        """Run all annealing steps on `particles` (their z is replaced); `on_step` gets a StepInfo after each."""
        prior = SplitPrior(CountingPrior(self.prior, profiler), self.passes)
        with torch.no_grad(), profiler.phase("sampling", len(particles), lambda: self.probe_peak_mb(particles)):
            particles.z = self.sigmas[0] * self.noise.draw(particles, "initial")
            for step, (sigma, sigma_next) in enumerate(zip(self.sigmas[:-1], self.sigmas[1:])):
                with profiler.step():
                    s = self.scalars(step, sigma, sigma_next)
                    z0hat = self.probability_flow(prior, particles.z, s.ode)
                    z0y, image, loss = self.inner_chain(prior, particles, z0hat, s, step)
                    particles.z = z0y + s.sigma_next * self.noise.draw(particles, "annealing", step)
                    devices.mark_step(particles.z.device)
                on_step(StepInfo(step, sigma, z0y, image, loss))
            image = prior.decode(particles.z)
            loss = self.operator.loss(image, particles.y)
        return SampleResult(particles, image, loss, timing_info=profiler.step_s)

    def scalars(self, step, sigma, sigma_next):
        lr = learning_rate(self.chain.lr, self.chain.lr_min_ratio, step, len(self.sigmas) - 1)
        grid = ode_sigmas(sigma, self.diffusion.num_steps, self.diffusion.sigma_min)
        return StepScalars(sigma, sigma_next, lr, grid, self.prior.device, self.prior.dtype)

    @staticmethod
    def probability_flow(prior, z, sigmas):
        """Euler steps of dz/dsigma = (z - D(z, sigma)) / sigma along `sigmas` (0-d tensors); z0hat (P, C, h, w)."""
        for sigma, sigma_next in zip(sigmas[:-1], sigmas[1:]):
            z = z + (sigma_next - sigma) * (z - prior.denoise(z, sigma)) / sigma
        return z

    def inner_chain(self, prior, particles, z0hat, s, step):
        """Langevin or HMC from z0hat towards p(z0 | z_t, y); also what the last iteration decoded, and its loss."""
        c = self.chain
        noise = self.noise.draw(particles, "mcmc", step, count=c.num_steps)  # (num_steps, P, C, h, w)
        velocity = self.noise.draw(particles, "velocity", step) if c.mc_algo == "hmc" else None
        state = mcmc.ChainState(z0hat, velocity)
        for i in range(c.num_steps):
            gradient, loss, image = self.data_gradient(prior, state.z, particles.y)
            score = mcmc.posterior_score(gradient, state.z, z0hat, s.sigma, c.tau, c.likelihood_factor, c.gradient_clip)
            if c.mc_algo == "hmc":
                state = mcmc.hmc_step(state, score, s.lr, c.momentum, noise[i])
            else:
                state = mcmc.langevin_step(state, score, s.lr, noise[i])
        return state.z, image, loss

    def data_gradient(self, prior, z, y):
        """Gradient of ||A(D(z)) - y||^2 in z, (P, C, h, w); the loss (P,); the decoded image. One decoder pass."""
        def one_pass(z, y):
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                image = prior.decode(z)
                loss = self.operator.loss(image, y)
                gradient, = torch.autograd.grad(loss.sum(), z)
            return gradient, loss.detach(), image.detach()

        return self.passes(one_pass, z, y)

    def probe_peak_mb(self, particles):
        """Peak memory of one inner iteration where the device keeps no peak of its own; None elsewhere."""
        resident = self.prior.resident_bytes() + sum(t.nbytes for t in (particles.z, particles.y))
        return devices.probe_peak_mb(
            particles.z.device, lambda: self.data_gradient(self.prior, torch.zeros_like(particles.z), particles.y),
            resident)
