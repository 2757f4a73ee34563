"""What happens during a run, per annealing step."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from operators.base import Operator
from utils.callbacks.base import OfImage, Step
from utils.evaluation.scores import rotated
from utils.metrics.psnr import psnr
from utils.sampling.outcome import StepInfo
from utils.sampling.pictures import enlarged


class Trace:
    """Collects, per annealing step, what the last inner iteration decoded anyway: PSNR, loss and its terms, distance.

    Use it as the sampler's callback. `truths` is {image id: (3, H, W)} on the device; None without any: PSNR is None.
    Rounds of a sequential population, which all begin at step 0, meet in one trace: the distance is the mean over the
    pairs that ran together.
    on_progress: gets each step, also of a run within the run, such as a coarser level that it begins with
    operator: to know the noise floor, the terms of a loss that has several, and whether a turned picture is as good; None: none
    """

    def __init__(
        self,
        truths: Mapping[int, torch.Tensor] | None,
        on_progress: Callable[[Step], None] = lambda step: None,
        operator: Operator | None = None,
    ) -> None:
        self.truths, self.on_progress, self.operator = truths, on_progress, operator
        self.terms: list[str] = []
        self.floors: dict[int, float] = {}  # of each image's measurement
        # per annealing step {image id: ([(distance, pairs) of each round], {particle index: (psnr, loss, *terms)})}
        self.steps: list[dict] = []

    def __call__(self, info: StepInfo) -> None:
        images = info.particles.image.tolist()
        if info.level is not None:  # of a coarser image, or between two steps: nothing that a trace compares
            self._tell(info, images)
            return
        psnrs: list[Any] = [None] * len(images)
        either = None  # of the better orientation
        if self.truths is not None:
            truths = torch.stack([self.truths[image] for image in images])
            x = enlarged(info.image, truths.shape[-1])
            if self.operator is not None:
                x, truths = self.operator.visible(x), self.operator.visible(truths)
            psnrs = either = psnr(x, truths).tolist()
            if self.operator is not None and self.operator.rotation_ambiguity:
                either = [max(pair) for pair in zip(psnrs, psnr(x, rotated(truths)).tolist())]
        distances = dict(zip(dict.fromkeys(images), info.particles.mean_pairwise_distance().tolist()))
        finite = info.particles.z.cpu().isfinite().flatten(1).all(1).tolist()  # on the CPU: XLA would compile it
        counted = Counter(image for image, ok in zip(images, finite) if ok)
        pairs = {image: math.comb(counted[image], 2) for image in distances}  # those whose mean the distance is
        while len(self.steps) <= info.step:
            self.steps.append({})
        step = self.steps[info.step]
        for image, distance in distances.items():
            step.setdefault(image, ([], {}))[0].append((distance, pairs[image]))
        terms = {} if self.operator is None else self.operator.components(info.image, info.particles.y)
        self.terms, rows = list(terms), [values.tolist() for values in terms.values()]
        losses = info.loss.tolist()
        for image, index, *values in zip(images, info.particles.index.tolist(), psnrs, losses, *rows):
            step[image][1][index] = values
        self._tell(info, images, either, distances)

    def _tell(
        self, info: StepInfo, images: Sequence[int], psnrs: Sequence[float] | None = None, distances: Mapping[int, float] = {}
    ) -> None:
        """on_progress, image by image; images, psnrs: of each particle of the batch."""
        of_images, losses, numbers = {}, info.loss.tolist(), info.particles.index.tolist()
        for image in dict.fromkeys(images):
            rows = [row for row, each in enumerate(images) if each == image]
            loss = [losses[row] for row in rows]
            floor = 0.0 if info.level else self._floor(image, info.particles.y[rows[0]])
            of_images[image] = OfImage(
                [numbers[row] for row in rows],
                None if psnrs is None else [psnrs[row] for row in rows],
                loss,
                [value / floor for value in loss] if floor else None,
                distances.get(image, math.nan),
            )
        self.on_progress(Step(info.step, of_images, info.level))

    def _floor(self, image: int, y: torch.Tensor) -> float:
        """y: (...), the image's measurement."""
        if image not in self.floors:
            self.floors[image] = 0.0 if self.operator is None else self.operator.noise_floor(y[None].double().cpu()).item()
        return self.floors[image]

    def of_image(self, image_id: int, particles: Sequence[int]) -> dict[str, Any]:
        """One image's trace for its record; None for those of the numbers `particles` that were not there."""
        rows = [step.get(image_id, ([], {})) for step in self.steps]  # nothing where no particle was there yet
        absent = (None,) * (2 + len(self.terms))
        columns = [[[values.get(i, absent)[k] for i in particles] for _, values in rows] for k in range(len(absent))]
        named: dict[str, Any] = {"terms": dict(zip(self.terms, columns[2:]))} if self.terms else {}
        distances = [_mean_distance(rounds) for rounds, _ in rows]
        return {"pairwise_distance": distances, "psnr": columns[0], "loss": columns[1], **named}


def _mean_distance(rounds: list[tuple[float, int]]) -> float:
    """Over the pairs of all rounds, NaN where none is known."""
    of_rounds = [(distance, pairs) for distance, pairs in rounds if not math.isnan(distance)]
    if len(of_rounds) < 2:
        return of_rounds[0][0] if of_rounds else math.nan
    return math.fsum(distance * pairs for distance, pairs in of_rounds) / sum(pairs for _, pairs in of_rounds)
