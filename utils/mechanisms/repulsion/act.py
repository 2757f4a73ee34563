"""Particle guidance: particles of one image repel each other early, so that they explore different modes.

Potential over the pairs of one image, on features f of the particles: U = sum_{i<j} k_ij, k_ij = exp(-|f_i - f_j|^2 / h).
Source: Corso et al., "Particle Guidance", arXiv 2310.13102. Ours: the force is -grad U made a relative length,
    strength(t) * mean_j k_ij * |reference| * (-grad_i U / |grad_i U|),
so repulsion_scale is the largest displacement relative to what it competes with: the denoiser's drift z0hat - z
(place "drift") or the data gradient (place "chain"). It means the same for latents of any size.
"""

import math
from collections.abc import Callable
from functools import partial
from pkgutil import resolve_name
from typing import Literal

import torch
import torch.nn.functional as F

from operators.base import Operator, column
from utils.errors import TO_BE_FOUND, InputError
from utils.mechanisms.plan import Course, Settings
from utils.mechanisms.repulsion.plan import PLAN, SIMILARITIES
from utils.mechanisms.repulsion.plan import Repulsion as Section
from utils.priors.base import LatentPrior
from utils.sampling.mechanism import Compared, Mechanism, Sampler
from utils.sampling.particles import Particles
from utils.sampling.scalars import StepScalars
from utils.sampling.schedule import StepClock

DECAYS = {
    "linear": lambda u: u,
    "cosine": lambda u: 0.5 * (1 - math.cos(math.pi * u)),
}
LOW_RESOLUTION = 8  # pixels of the low-frequency picture that particles are compared on


