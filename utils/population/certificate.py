"""A certificate that needs no truth: does a finished particle solve its measurement, or is another one to be started?

Signals of a particle, None where they cannot be known:

    deviation   (loss - floor) / standard deviation of the true image's loss: the verdict of utils/records/verdict.py
    denoising   the prior's denoising loss of its encoding (utils.population.prior_score)
    agreement   its greatest correlation with another finished particle of the image (utils.evaluation.aligned.mutual_agreement)

A particle passes if its deviation is small enough and the prior or another particle speaks for it; an image if one does. The
loss alone does not tell a channel that is turned against the others. Thresholds do not carry over from one prior to
another: tools/calibrate_certificate.py finds them.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from operators.base import Operator
from utils.evaluation.aligned import mutual_agreement, symmetry
from utils.metrics.pixels import to_unit
from utils.population.prior_score import PriorScore
from utils.population.settings import Thresholds
from utils.sampling.outcome import SampleResult

RULE = ("deviation", "denoising", "agreement")
Signals = dict[str, list[float | None]]  # {name: of each particle}


class Verdict(NamedTuple):
    """On the particles of one image that are finished, in the order in which they were started."""

    signals: Signals
    passing: list[bool]


class Certificate:
    """operator: of the run; score: of pictures by the prior."""

    def __init__(self, operator: Operator, score: PriorScore, thresholds: Thresholds) -> None:
        self.operator, self.score, self.thresholds = operator, score, thresholds

    def signals(self, result: SampleResult) -> Signals:
        """Those that a particle has by itself, of all particles of a batch."""
        particles = result.particles
        signals = {"deviation": self.deviation(result.loss, particles.y)}
        signals["denoising"] = self.score(result.image, particles).tolist()
        finite = torch.isfinite(particles.z).flatten(1).all(1) & torch.isfinite(result.image).flatten(1).all(1)
        return {
            name: [value if ok and math.isfinite(value) else None for value, ok in zip(values, finite.tolist())]
            for name, values in signals.items()
        }

    def deviation(self, loss: torch.Tensor, y: torch.Tensor) -> list[float]:
        """Losses (P,) above the floor of y (P, ...), in standard deviations."""
        measured = y.double().cpu()
        floor = self.operator.noise_floor(measured)
        return ((loss.double().cpu() - floor) / (floor * self.operator.floor_spread(measured))).tolist()

    def verdict(self, image: torch.Tensor, signals: Signals) -> Verdict:
        """Of the finished particles of one image, decoded (n, 3, H, W), and their signals; those without take no part."""
        takes_part = torch.tensor([value is not None for value in signals["deviation"]])
        agreement = greatest_agreement(
            agreements(image, self.operator).where(takes_part[:, None] & takes_part[None], torch.nan)
        )
        signals = {**signals, "agreement": agreement}
        rows = zip(signals["deviation"], signals["denoising"], agreement)
        return Verdict(signals, [passes(self.thresholds, *row) for row in rows])


def agreements(image: torch.Tensor, operator: Operator) -> torch.Tensor:
    """How far the particles of one image, (n, 3, H, W) in [-1, 1], agree, (n, n) on the CPU in float64.

    NaN with itself and with one that is not finite.
    """
    fine = torch.isfinite(image).flatten(1).all(1).cpu()
    seen = operator.visible(image.double()).cpu()
    agreement = mutual_agreement(to_unit(seen), symmetry(operator) is not None)
    pairs = fine[:, None] & fine[None] & ~torch.eye(len(image), dtype=torch.bool)
    return torch.where(pairs, agreement, torch.nan)


def greatest_agreement(agreement: torch.Tensor) -> list[float | None]:
    """Of each particle with the one that it agrees with most; None for one that has no other."""
    best = torch.where(torch.isnan(agreement), -torch.inf, agreement).amax(1).tolist()
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
            }
            for start, end, verdict in zip([0, *ends], ends, history)
        ],
        "signals": {
            name: [values[place[index]] if index in place else None for index in particles]
            for name, values in history[-1].signals.items()
        },
        "accepted": any(history[-1].passing),
        "rule": {name: getattr(thresholds, name) for name in RULE},
    }
