"""ReSample as its authors code it, for each particle alone. `sampler=resample`.

With a, a' of a step and the next, index i = num_steps - 1 .. 0 and thirds of num_steps (500 there):

    pseudo = (z - (1 - a) eps) / sqrt(a)                   as coded; Tweedie's formula has sqrt(1 - a)
    z'     = DDIM(z) - guidance a grad_z |y - A(D(pseudo))|
    then, where i is a multiple of `every` in the last two thirds and not 0:
    pseudo = that of the last of five more DDIM steps from z'
    z0     = in the middle third  E(argmin_x |y - A(x)|^2 from D(pseudo)),  in the last  argmin_z |y - A(D(z))|^2 from pseudo
    z      = (s sqrt(a') z0 + (1 - a') z') / (s + 1 - a') + sqrt(1 / (1/s + 1/(1 - a'))) n,
             s = resampling (1 - a') / (1 - a) (1 - a / a')
    at the end z = argmin_z |y - A(D(z))|^2 from z

argmin: AdamW with torch's defaults (weight decay 0.01) on the mean squared residual. It stops at one below 1e-6, which noise
never lets it reach, and in the latents where it exceeds that of 200 iterations before. The five steps take a of the step
before their own, as there. Theirs: one norm, one loss and one stop for a batch; here each particle has its own.
Our method optimises no pixels; this baseline does. DDIM and levels: utils/algorithms/ddim.py.
Source: Song et al., arXiv 2307.08123; soominkwon/resample, ldm/models/diffusion/ddim.py, resample_sampling.
"""

from collections.abc import Callable
from typing import Any

import torch

from operators.base import column, measurements
from utils import device as devices
from utils.algorithms.contract import OnStep
from utils.algorithms.ddim import GuidedDDIM, Level, moved, norm
from utils.sampling.outcome import StepInfo
from utils.sampling.particles import Particles

TRAVEL = 5  # DDIM steps before each resampling
TOLERANCE = 1e-6  # mean squared residual at which an optimisation ends
PATIENCE = 200  # iterations after which the loss in the latents must not be above what it was
TOLD_EVERY = 20  # iterations of an optimisation, which may take minutes