def features(similarity: str, value: torch.Tensor) -> torch.Tensor:
    """What particles are compared on, (P, D). `value`: latents for "latent", else images (P, C, H, W).

    "rotation": the odd part of the picture averaged to 8 x 8 pixels under the 180-degree rotation, as a unit vector: two
                particles at 0 and 180 degrees have opposite ones, while the even part, on which both modes agree, is
                left alone
    "module.function": your own, images (P, 3, H, W) -> (P, D), differentiable, each row from its own image
    """
    if similarity not in SIMILARITIES:
        return own_similarity(similarity)(value)
    if similarity == "latent":
        return value.flatten(1)
    low = F.avg_pool2d(value, max(1, value.shape[-1] // LOW_RESOLUTION))
    odd = (low - torch.flip(low, (-2, -1))).flatten(1)
    return odd / (odd.square().sum(1, keepdim=True) + 1e-12).sqrt()


def own_similarity(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The function that `name`, "module.function", stands for. Raises InputError."""
    try:
        return resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"repulsion.similarity={name}: cannot be imported ({error}); {TO_BE_FOUND}") from None


def bandwidth_of(distances_squared: torch.Tensor, pairs: torch.Tensor, bandwidth: Literal["median"] | float) -> torch.Tensor:
    """h per image, (N, 1, 1): a number as it is; "median" is median(d)^2 / ln(n + 1), which also works for n = 2.

    distances_squared (N, n, n); pairs (N, n, n) bool marks the pairs that count.
    """
    if bandwidth != "median":
        return torch.full_like(distances_squared[:, :1, :1], float(bandwidth))
    n = distances_squared.shape[1]
    ordered = torch.where(pairs, distances_squared, torch.inf).flatten(1).sort(dim=1).values  # pairs first
    middle = ((pairs.flatten(1).sum(1) - 1).clamp(min=0) // 2)[:, None]
    median = torch.nan_to_num(ordered.gather(1, middle), posinf=0.0)
    return (median / math.log(n + 1)).clamp(min=1e-8)[..., None]


def repel(
    similarity: str, value: torch.Tensor, particles_per_image: int, bandwidth: Literal["median"] | float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit direction away from the other particles and mean similarity to them; value (P, ...) without gradient.

    P = N images x n particles, grouped by image. Non-finite particles neither push nor are pushed.
    Returns direction, shaped like value, and similarity (P,) in [0, 1]. Both are 0 for a single particle.
    """
    n = particles_per_image
    with torch.enable_grad():
        leaf = torch.nan_to_num(value, posinf=0.0, neginf=0.0).detach().requires_grad_()
        f = features(similarity, leaf)
        f = f.reshape(-1, n, f.shape[1])  # (N, n, D)
        squared = (f[:, :, None] - f[:, None]).square().sum(-1)  # (N, n, n)
        finite = torch.isfinite(value.flatten(1)).all(1).reshape(-1, n)
        pairs = finite[:, :, None] & finite[:, None] & ~torch.eye(n, dtype=torch.bool, device=value.device)
        kernel = torch.where(pairs, torch.exp(-squared / bandwidth_of(squared.detach(), pairs, bandwidth)), 0.0)
        (gradient,) = torch.autograd.grad(kernel.sum() / 2, leaf)
    direction = -gradient / _norm(gradient).clamp(min=1e-20)
    return direction, kernel.detach().sum(-1).flatten() / max(n - 1, 1)


class Repulsion(Mechanism):
    """The force of one run; with place "drift" it displaces z0hat, with "chain" it bends the data gradient.

    scale: repulsion_scale, >= 0; settings: decay, end_step (timestep of 1000), bandwidth ("median" or a number),
    place ("drift" | "chain"), similarity (see `features`); steps: in how many annealing steps it acts; may_stay: in how many it
    may stay in the computation once it has faded out, until another mechanism changes the batch (XLA).
    """

    name = "repulsion"
    needs_grad = True

    def __init__(self, scale: float, settings: Section, clock: StepClock, steps: int, may_stay: int | None = None) -> None:
        if settings.similarity not in SIMILARITIES:
            own_similarity(settings.similarity)  # a wrong name ends here, not in the first step
        self.scale, self.settings, self.clock = scale, settings, clock
        self.steps, self.stays = steps, steps if may_stay is None else may_stay
        if settings.place == "chain":
            self.bends = "latent" if settings.similarity == "latent" else "image"

    def compared(self) -> list[Compared]:
        kind = self.settings.similarity
        name = f"similarity {kind}" if kind in SIMILARITIES else kind
        value: Literal["image", "latent"] = "latent" if kind == "latent" else "image"
        key = f"repulsion.similarity={kind}"
        return [Compared(key, name, partial(features, kind), value, of_ones_own=kind not in SIMILARITIES)]

    def acts(self, step: int) -> bool:
        return self.do_repulsion(step)

    def do_repulsion(self, step: int) -> bool:
        """Whether particles push each other at this annealing step."""
        return step < self.steps

    def may_stay(self, step: int) -> bool:
        return step < self.stays

    def strength(self, step: int) -> float:
        """Relative strength at an annealing step: `scale` at t = 1000, 0 from end_step on."""
        end = self.settings.end_step
        u = (self.clock.timestep(step) - end) / (1000 - end) if end < 1000 else 0.0
        return self.scale * DECAYS[self.settings.decay](u) if u > 0 else 0.0

    def bend(self, gradient: torch.Tensor, value: torch.Tensor, per_image: int, strength: torch.Tensor) -> torch.Tensor:
        """The data gradient with the force taken off it."""
        direction, similarity = repel(self.settings.similarity, value, per_image, self.settings.bandwidth)
        return gradient - direction * _length(strength, similarity, gradient)

    def guide(self, z0hat: torch.Tensor, particles: Particles, s: StepScalars, sampler: Sampler) -> torch.Tensor:
        """z0hat (P, C, h, w) displaced relative to the drift z0hat - z, if that is where the force acts.

        Measured on images it costs one decoder pass per annealing step, which carries the direction to the latent.
        """
        n, bandwidth = particles.per_image, self.settings.bandwidth
        if self.settings.place != "drift" or n == 1:
            return z0hat
        if self.settings.similarity == "latent":
            direction, similarity = repel("latent", z0hat, n, bandwidth)
        else:
            direction, similarity = sampler.passes(lambda z: self._through_decoder(sampler.prior, z, n), z0hat, together=n)
        return z0hat + direction * _length(s.strengths[self.name], similarity, z0hat - particles.z)

    def _through_decoder(self, prior: LatentPrior, z: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Direction in the latent, (P, C, h, w), of unit length, and similarity (P,), measured on decoded images."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            image = prior.decode(z)
            on_image, similarity = repel(self.settings.similarity, image.detach(), n, self.settings.bandwidth)
            (direction,) = torch.autograd.grad(image, z, on_image)
        return direction / _norm(direction).clamp(min=1e-20), similarity


def _length(strength: torch.Tensor, similarity: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    return torch.nan_to_num(strength * column(similarity, reference) * _norm(reference))


def _norm(value: torch.Tensor) -> torch.Tensor:
    return column(value.flatten(1).norm(dim=1), value)


def build(s: Settings, course: Course, prior: LatentPrior, operator: Operator) -> Repulsion:
    """Raises InputError if exp(-d^2 / bandwidth) is 0 in float32 for all latents that are not alike."""
    section, numbers = s.repulsion, math.prod(prior.latent_shape)
    if section.similarity == "latent" and section.bandwidth != "median" and numbers > 100 * section.bandwidth:
        raise InputError(
            f"repulsion.bandwidth={section.bandwidth}: squared distances of latents of {numbers} numbers are in "
            "the hundreds, so with repulsion.similarity=latent nothing would push; choose median, or a number "
            "of their size"
        )
    return Repulsion(s.repulsion_scale, section, course.clock, PLAN.steps(s, course), course.search_end)
