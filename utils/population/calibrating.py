"""Thresholds of a certificate from finished particles whose success is known, and honest rates of what they decide.

A particle passes with a deviation of at most d and a denoising loss of at most s or an agreement of at least a (the rule of
utils/population/certificate.py). Over images, of which each has the n particles of a run:

    wrong    the image is accepted, and the particle of the lowest loss among those that pass is no success
    failed   its pick, accepted or the lowest loss of all started, is no success
    missed   it is not accepted, although one of the particles started is a success
    started  particles of an image: each round starts some, until one passes
    psnr     of its pick

The thresholds are those of the fewest particles started (then missed, then wrong images) whose wrong images are at most a
given share, or those of the fewest failed images for a given number of particles. Rates of such a choice on the images that
it was made on flatter it; so each image is decided by the choice made without it. Particles are exchangeable, and each is once
the first: an image counts by its mean over the n rotations of their order, and over seeds.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DEVIATIONS = (-1e9, 1.0, 2.0, 3.0, 4.0, 6.0, 10.0)  # the first accepts nothing
USUAL = 3.0  # of equal ones the nearest to it: utils.records.verdict.WITHIN
AGREEMENTS = (None, 0.995, 0.99, 0.98, 0.97, 0.95, 0.9)
MOST_SCORES = 40  # thresholds of the denoising loss that are tried


class FinishedParticles(NamedTuple):
    """The n finished particles of one image under one seed; NaN: not known."""

    image: tuple  # what tells the image from others, seeds apart
    loss: np.ndarray  # (n,)
    deviation: np.ndarray  # (n,)
    denoising: np.ndarray  # (n,)
    agreement: np.ndarray  # (n, n)
    success: np.ndarray  # (n,) bool
    psnr: np.ndarray  # (n,) in dB, in the better orientation


class Thresholds(NamedTuple):
    deviation: float
    denoising: float | None
    agreement: float | None


class Outcome(NamedTuple):
    """Shares over images; means of the particles started, and of the pick's PSNR."""

    accepted: float
    wrong: float
    failed: float
    missed: float
    started: float
    psnr: float


class Choice(NamedTuple):
    thresholds: Thresholds
    on_the_same_images: Outcome  # on the images that it was chosen on
    without: Outcome  # each image decided by the choice made without it, among candidates that know all images' scores


class Sequences:
    """All images' particles in all orders, as arrays of M rows, for rounds of given sizes; the rest is not started."""

    def __init__(self, groups: Sequence[FinishedParticles], sizes: Sequence[int]) -> None:
        n, self.ends = len(groups[0].loss), np.cumsum(sizes)
        orders = [np.roll(np.arange(n), -first)[: self.ends[-1]] for first in range(n)]
        rows = [(g, order) for g in groups for order in orders]
        names = ("loss", "deviation", "denoising", "success", "psnr")
        self.loss, self.deviation, self.denoising, self.success, self.psnr = (
            np.stack([getattr(g, name)[order] for g, order in rows]) for name in names
        )
        pairs = np.stack([g.agreement[np.ix_(order, order)] for g, order in rows])
        self.pairs = np.where(np.isnan(pairs), -np.inf, pairs)  # (M, n, n)
        self.started = np.arange(self.ends[-1])[None] < self.ends[:, None]  # (rounds, n): by the end of each
        images = list(dict.fromkeys(g.image for g in groups))
        self.of_image = np.array([images.index(g.image) for g, _ in rows])

    def decide(self, t: Thresholds) -> np.ndarray:
        """(images, 6): accepted, wrong, failed, missed, started, psnr, each the mean over an image's rows."""
        fits, likely = self.deviation <= t.deviation, np.zeros_like(self.success)
        if t.denoising is not None:
            likely = self.denoising <= t.denoising
        agrees = np.zeros((1, 1, 1), bool)
        if t.agreement is not None:
            # (M, rounds, n): the greatest with one of those that are finished after the round
            agrees = np.stack([self.pairs[:, :, :end].max(2) for end in self.ends], axis=1) >= t.agreement
        passing = fits[:, None] & self.started[None]
        if t.denoising is not None or t.agreement is not None:
            passing = passing & (likely[:, None] | agrees)
        after = passing.any(2)  # (M, rounds)
        accepted, last = after.any(1), np.where(after.any(1), after.argmax(1), len(self.ends) - 1)
        rows = np.arange(len(accepted))
        finished = self.started[last] & np.isfinite(self.loss)
        may_be_picked = np.where(accepted[:, None], passing[rows, last], finished)
        picked = np.where(may_be_picked, self.loss, np.inf).argmin(1)
        failed = ~(self.success & may_be_picked)[rows, picked]
        wrong = accepted & failed
        missed = ~accepted & self.success.any(1)
        return self._per_image(accepted, wrong, failed, missed, self.ends[last], self.psnr[rows, picked])

    def picked_wrong(self) -> float:
        """Share of images whose particle of the lowest loss, of all that may be started, is no success."""
        picked = np.where(np.isnan(self.loss), np.inf, self.loss).argmin(1)
        return float(self._per_image(~self.success[np.arange(len(picked)), picked])[:, 0].mean())

    def _per_image(self, *values: np.ndarray) -> np.ndarray:
        """(images, len(values)): means over an image's rows, of the known ones; NaN where none is known."""
        means = []
        for value in values:
            known = ~np.isnan(value.astype(float))
            total = np.bincount(self.of_image, weights=np.where(known, value, 0.0))
            count = np.bincount(self.of_image, weights=known)
            means.append(np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0))
        return np.stack(means, axis=1)


