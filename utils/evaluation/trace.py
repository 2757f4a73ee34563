"""What happens during a run, per annealing step."""

from collections.abc import Callable, Mapping, Sequence

import torch

from utils.evaluation.scores import psnr
from utils.sampling.outcome import StepInfo


class Trace:
    """Collects, per annealing step, what the last inner iteration decoded anyway: PSNR, loss, distance.

    Use it as the sampler's callback. `truths` is {image id: (3, H, W)} on the device; None without any: PSNR is None.
    """

    def __init__(
        self, truths: Mapping[int, torch.Tensor] | None, on_progress: Callable[[float], None] = lambda best_db: None
    ) -> None:
        self.truths, self.on_progress = truths, on_progress
        self.steps: list[dict] = []  # per annealing step {image id: (distance, {particle index: (psnr, loss)})}

    def __call__(self, info: StepInfo) -> None:
        images = info.particles.image.tolist()
        if self.truths is None:
            psnrs = [None] * len(images)
        else:
            psnrs = psnr(info.image, torch.stack([self.truths[image] for image in images])).tolist()
        distances = dict(zip(dict.fromkeys(images), info.particles.mean_pairwise_distance().tolist()))
        step = {image: (distance, {}) for image, distance in distances.items()}
        for image, index, *values in zip(images, info.particles.index.tolist(), psnrs, info.loss.tolist()):
            step[image][1][index] = values
        self.steps.append(step)
        self.on_progress(float("nan") if self.truths is None else max(psnrs))

    def of_image(self, image_id: int, particles: Sequence[int]) -> dict[str, list]:
        """One image's trace for its record; `particles` are the indices that it started with, None where pruned."""
        rows = [step[image_id] for step in self.steps]
        return {
            "pairwise_distance": [distance for distance, _ in rows],
            "psnr": [[values.get(i, (None, None))[0] for i in particles] for _, values in rows],
            "loss": [[values.get(i, (None, None))[1] for i in particles] for _, values in rows],
        }