Gradient = Callable[[Particles, torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


class ReSample(GuidedDDIM):
    """guidance, resampling: see above; every: steps from one resampling to the next.

    pixel_iterations, pixel_rate, latent_iterations, latent_rate: of the two optimisations. Others: GuidedDDIM.
    """

    lag = 1  # steps by which a lies behind in the five DDIM steps

    def __init__(
        self,
        *parts: Any,
        guidance: float,
        resampling: float,
        every: int,
        pixel_iterations: int,
        pixel_rate: float,
        latent_iterations: int,
        latent_rate: float,
        **others: Any,
    ) -> None:
        super().__init__(*parts, **others)
        self.guidance, self.resampling, self.every = guidance, resampling, every
        self.pixel_iterations, self.pixel_rate = pixel_iterations, pixel_rate
        self.latent_iterations, self.latent_rate = latent_iterations, latent_rate

    def estimate(self, z: torch.Tensor, eps: torch.Tensor, level: Level) -> torch.Tensor:
        return (z - level.noise.square() * eps) / level.signal

    def error(self, z0: torch.Tensor, image: torch.Tensor, loss: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return norm(loss)

    def weight(self, level: Level) -> torch.Tensor:
        return self.guidance * level.signal.square()

    def limit(self, y: torch.Tensor) -> torch.Tensor:
        """The mean squared residual below which an optimisation ends, (P,)."""
        return torch.full_like(measurements(y), TOLERANCE)

    def corrected(self, particles: Particles, step: int, on_step: OnStep) -> Particles:
        index, third = self.num_steps - 1 - step, self.num_steps // 3
        if index == 0 or index > self.num_steps - third or index % self.every:
            return particles
        z0 = self.travelled(particles.z, step)
        if index >= third:
            x = self.optimised(self.prior.decode(z0), particles, self.pixels, self.pixel_rate, self.pixel_iterations, on_step)
            z0 = self.prior.encode(x)
        else:
            z0 = self.in_latents(particles.at(z0), on_step)
        noise = self.noise.draw(particles, "annealing", step)
        return particles.at(resampled(z0, particles.z, *self.levels[step : step + 2], self.resampling, noise))

    def ended(self, particles: Particles, on_step: OnStep) -> Particles:
        return particles.at(self.in_latents(particles, on_step))

    def travelled(self, z: torch.Tensor, step: int) -> torch.Tensor:
        """The clean latent that the last of the DDIM steps after `step` sees."""
        z0, levels = z, self.levels[step + 1 : -1][:TRAVEL]
        for k, level in enumerate(levels, start=step + 1 - self.lag):
            eps = self.predicted_noise(z, level)
            z0 = self.estimate(z, eps, self.levels[k])
            z = moved(z, eps, *self.levels[k : k + 2])
            devices.mark_step(z.device)
        return z0

    def in_latents(self, particles: Particles, on_step: OnStep) -> torch.Tensor:
        """argmin_z |y - A(D(z))|^2 from the particles' latents."""
        return self.optimised(particles.z, particles, self.latents, self.latent_rate, self.latent_iterations, on_step, PATIENCE)

    def latents(self, particles: Particles, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradient of the loss in the latents z, the loss (P,), and the images."""
        return self.data_gradient(particles.at(z))

    def pixels(self, particles: Particles, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradient of the loss in the images x, the loss (P,), and the images."""

        def one_pass(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                loss = self.operator.loss(x, y)
                (gradient,) = torch.autograd.grad(loss.sum(), x)
            return gradient, loss.detach()

        return *self.passes(one_pass, x, particles.y), x

    def optimised(
        self,
        x: torch.Tensor,
        particles: Particles,
        gradient_of: Gradient,
        rate: float,
        iterations: int,
        on_step: OnStep,
        patience: int = 0,
    ) -> torch.Tensor:
        """AdamW from x (P, ...) on each particle's mean squared residual; who has stopped costs no more passes.

        patience: iterations after which the loss must not be above what it was; 0: it may
        """
        count, limit, x = measurements(particles.y), self.limit(particles.y), x.detach().clone()
        optimiser = torch.optim.AdamW([x], lr=rate)
        going, losses = torch.ones_like(count, dtype=torch.bool), []
        rows = torch.arange(len(x), device=x.device)
        for i in range(iterations):
            left = particles.select(rows)
            gradient, loss, image = gradient_of(left, x[rows])
            x.grad, before = torch.zeros_like(x), x.clone()
            x.grad[rows] = gradient / column(count[rows], gradient)
            losses.append(torch.zeros_like(count).index_copy(0, rows, loss) / count)
            optimiser.step()
            x.copy_(torch.where(column(going, x), x, before))
            going &= losses[-1] >= limit  # what is not finite stops too
            if patience and i >= patience:
                going &= losses[-1] <= losses[i - patience]
            devices.mark_step(x.device)
            if (i + 1) % TOLD_EVERY == 0:
                on_step(StepInfo(i, left, image, loss, level="optimisation"))
            if not going.any():
                break
            if devices.batch_may_shrink(x.device):
                rows = going.nonzero().flatten()
        return x.detach()


def resampled(
    z0: torch.Tensor, z: torch.Tensor, level: Level, then: Level, resampling: float, noise: torch.Tensor
) -> torch.Tensor:
    """A draw from N(sqrt(a') z0, 1 - a') N(z, s), normalised; s as above, noise: standard normal."""
    variance = then.noise.square()
    s = resampling * variance / level.noise.square() * (1 - (level.signal / then.signal).square())
    return (s * then.signal * z0 + variance * z) / (s + variance) + (1 / (1 / s + 1 / variance)).sqrt() * noise
