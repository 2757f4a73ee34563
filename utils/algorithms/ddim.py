"""What the baselines in latent space share: DDIM whose steps are pulled towards the measurement through the denoiser.

With the variance-preserving latent z_t = sqrt(a) z0 + sqrt(1 - a) n, its predicted noise eps, decoder D and measurement y:

    z0hat = (z - sqrt(1 - a) eps) / sqrt(a)                                   Tweedie's formula
    z     <- sqrt(a') z0hat + sqrt(1 - a') eps - weight grad_z error(z0hat)   DDIM with eta = 0, and the pull

The prior here is variance exploding: its latent is z / sqrt(a) at sigma = sqrt((1 - a) / a), so that
eps = (z - sqrt(a) denoise(z / sqrt(a), sigma)) / sqrt(1 - a). The levels a are those of latent diffusion: 1000 timesteps,
betas linear in their square roots, evenly thinned out; the last step ends at the first timestep's level, not at 0.
Sources: Song et al., arXiv 2010.02502 (DDIM); CompVis/latent-diffusion, ldm/models/diffusion/ddim.py.
"""

from typing import NamedTuple

import numpy as np
import torch

from operators.base import Operator
from utils import device as devices
from utils.algorithms.contract import Algorithm, OnStep, ignore
from utils.noise import KeyedNoise
from utils.priors.base import LatentPrior
from utils.sampling.outcome import SampleResult, StepInfo
from utils.sampling.particles import Particles
from utils.sampling.passes import Passes
from utils.sampling.profiler import Profiler
from utils.sampling.schedule import TIMESTEPS


class Level(NamedTuple):
    """sqrt(a) and sqrt(1 - a) of one timestep; 0-d tensors on the device, so that all steps are one graph on XLA."""

    signal: torch.Tensor
    noise: torch.Tensor


class Guided(NamedTuple):
    """What the pass of one step gives; all (P, ...)."""

    gradient: torch.Tensor  # of `error` in the latent
    eps: torch.Tensor
    z0: torch.Tensor  # `estimate`
    image: torch.Tensor  # D(z0)
    loss: torch.Tensor


def ddim_alphas(num_steps: int, beta_start: float, beta_end: float) -> np.ndarray:
    """a of each step, from noise on, and of where the last one ends: (num_steps + 1,) float64; num_steps: 1 to 1000."""
    alphas = np.cumprod(1 - np.linspace(beta_start**0.5, beta_end**0.5, TIMESTEPS) ** 2)
    timesteps = np.arange(num_steps, 0, -1) * TIMESTEPS // num_steps - 1  # 999, 997, .. 1 of 500
    return np.append(alphas[timesteps], alphas[0])


def norm(squares: torch.Tensor) -> torch.Tensor:
    """Square roots of sums of squares, (P,); where a sum is 0 the gradient is 0, and not NaN."""
    return squares.clamp(min=torch.finfo(squares.dtype).tiny).sqrt()


class GuidedDDIM(Algorithm):
    """Override `error`, and what else differs. num_steps: 1 to 1000; beta_start, beta_end: of the noise schedule."""

    def __init__(
        self,
        prior: LatentPrior,
        operator: Operator,
        noise: KeyedNoise,
        passes: Passes | None = None,
        *,
        num_steps: int,
        beta_start: float,
        beta_end: float,
    ) -> None:
        super().__init__(prior, operator, noise, passes)
        self.num_steps = num_steps
        alphas = torch.from_numpy(ddim_alphas(num_steps, beta_start, beta_end))
        roots = (r.sqrt().to(prior.dtype).to(prior.device).unbind() for r in (alphas, 1 - alphas))
        self.levels = [Level(*pair) for pair in zip(*roots)]

    def error(self, z0: torch.Tensor, image: torch.Tensor, loss: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """What a step descends, (P,), differentiable; z0: `estimate`, image: D(z0), loss (P,): its squared residual."""
        raise NotImplementedError

    def weight(self, level: Level) -> torch.Tensor | float:
        """Of the gradient of `error`."""
        return 1.0

    def estimate(self, z: torch.Tensor, eps: torch.Tensor, level: Level) -> torch.Tensor:
        """The clean latent at which `error` is taken."""
        return tweedie(z, eps, level)

    def corrected(self, particles: Particles, step: int, on_step: OnStep) -> Particles:
        """The particles after the pull of one step; here as they are. on_step: is told of what takes long within it."""
        return particles

    def ended(self, particles: Particles, on_step: OnStep) -> Particles:
        """The particles after the last step; here as they are."""
        return particles

    def sample(self, particles: Particles, profiler: Profiler | None = None, on_step: OnStep = ignore) -> SampleResult:
        profiler = profiler or Profiler(self.prior.device)
        with torch.no_grad(), self.profiled(profiler):
            particles = particles.at(self.noise.draw(particles, "initial"))
            for step, (level, then) in enumerate(zip(self.levels, self.levels[1:])):
                with self.step(profiler, step, particles):
                    seen = self.guided(particles, level)
                    z = moved(particles.z, seen.eps, level, then) - self.weight(level) * seen.gradient
                    devices.mark_step(z.device)
                    particles = self.corrected(particles.at(z), step, on_step)
                    devices.mark_step(z.device)
                on_step(StepInfo(step, particles.at(seen.z0), seen.image, seen.loss))
            return self.finished(self.ended(particles, on_step), profiler)

    def predicted_noise(self, z: torch.Tensor, level: Level) -> torch.Tensor:
        """eps of z (P, C, h, w); one denoiser call."""
        z0 = self.prior.denoise(z / level.signal, level.noise / level.signal)
        return (z - level.signal * z0) / level.noise

    def guided(self, particles: Particles, level: Level) -> Guided:
        """The gradient of each particle's own error, in one decoder pass and one denoiser call that is differentiated too."""

        def one_pass(z: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                eps = self.predicted_noise(z, level)
                z0 = self.estimate(z, eps, level)
                image = self.prior.decode(z0)
                loss = self.operator.loss(image, y)
                (gradient,) = torch.autograd.grad(self.error(z0, image, loss, y).sum(), z)
            return gradient, eps.detach(), z0.detach(), image.detach(), loss.detach()

        return Guided(*self.passes(one_pass, particles.z, particles.y))

    def heaviest_pass(self, particles: Particles) -> None:
        self.guided(particles, self.levels[0])


def tweedie(z: torch.Tensor, eps: torch.Tensor, level: Level) -> torch.Tensor:
    """E[z0 | z]."""
    return (z - level.noise * eps) / level.signal


def moved(z: torch.Tensor, eps: torch.Tensor, level: Level, then: Level) -> torch.Tensor:
    """z at the level `then`, by DDIM with eta = 0."""
    return then.signal * tweedie(z, eps, level) + then.noise * eps