def candidates(groups: Sequence[FinishedParticles], agreement: bool = True) -> list[Thresholds]:
    """What is tried, the usual deviation first: of the denoising loss the middles between particles that succeed and others.

    agreement: whether another particle may speak for one.
    """
    score, success = (np.concatenate([getattr(g, name) for g in groups]) for name in ("denoising", "success"))
    has_score = np.isfinite(score)
    order = np.argsort(score[has_score], kind="stable")
    score, success = score[has_score][order], success[has_score][order]
    between = (score[:-1] + score[1:]) / 2
    changes = between[success[:-1] != success[1:]]
    if len(score) and success[-1]:
        changes = np.append(changes, score[-1] * 1.05)
    if len(changes) > MOST_SCORES:
        changes = changes[np.linspace(0, len(changes) - 1, MOST_SCORES).round().astype(int)]
    scores = [None, *(float(f"{value:.5g}") for value in changes)]
    deviations = sorted(DEVIATIONS, key=lambda d: abs(d - USUAL))
    candidates = [Thresholds(*each) for each in itertools.product(deviations, scores, AGREEMENTS if agreement else (None,))]
    return [t for t in candidates if t.denoising is not None or t.agreement is not None or t.deviation == DEVIATIONS[0]]


class Aim(NamedTuple):
    """What thresholds are chosen for: the fewest particles, or, with `started`, the fewest failed images for these."""

    wrong: float = 0.02  # share of the images that may be wrong at most
    started: float | None = None  # particles of an image on average; `wrong` then bounds nothing
    agreement: bool = True  # whether another particle may speak for one


def calibrate(groups: Sequence[FinishedParticles], sizes: Sequence[int], aim: Aim) -> Choice:
    """The thresholds for rounds of these sizes."""
    sequences, tried = Sequences(groups, sizes), candidates(groups, aim.agreement)
    outcomes = np.stack([sequences.decide(t) for t in tried])  # (tried, images, 6)
    chosen = best(outcomes.mean(1), aim)
    images = outcomes.shape[1]
    without = []
    for i in range(images):  # a single image is decided by what was chosen on it
        others = (outcomes.sum(1) - outcomes[:, i]) / (images - 1) if images > 1 else outcomes.mean(1)
        without.append(outcomes[best(others, aim), i])
    return Choice(tried[chosen], _outcome(outcomes[chosen]), _outcome(np.stack(without)))


def best(outcomes: np.ndarray, aim: Aim) -> int:
    """The row of mean outcomes (tried, 6) to choose; the first of equal ones."""
    _, wrong, failed, missed, started, _ = np.round(outcomes.T, 9)  # sums without an image differ from sums by rounding
    if aim.started is None:
        allowed, keys = wrong <= aim.wrong, np.stack([started, missed, wrong], axis=1)
    else:
        allowed = started <= max(aim.started, started.min())
        keys = np.stack([failed, wrong, started], axis=1)
    return min(np.flatnonzero(allowed).tolist(), key=lambda row: tuple(keys[row]))


def applied(groups: Sequence[FinishedParticles], sizes: Sequence[int], t: Thresholds) -> Outcome:
    """What thresholds that were not chosen on these images decide."""
    return _outcome(Sequences(groups, sizes).decide(t))


def _outcome(per_image: np.ndarray) -> Outcome:
    """Over images; the PSNR is that of the images whose pick is known."""
    *shares, psnr = per_image.T
    known = psnr[np.isfinite(psnr)]
    return Outcome(*(float(share.mean()) for share in shares), float(known.mean()) if len(known) else math.nan)
