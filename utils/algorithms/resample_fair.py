"""ReSample with its two faults mended, so that a comparison is with the method and not with them. `sampler=resample_fair`.

An optimisation stops where the mean squared residual falls below that of the true image, the noise's variance, for each
particle; and the clean latent is Tweedie's formula with each step's own a: pseudo = (z - sqrt(1 - a) eps) / sqrt(a).
All else is utils/algorithms/resample.py. Source: Song et al., arXiv 2307.08123.
"""

import torch

from operators.base import measurements
from utils.algorithms.ddim import Level, tweedie
from utils.algorithms.resample import ReSample


class FairReSample(ReSample):
    lag = 0

    def estimate(self, z: torch.Tensor, eps: torch.Tensor, level: Level) -> torch.Tensor:
        return tweedie(z, eps, level)

    def limit(self, y: torch.Tensor) -> torch.Tensor:
        return self.operator.noise_floor(y) / measurements(y)
