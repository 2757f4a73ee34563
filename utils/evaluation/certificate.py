"""A certificate that needs no truth: does a finished particle solve its measurement, or is another one to be started?

Signals of a particle, None where they cannot be known:

    deviation   (loss - floor) / standard deviation of the true image's loss: the verdict of utils/records/verdict.py
    free        the same of the values kept out of the fit, with `free_fraction`
    denoising   the prior's denoising loss of its encoding (utils.sampling.prior_score)
    agreement   its greatest correlation with another finished particle of the image (utils.evaluation.aligned.mutual_agreement)

A particle passes if its deviation is small enough and the prior or another particle speaks for it; an image if one does. The
loss alone does not tell a channel that is turned against the others. Thresholds do not carry over from one prior to
another: tools/calibrate_certificate.py finds them.
"""

import math
from collections.abc import Sequence
from itertools import compress
from typing import Any, Protocol

import torch

from operators.base import Operator
from utils.evaluation.aligned import mutual_agreement, symmetry
from utils.evaluation.scores import to_unit
from utils.sampling.outcome import SampleResult, StepInfo
from utils.sampling.prior_score import PriorScore
from utils.sampling.rounds import Signals, Verdict

RULE = ("deviation", "denoising", "agreement", "stop_step", "stop_deviation")
EARLY = RULE[-2:]  # only in records of runs in which particles may stop early


class Thresholds(Protocol):
    """At most, at most, at least; with neither of these two the deviation decides alone. The last two: when, and at most."""

    deviation: float
    denoising: float | None
    agreement: float | None
    stop_step: int | None
    stop_deviation: float | None


class Certificate:
    """operator: of the run; score: of pictures by the prior."""

    def __init__(self, operator: Operator, score: PriorScore, thresholds: Thresholds) -> None:
        self.operator, self.score, self.thresholds = operator, score, thresholds

    def signals(self, result: SampleResult) -> Signals:
        """Those that a particle has by itself, of all particles of a batch."""
        particles = result.particles
        found = {"deviation": self.deviation(result.loss, particles.y)}
        if particles.free is not None:
            found["free"] = self.deviation(self.operator.loss(result.image, particles.free), particles.free)
        found["denoising"] = self.score(result.image, particles).tolist()
        fine = [all(bool(torch.isfinite(t).all()) for t in each) for each in zip(particles.z, result.image)]
        return {
            name: [value if ok and math.isfinite(value) else None for value, ok in zip(values, fine)]
            for name, values in found.items()
        }

    def hopeless(self, info: StepInfo) -> list[bool]:
        """Which particles are so far above the floor after an annealing step that they stop. One that diverged is."""
        limit = self.thresholds.stop_deviation
        return [limit is not None and not value <= limit for value in self.deviation(info.loss, info.particles.y)]

    def deviation(self, loss: torch.Tensor, y: torch.Tensor) -> list[float]:
        """Losses (P,) above the floor of y (P, ...), in standard deviations."""
        measured = y.double().cpu()
        floor = self.operator.noise_floor(measured)
        return ((loss.double().cpu() - floor) / (floor * self.operator.floor_spread(measured))).tolist()

    def verdict(self, image: torch.Tensor, signals: Signals) -> Verdict:
        """Of the finished particles of one image, decoded (n, 3, H, W), and their signals; those without take no part."""
        known = torch.tensor([value is not None for value in signals["deviation"]])
        agreement = greatest_agreement(agreements(image, self.operator).where(known[:, None] & known[None], torch.nan))
        signals = {**signals, "agreement": agreement}
        rows = zip(signals["deviation"], signals["denoising"], agreement)
        return Verdict(signals, [passes(self.thresholds, *row) for row in rows])


def agreements(image: torch.Tensor, operator: Operator) -> torch.Tensor:
    """How far the particles of one image, (n, 3, H, W) in [-1, 1], agree, (n, n) on the CPU in float64.

    NaN with itself and with one that is not finite.
    """
    fine = torch.isfinite(image).flatten(1).all(1).cpu()
    found = mutual_agreement(to_unit(image.double().cpu()), symmetry(operator) is not None)
    pairs = fine[:, None] & fine[None] & ~torch.eye(len(image), dtype=torch.bool)
    return torch.where(pairs, found, torch.nan)


def greatest_agreement(found: torch.Tensor) -> list[float | None]:
    """Of each particle with the one that it agrees with most; None for one that has no other."""
    best = torch.where(torch.isnan(found), -torch.inf, found).amax(1).tolist()
    return [value if math.isfinite(value) else None for value in best]


def passes(t: Thresholds, deviation: float | None, denoising: float | None, agreement: float | None) -> bool:
    """The rule. What is not known speaks for nothing."""
    if deviation is None or deviation > t.deviation:
        return False
    if t.denoising is None and t.agreement is None:
        return True
    likely = t.denoising is not None and denoising is not None and denoising <= t.denoising
    return likely or (t.agreement is not None and agreement is not None and agreement >= t.agreement)


def block(history: Sequence[Verdict], survivors: Sequence[int], particles: range, thresholds: Thresholds) -> dict[str, Any]:
    """`population` of one image's record: its rounds, the signals at the end per particle, and the rule.

    history: the verdicts after each round, on all particles so far; survivors: the numbers of those started; particles:
    the numbers of all that may be, which the lists of signals follow.
    """
    ends = [len(verdict.passing) for verdict in history]
    place = {index: at for at, index in enumerate(survivors)}
    return {
        "rounds": [
            {
                "particles": list(survivors[start:end]),
                "passing": [index for index, ok in zip(survivors, verdict.passing) if ok],
                **({"stopped": list(compress(survivors[start:], verdict.stopped[start:]))} if verdict.stopped else {}),
            }
            for start, end, verdict in zip([0, *ends], ends, history)
        ],
        "signals": {
            name: [values[place[index]] if index in place else None for index in particles]
            for name, values in history[-1].signals.items()
        },
        "accepted": any(history[-1].passing),
        "rule": {name: getattr(thresholds, name) for name in RULE if name not in EARLY or history[-1].stopped},
    }
