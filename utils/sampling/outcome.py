"""What the sampler hands out: after each annealing step, and at the end."""

from collections.abc import Sequence
from itertools import zip_longest
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


class Paused(NamedTuple):
    """A run after some of its annealing steps."""

    info: StepInfo  # of the last of them
    particles: Particles  # z at the noise level of the next step
    reports: dict[str, list[Report]]  # of each mechanism so far

    def select(self, keep: torch.Tensor) -> Self:
        """The particles at positions `keep` alone, (n,) int64 on the CPU; `info` and `reports` stay those of all."""
        return self._replace(particles=self.particles.select(keep))


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
            [sum(seconds) for seconds in zip_longest(*(part.timing_info for part in parts), fillvalue=0.0)],
            {name: [report for part in parts for report in part.reports[name]] for name in parts[0].reports},
        )

    def of_images(self, image_ids: Sequence[int]) -> Self:
        """The result without the particles of other images."""
        return self.select(torch.nonzero(torch.isin(self.particles.image, torch.as_tensor(image_ids))).flatten())

    def select(self, keep: torch.Tensor) -> Self:
        """The particles at positions `keep`, (n,) int64 on the CPU; the reports stay those of all."""
        on_device = keep.to(self.image.device)
        return self._replace(particles=self.particles.select(keep), image=self.image[on_device], loss=self.loss[on_device])

    def of_image(self, name: str, image_id: int) -> list[dict]:
        """What the mechanism `name` reported on one image, in order."""
        return [report[image_id] for report in self.reports.get(name, ()) if image_id in report]
