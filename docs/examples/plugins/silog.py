"""A term for magnitudes over many decades: relative errors, which below the noise become absolute ones.

    sigma^2 sum (d - mean d)^2,  d = log(m + sigma) - log(max(y, 0) + sigma)

The scale-invariant error of Eigen et al., arXiv 1406.2283, eq. 1; epsilon is sigma, so that it is |m - y|^2 where both are
far below the noise. It fits a factor, in the logarithm. Measured: docs/research/log.md.

    python posterior_sample.py --config-dir docs/examples/plugins experiment=silog
"""

from collections.abc import Callable

import numpy as np
import torch

from operators.floors import look_up, unbiased
from operators.term import Term, mean, total

EDGE, TAIL, STEP = 5.0, 25.0, 0.25  # of its table: values from -EDGE to TAIL, in sigma


class Silog(Term):
    needs = "spectrum"

    def __init__(self, sigma: float) -> None:
        super().__init__(sigma)
        for name, values in tables().items():
            self.register_buffer(name, torch.from_numpy(values))

    def value(self, m: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        d = torch.where(known, (m + self.sigma).log() - (y.clamp(min=0) + self.sigma).log(), 0.0)
        return self.sigma**2 * (d - mean(d, known)).square()

    def residual(self, m: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return self.sigma * (m + self.sigma).log()

    def expected(self, moment: str, y: torch.Tensor) -> torch.Tensor:
        """What a measurement y adds to a floor; beyond the table's end the leading order in sigma / y."""
        level = y.clamp(min=-EDGE * self.sigma) / self.sigma
        tails = {"first": 0 * level, "square": 1 / (1 + level) ** 2, "variance": 2 / (1 + level) ** 4}
        return torch.where(level > TAIL, tails[moment], look_up(self.get_buffer(moment), (level + EDGE) / STEP))

    def floor(self, y: torch.Tensor, known: torch.Tensor, axis: int) -> torch.Tensor:
        """Each measurement adds a number whose expectation is that of the value at the unknown truth."""
        first, square = self.expected("first", y), self.expected("square", y)
        centre = mean(torch.where(known, first, 0.0), known)
        return self.sigma**2 * total(square - 2 * centre * first + centre**2, known, axis)

    def spread(self, y: torch.Tensor, known: torch.Tensor, axis: int) -> torch.Tensor:
        return self.sigma**2 * total(self.expected("variance", y), known, axis).clamp(min=0).sqrt()


def tables() -> dict[str, np.ndarray]:
    """Of values y / sigma from -EDGE to TAIL: first and second moment of d, and the variance of d^2 over that second moment."""
    places, levels = np.arange(-EDGE, TAIL + STEP, STEP), np.concatenate([np.zeros(20), np.linspace(0, TAIL - 5, 120)])
    e = np.linspace(-6, 6, 1201)
    weight = np.exp(-(e**2) / 2)
    weight /= weight.sum()

    def nearest(level: np.ndarray) -> np.ndarray:
        """The table's place of each draw, (levels, draws)."""
        return np.clip(np.round((level[:, None] + e + EDGE) / STEP), 0, len(places) - 1).astype(int)

    def d(level: np.ndarray) -> np.ndarray:
        return np.log((level[:, None] + 1) / (np.maximum(level[:, None] + e, 0) + 1))

    probability = np.stack([np.bincount(row, weight, len(places)) for row in nearest(levels)])

    def table(value: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        expected, at_places = (value(level) @ weight for level in (levels, np.maximum(places, 0)))
        return unbiased(expected, probability, at_places)

    square = table(lambda level: d(level) ** 2)
    return {
        "first": table(d),
        "square": square,
        "variance": table(lambda level: (d(level) ** 2 - square[nearest(level)]) ** 2),
    }
