"""Magnitudes that come from counts: k = photons y^2 of mean mu = photons m^2 + background.

    poisson    2 sigma^2 sum(mu - k + k log(k / mu)), the deviance of the counts
    amplitude  4 sigma^2 |sqrt(mu + 1/8) - sqrt(k + 3/8)|^2: the counts' root has variance 1/4 and the mean of the model's.
               Anscombe, Biometrika 35 (1948)

With a free exposure mu = s photons m^2 + background, s = (sum k - n background) / sum photons m^2: the maximum of the
likelihood for a small background. The floor depends on what is measured, so each measurement adds a number whose expectation
is that of the value at the unknown truth (operators/floors.py).
"""

from abc import abstractmethod

import numpy as np
import scipy  # its parts load when they are first used, and the statistics take as long as half of torch
import torch

from operators.floors import count_tables, look_up
from operators.term import Term, mean, total


class Counts(Term):
    """photons: counts at m = 1; background: counts that are not the object's, > 0."""

    needs = "spectrum"
    knows_scale = True

    def __init__(self, sigma: float, photons: float, background: float) -> None:
        super().__init__(sigma)
        self.photons, self.background = photons, background
        for name, values in count_tables(min(background, 1.0), self.statistic).items():
            self.register_buffer(name, torch.from_numpy(values))

    @staticmethod
    @abstractmethod
    def statistic(n: np.ndarray, mu: np.ndarray) -> np.ndarray:
        """The value in units of sigma^2 of counts n whose mean is mu."""

    def counts(self, y: torch.Tensor) -> torch.Tensor:
        return self.photons * y.clamp(min=0).square()

    def model(self, m: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """The mean counts mu."""
        unscaled = self.photons * m.square()
        if self.free_scale:
            unscaled = unscaled * self.exposure(unscaled, y, known)
        return unscaled + self.background

    def exposure(self, unscaled: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """s of each particle, shaped to broadcast; unscaled: photons m^2."""
        signal = mean(torch.where(known, self.counts(y), 0.0), known) - self.background
        return signal.clamp(min=1e-6) / mean(torch.where(known, unscaled, 0.0), known).clamp(min=1e-6)

    def exposure_of(self, m: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor | None:
        return self.exposure(self.photons * m.square(), y, known).flatten() if self.free_scale else None

    def residual(self, m: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return 2 * self.sigma * (self.photons * m.square() + self.background + 3 / 8).sqrt()

    def measured(self, m: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """sqrt(counts / photons), the counts being the Poisson quantile of `noise`."""
        rank = scipy.special.ndtr(noise.double().cpu().numpy())
        counts = scipy.stats.poisson.ppf(rank, (self.photons * m.double().square() + self.background).cpu().numpy())
        return torch.from_numpy(np.sqrt(counts / self.photons)).to(m.device, m.dtype)

    def floor(self, y: torch.Tensor, known: torch.Tensor, axis: int) -> torch.Tensor:
        return self.sigma**2 * total(look_up(self.get_buffer("mean"), self.counts(y)), known, axis)

    def spread(self, y: torch.Tensor, known: torch.Tensor, axis: int) -> torch.Tensor:
        return self.sigma**2 * total(look_up(self.get_buffer("variance"), self.counts(y)), known, axis).clamp(min=0).sqrt()


class Poisson(Counts):
    @staticmethod
    def statistic(n: np.ndarray, mu: np.ndarray) -> np.ndarray:
        return 2 * (mu - n + scipy.special.xlogy(n, n) - n * np.log(mu))

    def value(self, m: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        mu, k = self.model(m, y, known), self.counts(y)
        more = mu - k  # k log(k / mu) - (k - mu) loses all its digits where both are large
        share = more / k.clamp(min=1e-6)
        dark = share < -0.5  # where log1p in turn has none left, and at -1 no gradient
        near, far = torch.where(dark, 0.0, share), torch.where(dark, mu / k.clamp(min=1e-6), 1.0)
        return 2 * self.sigma**2 * (more - k * (near.log1p() + far.log()))


class Amplitude(Counts):
    @staticmethod
    def statistic(n: np.ndarray, mu: np.ndarray) -> np.ndarray:
        return 4 * (np.sqrt(mu + 1 / 8) - np.sqrt(n + 3 / 8)) ** 2

    def value(self, m: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        mu, k = self.model(m, y, known), self.counts(y)
        return 4 * self.sigma**2 * ((mu + 1 / 8).sqrt() - (k + 3 / 8).sqrt()).square()
