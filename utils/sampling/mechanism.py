"""The contract of what acts on the particles beside the chain: repulsion, pruning, optimisation, and what comes next.

An annealing step has three places where a mechanism may act: on the end point of the probability flow (`guide`), on the
gradient of each chain iteration (`bend`), and on the particles after the chain (`after_chain`). The sampler asks every
mechanism at every step whether it acts, and knows none of them by name. What a mechanism spends on the networks is
counted by the prior that it is given, in the phase in which it acts.

docs/design.md shows one of one's own, with its YAML block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch

from operators.base import Operator
from utils.noise import KeyedNoise
from utils.priors.base import LatentPrior
from utils.sampling.particles import Particles
from utils.sampling.passes import Passes
from utils.sampling.scalars import StepScalars
from utils.sampling.vocabulary import Diffusion

Report = dict[int, dict[str, Any]]  # {image id: plain data for its record}


class Sampler(Protocol):
    """What a mechanism may use of the sampler that calls it."""

    prior: LatentPrior  # passes of bounded size, counted
    operator: Operator
    noise: KeyedNoise
    passes: Passes
    diffusion: Diffusion

    def probability_flow(self, z: torch.Tensor, sigmas: Sequence[torch.Tensor]) -> torch.Tensor: ...

    def data_gradient(self, particles: Particles) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]: ...

    def exact_loss(self, particles: Particles) -> torch.Tensor: ...


class Finished(Protocol):
    """Particles of earlier rounds, at their end: utils.sampling.outcome.SampleResult."""

    @property
    def particles(self) -> Particles: ...

    @property
    def image(self) -> torch.Tensor: ...  # (P, 3, H, W)

    @property
    def reports(self) -> dict[str, list[Report]]: ...


class Mechanism:
    """One that never acts. Override `acts` and the places; everything else has a default that changes nothing.

    name:  of its block in the records, and of its strength among the step's scalars
    bends: what `bend` is measured on, "image" or "latent"; None if it does not act within the chain
    needs_all: whether it needs all of an image's particles at once, so that they cannot be started one after the other
    """

    name: str
    bends: Literal["image", "latent"] | None = None
    needs_all: bool = False

    def beside(self, finished: Finished) -> Mechanism:
        """What acts in a round that starts when those of its images' particles are finished; they are not to be changed."""
        return self

    def acts(self, step: int) -> bool:
        """Whether it does anything at this annealing step."""
        return False

    def may_stay(self, step: int) -> bool:
        """Whether it may stay in the computation, at strength 0, where leaving it out would mean another graph (XLA)."""
        return False

    def strength(self, step: int) -> float:
        """A number that changes from step to step; on the device it is `s.strengths[name]`, a 0-d tensor."""
        return 0.0

    def guide(self, z0hat: torch.Tensor, particles: Particles, s: StepScalars, sampler: Sampler) -> torch.Tensor:
        """z0hat (P, C, h, w), where the probability flow from `particles` ended and the chain will start, displaced."""
        return z0hat

    def bend(self, gradient: torch.Tensor, value: torch.Tensor, per_image: int, strength: torch.Tensor) -> torch.Tensor:
        """The data gradient in `value` (P, ...), the image or the latent, changed; `per_image`: particles of each image."""
        return gradient

    def after_chain(self, particles: Particles, s: StepScalars, sampler: Sampler) -> tuple[Particles, Report]:
        """The particles at z0y, changed, and what its images' records will say of it."""
        return particles, {}

    def block(self, reports: list[dict[str, Any]], indices: range) -> dict[str, Any] | None:
        """The block of one image's record from its reports in order; `indices`: the numbers of the image's particles."""
        return {"events": reports} if reports else None
