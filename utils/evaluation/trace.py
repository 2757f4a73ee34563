"""What happens during a run, per annealing step."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from operators.base import Operator
from utils.metrics.psnr import psnr
from utils.sampling.outcome import StepInfo
from utils.sampling.pictures import enlarged


class Trace:
    """Collects, per annealing step, what the last inner iteration decoded anyway: PSNR, loss and its terms, distance.

    Use it as the sampler's callback. `truths` is {image id: (3, H, W)} on the device; None without any: PSNR is None.
    Rounds of a sequential population, which all begin at step 0, meet in one trace: the distance is the mean over the
    pairs that ran together.
    on_progress: gets, after each step, its number, the best PSNR (None without truths) and the lowest loss of the batch, NaN
    where all diverged; of a coarser level that the run begins with also its name
    operator: to know the terms of a loss that has several; None: it has not
    """

    def __init__(
        self,
        truths: Mapping[int, torch.Tensor] | None,
        on_progress: Callable[[int, float | None, float, str | None], None] = lambda step, best_db, lowest_loss, level: None,
        operator: Operator | None = None,
    ) -> None:
        self.truths, self.on_progress, self.operator = truths, on_progress, operator
        self.terms: list[str] = []
        # per annealing step {image id: ([(distance, pairs) of each round], {particle index: (psnr, loss, *terms)})}
        self.steps: list[dict] = []

    def __call__(self, info: StepInfo) -> None:
        images = info.particles.image.tolist()
        if info.level is not None:  # of a coarser image: nothing that a trace compares
            self.on_progress(info.step, None, min(_known(info.loss.tolist())), info.level)
            return
        if self.truths is None:
            psnrs: list[Any] = [None] * len(images)
        else:
            truths = torch.stack([self.truths[image] for image in images])
            x = enlarged(info.image, truths.shape[-1])
            if self.operator is not None:
                x, truths = self.operator.visible(x), self.operator.visible(truths)
            psnrs = psnr(x, truths).tolist()
        distances = dict(zip(dict.fromkeys(images), info.particles.mean_pairwise_distance().tolist()))
        pairs = {image: math.comb(images.count(image), 2) for image in distances}
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
        self.on_progress(info.step, None if self.truths is None else max(_known(psnrs)), min(_known(losses)), None)

    def of_image(self, image_id: int, particles: Sequence[int]) -> dict[str, Any]:
        """One image's trace for its record; None for those of the numbers `particles` that were not there."""
        rows = [step.get(image_id, ([], {})) for step in self.steps]  # nothing where no particle was there yet
        pruned = (None,) * (2 + len(self.terms))
        columns = [[[values.get(i, pruned)[k] for i in particles] for _, values in rows] for k in range(len(pruned))]
        named: dict[str, Any] = {"terms": dict(zip(self.terms, columns[2:]))} if self.terms else {}
        distances = [_mean_distance(rounds) for rounds, _ in rows]
        return {"pairwise_distance": distances, "psnr": columns[0], "loss": columns[1], **named}


def _known(values: list[float]) -> list[float]:
    """Without those of diverged particles, unless that leaves none."""
    return [value for value in values if not math.isnan(value)] or [math.nan]


def _mean_distance(rounds: list[tuple[float, int]]) -> float:
    """Over the pairs of all rounds, NaN where none is known."""
    of_rounds = [(distance, pairs) for distance, pairs in rounds if not math.isnan(distance)]
    if len(of_rounds) < 2:
        return of_rounds[0][0] if of_rounds else math.nan
    return math.fsum(distance * pairs for distance, pairs in of_rounds) / sum(pairs for _, pairs in of_rounds)
