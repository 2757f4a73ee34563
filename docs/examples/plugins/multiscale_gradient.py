"""A term for soft edges, of a measurement that is an image: how far the edges of m - y are off at four scales.

    n sigma times the multi-scale gradient error of m - y (operators/gradients.py), n measurements

That error is the score gradient_error of every run as well. As a term it sharpened nothing: docs/research/log.md.

    python posterior_sample.py --config-dir docs/examples/plugins experiment=multiscale_gradient task=gaussian_blur
"""

import numpy as np
import torch

from operators.gradients import multi_scale_gradient
from operators.term import Term, number_of
from utils.noise import keyed_generator

DRAWS = 16  # of noise, for the floor


class MultiscaleGradient(Term):
    """No sum of squares, so it has no residual."""

    needs = "image"

    def value(self, m: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return self.scaled(multi_scale_gradient(torch.where(known, m - y, 0.0), known), known)  # (P, C)

    def scaled(self, error: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return self.sigma * number_of(known, error.dtype)[:, None] * error

    def draws(self, y: torch.Tensor, known: torch.Tensor, axis: int) -> torch.Tensor:
        """Values of the noise alone, (DRAWS, P), or (DRAWS, P, C) with axis 2."""
        noise = keyed_generator(0, "floor").standard_normal((DRAWS, *y.shape[1:]), dtype=np.float32)
        noise = self.sigma * torch.from_numpy(noise).to(y.device, y.dtype)
        values = torch.stack([self.scaled(multi_scale_gradient(torch.where(known, e, 0.0), known), known) for e in noise])
        return values if axis == 2 else values.sum(2)

    def floor(self, y: torch.Tensor, known: torch.Tensor, axis: int) -> torch.Tensor:
        return self.draws(y, known, axis).mean(0)

    def spread(self, y: torch.Tensor, known: torch.Tensor, axis: int) -> torch.Tensor:
        return self.draws(y, known, axis).std(0)
