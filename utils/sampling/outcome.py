"""What the sampler hands out: after each annealing step, and at the end."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch

from utils.sampling.mechanism import Report
from utils.sampling.particles import Particles


class StepInfo(NamedTuple):
    """What one annealing step hands to the callback; tensors are on the device."""

    step: int
    particles: Particles  # whose chain this was; z is z0y, before any mechanism acts on it
    image: torch.Tensor  # (P, 3, H, W) what the last inner iteration decoded
    loss: torch.Tensor  # (P,) its squared residual
    level: str | None = None  # of a run within the run: which
    z0hat: torch.Tensor | None = None  # (P, C, h, w) from which that chain began and to which it is drawn; None: there is none


class SampleResult(NamedTuple):
    particles: Particles  # with the final latents
    image: torch.Tensor  # (P, 3, H, W) the decoded result
    loss: torch.Tensor  # (P,) its squared residual
    timing_info: list[float]  # seconds of each annealing step
    reports: dict[str, list[Report]]  # of each mechanism, one for each step in which it acted

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The results of several rounds as one: particles and reports one round after the other, seconds of a step added."""
        return cls(
            Particles.joined([part.particles for part in parts]),
            torch.cat([part.image for part in parts]),
            torch.cat([part.loss for part in parts]),
            [sum(seconds) for seconds in zip(*(part.timing_info for part in parts))],
            {name: [report for part in parts for report in part.reports[name]] for name in parts[0].reports},
        )

    def of_image(self, name: str, image_id: int) -> list[dict]:
        """What the mechanism `name` reported on one image, in order."""
        return [report[image_id] for report in self.reports.get(name, ()) if image_id in report]
