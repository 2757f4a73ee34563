"""The contract of what acts on the particles beside the chain.

An annealing step has three places where a mechanism may act: on the end point of the probability flow (`guide`), on the
gradient of each chain iteration (`bend`), and on the particles after the chain (`after_chain`). The sampler asks every
mechanism at every step whether it acts, and knows none of them by name. What a mechanism spends on the networks is
counted by the prior that it is given, in the phase in which it acts.

Two more change the course of a run: a mechanism may bring in particles that begin at a later step (`entrance`), and may add a
further stage of annealing after the last step (`stage`).

docs/design.md shows one of one's own, with its YAML block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch

from operators.base import Operator
from utils.errors import InputError
from utils.noise import KeyedNoise
from utils.priors.base import LatentPrior
from utils.sampling.particles import Particles
from utils.sampling.passes import Passes
from utils.sampling.phases import Opening
from utils.sampling.profiler import Profiler
from utils.sampling.scalars import StepScalars
from utils.sampling.vocabulary import Diffusion, Stage

Report = dict[int, dict[str, Any]]  # {image id: plain data for its record}
OnStep = Callable[[Any], None]  # gets a utils.sampling.outcome.StepInfo


class Sampler(Protocol):
    """What a mechanism may use of the sampler that calls it."""

    prior: LatentPrior  # passes of bounded size, counted
    operator: Operator
    noise: KeyedNoise
    passes: Passes
    diffusion: Diffusion

    def probe_peak_mb(self, particles: Particles) -> float | None: ...

    def probability_flow(self, z: torch.Tensor, sigmas: Sequence[torch.Tensor]) -> torch.Tensor: ...

    def data_gradient(self, particles: Particles) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]: ...

    def exact_loss(self, particles: Particles) -> torch.Tensor: ...


class Entrance(NamedTuple):
    """Where a mechanism brings in particles of its own."""

    step: int  # the first annealing step of these particles
    phases: tuple[str, ...]  # in which they are made, in order


class Compared(NamedTuple):
    """A differentiable function of particles, images or latents (P, ...) -> (P, D), that a mechanism compares them by."""

    key: str  # where the config names it, with its value
    name: str
    function: Callable[[torch.Tensor], torch.Tensor]
    of: Literal["image", "latent"]
    of_ones_own: bool


class Mechanism:
    """One that never acts. Override `acts` and the places; everything else has a default that changes nothing.

    name:  of its block in the records, and of its strength among the step's scalars
    bends: what `bend` is measured on, "image" or "latent"; None if it does not act within the chain
    needs_all: whether it needs all of an image's particles at once, so that they cannot be started one after the other;
           one that adds particles does
    needs_grad: whether the steps in which it acts compute gradients outside the chain
    opening: the phase of the run that it opens; None: it opens none
    entrance: where it brings in particles; None: it brings in none
    stage: of annealing steps that it adds after the others; None: it adds none
    first_newborn: the number of the first particle that it adds to an image; `census` gives it
    """

    name: str
    bends: Literal["image", "latent"] | None = None
    needs_all: bool = False
    needs_grad: bool = False
    opening: Opening | None = None
    entrance: Entrance | None = None
    stage: Stage | None = None
    first_newborn: int = 0

    def acts(self, step: int) -> bool:
        """Whether it does anything at this annealing step."""
        return False

    def waits(self, particles: Particles) -> torch.Tensor:
        """Which of the particles to be started it brings in at its entrance, (P,) bool on the CPU."""
        return torch.zeros(len(particles), dtype=torch.bool)

    def enter(self, particles: Particles, sampler: Sampler, profiler: Profiler, on_step: OnStep) -> tuple[Particles, Report]:
        """Those that waited, without latents yet, or some of them, at the noise level of the entrance.

        Also what their records will say of it. What it computes counts in the entrance's phases (`profiler.apart`).
        """
        return particles, {}

    def compared(self) -> list[Compared]:
        """The functions of particles that it compares them by."""
        return []

    def newborn(self, step: int, present: int) -> int:
        """How many particles, of numbers of their own, an image of `present` gains by acting at this step, at most."""
        return 0

    def present_after(self, step: int, present: int) -> int:
        """How many particles an image of `present` has when it has acted at this step, at most."""
        return present + self.newborn(step, present)

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
        """The block of one image's record from its reports in order; `indices`: the numbers of the image's particles.

        Tables and figures read of particles that it bore: `parent`, {number of the newborn as text: number of its parent}, and
        `stay`, whether the parents went on beside them (utils/records/births.py).
        """
        return {"events": reports} if reports else None


class Census(NamedTuple):
    """Of the particles that an image may have in a run."""

    numbers: range  # those at the start, then the newborn of each mechanism in the order in which they act
    most: int  # at once


def census(mechanisms: Sequence[Mechanism], first: int, started: int, at_once: int, num_steps: int) -> Census:
    """Counts through the steps of a run, and tells each mechanism its first newborn's number.

    first, started: the number of an image's first particle, and how many are started, of which `at_once` in one round.
    """
    newborn, present, most = [0] * len(mechanisms), at_once, at_once
    for step in range(num_steps):
        for i, mechanism in enumerate(mechanisms):
            if mechanism.acts(step):
                newborn[i] += mechanism.newborn(step, present)
                present = mechanism.present_after(step, present)
                most = max(most, present)
    end = first + started
    for mechanism, count in zip(mechanisms, newborn):
        if count and not mechanism.needs_all:
            raise InputError(
                f"{mechanism.name}: {type(mechanism).__name__} adds particles, whose numbers follow all that are started; "
                "let it say needs_all = True"
            )
        mechanism.first_newborn = end
        end += count
    return Census(range(first, end), most)
