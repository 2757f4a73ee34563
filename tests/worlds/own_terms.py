"""Terms of one's own: one that keeps the contract, and others that each break it in one way."""

import torch

from operators.term import Term, number_of


class Squares(Term):
    """The squared residual anew."""

    def value(self, m, y, known):
        return (m - y).square()

    def residual(self, m, y, known):
        return m - y

    def floor(self, y, known, axis):
        return self.sigma**2 * number_of(known, y.dtype, axis)

    def spread(self, y, known, axis):
        return self.sigma**2 * (2 * number_of(known, y.dtype, axis)) ** 0.5


class Whole(Squares):
    """One that says nothing of single channels."""

    separable = False

    def value(self, m, y, known):
        return torch.where(known, m - y, 0.0).square().flatten(1).sum(1)


class OfImages(Squares):
    needs = "image"


class OfSpectra(Squares):
    needs = "spectrum"


class Scaled(Squares):
    """One with an argument of its own, and an exposure that it takes as 1."""

    knows_scale = True

    def __init__(self, sigma, factor):
        super().__init__(sigma)
        self.factor = factor

    def value(self, m, y, known):
        return self.factor * super().value(m, y, known)


class OneNumber(Squares):
    def value(self, m, y, known):
        return super().value(m, y, known).sum()


class OneNumberAnImage(Squares):
    """Says that it is separable."""

    def value(self, m, y, known):
        return super().value(m, y, known).flatten(1).sum(1)


class CutValue(Squares):
    def value(self, m, y, known):
        return super().value(m, y, known).detach()


class OneFloor(Squares):
    def floor(self, y, known, axis):
        return super().floor(y, known, 1)


class NoTerm:
    def __init__(self, sigma):
        pass
