"""Soft-edged shapes on a small square canvas: what the demo images are drawn with.

Coordinates run from -1 (left, top) to 1 (right, bottom). A mask is a (side, side) array in [0, 1];
its edge is about one pixel wide, so shapes are anti-aliased without supersampling.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Frame = tuple[Array, Array]  # (x, y) of every pixel, rotated or bent


class Canvas:
    """An RGB picture in [0, 1], (side, side, 3), painted from back to front."""

    def __init__(self, side: int) -> None:
        centres = (np.arange(side) + 0.5) / side * 2 - 1
        self.y, self.x = np.meshgrid(centres, centres, indexing="ij")
        self.edge = 1.1 / side
        self.pixels = np.zeros((side, side, 3))

    def inside(self, signed_distance: Array, softness: float = 1.0) -> Array:
        """Mask (side, side) of the points whose signed distance, (side, side), is positive."""
        return 1.0 / (1.0 + np.exp(-np.clip(signed_distance / (self.edge * softness), -60.0, 60.0)))

    def ellipse(
        self,
        cx: float,
        cy: float,
        a: float | Array,
        b: float | Array,
        power: float = 2.0,
        softness: float = 1.0,
        frame: Frame | None = None,
    ) -> Array:
        """Superellipse |x/a|^p + |y/b|^p < 1; `frame` is an (x, y) pair of rotated or bent coordinates."""
        x, y = frame if frame is not None else (self.x, self.y)
        radius = ((np.abs((x - cx) / a) + 1e-6) ** power + (np.abs((y - cy) / b) + 1e-6) ** power) ** (1 / power)
        return self.inside((1 - radius) * np.minimum(a, b), softness)

    def segment(
        self, x0: float, y0: float, x1: float, y1: float, width: float, softness: float = 1.0, frame: Frame | None = None
    ) -> Array:
        """Line from (x0, y0) to (x1, y1) with round ends and the given half-width."""
        x, y = frame if frame is not None else (self.x, self.y)
        dx, dy = x1 - x0, y1 - y0
        t = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
        return self.inside(width - np.hypot(x - x0 - t * dx, y - y0 - t * dy), softness)

    def paint(self, mask: Array, colour: Array | Sequence[float], opacity: float = 1.0) -> None:
        """Blend `colour`, (3,) or (side, side, 3), over the picture."""
        m = (mask * opacity)[..., None]
        self.pixels = self.pixels * (1 - m) + m * np.clip(colour, 0, 1)

    def shade(self, factor: Array) -> None:
        """Multiply the picture by a (side, side) brightness."""
        self.pixels = self.pixels * factor[..., None]


class Draws:
    """The random numbers of one image: a Philox stream keyed by (family, seed) and the image's index."""

    def __init__(self, family_code: int, seed: int, index: int) -> None:
        key = np.array([(int(seed) << 8) | family_code, int(index)], dtype=np.uint64)
        self._rng = np.random.Generator(np.random.Philox(key=key))

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self._rng.random()

    def chance(self, probability: float) -> bool:
        return self._rng.random() < probability

    def pick(self, count: int) -> int:
        return int(self._rng.random() * count)

    def hsv(self, saturation: tuple[float, float] = (0.2, 0.8), value: tuple[float, float] = (0.3, 0.95)) -> Array:
        """A colour of random hue, (3,)."""
        hue, s, v = self.between(0, 6), self.between(*saturation), self.between(*value)
        k = (np.array([5.0, 3.0, 1.0]) + hue) % 6
        return v - v * s * np.clip(np.minimum(k, 4 - k), 0, 1)

    def palette(self, colours: Sequence[Sequence[float]], jitter: float = 0.03) -> Array:
        """A colour between two entries of a palette, slightly varied, (3,)."""
        first, second = colours[self.pick(len(colours))], colours[self.pick(len(colours))]
        weight = self._rng.random() ** 2
        mixed = np.asarray(first) * (1 - weight) + np.asarray(second) * weight
        return np.clip(mixed + jitter * (2 * self._rng.random(3) - 1) * 1.7, 0.02, 0.98)
