"""Polish: the second stage. The few particles with the smallest losses anneal once more from a low noise level.

A cheap annealing finds the right basin but leaves its particles unconverged. From polish.sigma down, with a chain of many
iterations, the best of them reach the bottom. This is the annealing's own dynamics on latents, with other numbers.
"""

import math
from dataclasses import replace

import torch

from operators.base import Operator
from utils.mechanisms.plan import Course, Settings
from utils.mechanisms.polish.plan import PLAN
from utils.priors.base import LatentPrior
from utils.sampling.mechanism import Mechanism, Report, Sampler
from utils.sampling.particles import Particles
from utils.sampling.phases import Opening
from utils.sampling.scalars import StepScalars
from utils.sampling.vocabulary import Stage


class Polish(Mechanism):
    """Keeps `keep` particles of each image at the end of the annealing.

    stage: what they then run; opening: of the phase at its first step.
    """

    name = "polish"
    needs_all = True

    def __init__(self, keep: int, stage: Stage, opening: Opening) -> None:
        self.keep, self.stage, self.opening = keep, stage, opening

    def acts(self, step: int) -> bool:
        return step == self.opening.step - 1

    def present_after(self, step: int, present: int) -> int:
        return min(self.keep, present)

    def after_chain(self, particles: Particles, s: StepScalars, sampler: Sampler) -> tuple[Particles, Report]:
        """The particles of the smallest losses, without a velocity; those that diverged come last."""
        losses = sampler.exact_loss(particles).tolist()
        rows, report = [], {}
        for image, positions in particles.by_image().items():
            rows_of_image = positions.tolist()
            finite = {row: math.isfinite(losses[row]) for row in rows_of_image}
            best_first = sorted(rows_of_image, key=lambda row: (not finite[row], losses[row] if finite[row] else 0.0))
            kept, dropped = sorted(best_first[: self.keep]), sorted(best_first[self.keep :])
            rows += kept
            report[image] = {
                "kept": particles.index[kept].tolist(),
                "dropped": particles.index[dropped].tolist(),
                "loss": [losses[row] if finite[row] else None for row in rows_of_image],
            }
        return replace(particles.select(torch.tensor(rows)), velocity=None), report

    def block(self, reports: list[dict], indices: range) -> dict | None:
        """Which particles went on, and the losses of all; None where it has not happened."""
        return {"step_index": self.opening.step, **reports[0]} if reports else None


def build(s: Settings, course: Course, prior: LatentPrior, operator: Operator) -> Polish:
    """Of a run."""
    stage, opening = PLAN.stage(s), PLAN.opening(s, course.clock)
    assert stage is not None and opening is not None
    return Polish(s.polish.keep, stage, opening)
