"""Blur by a known kernel, Gaussian or of a shaken camera."""

import math
from collections.abc import Sequence

import numpy as np
import scipy.ndimage
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from operators.base import Operator
from utils.noise import keyed_generator


class Blur(Operator):
    """A(x) = k * pad(x) per colour channel: cross-correlation, the image reflected by half the kernel at its borders.

    kernels: list of arrays (kh, kw), kh and kw odd, applied one after the other, so a separable kernel costs two
             lines instead of a square. Their halves must be smaller than the image.
    """

    linear = True
    separable = True

    def __init__(self, kernels: Sequence[NDArray[np.float64]], sigma: float) -> None:
        super().__init__(sigma)
        for i, kernel in enumerate(kernels):
            self.register_buffer(f"kernel{i}", torch.from_numpy(kernel).float()[None, None])  # (1, 1, kh, kw)
        self.count = len(kernels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        single = x.reshape(-1, 1, *x.shape[-2:])  # (P C, 1, H, W): every channel gets the same kernel
        for i in range(self.count):
            kernel = getattr(self, f"kernel{i}")
            half_y, half_x = kernel.shape[-2] // 2, kernel.shape[-1] // 2
            single = F.conv2d(F.pad(single, (half_x, half_x, half_y, half_y), mode="reflect"), kernel)
        return single.reshape(x.shape)


class GaussianBlur(Blur):
    """k = normalised Gaussian of standard deviation `intensity` pixels, cut at 4 standard deviations.

    Source: DAPS, forward_operator/__init__.py, GaussianBlur (scipy's gaussian_filter of a unit impulse).

    kernel_size: side of the kernel in pixels, odd; intensity: > 0; sigma: standard deviation of the noise, >= 0
    """

    def __init__(self, kernel_size: int = 61, intensity: float = 3.0, sigma: float = 0.05) -> None:
        impulse = np.zeros(kernel_size)
        impulse[kernel_size // 2] = 1
        line = scipy.ndimage.gaussian_filter1d(impulse, intensity)
        super().__init__([line[:, None], line[None]], sigma)


class MotionBlur(Blur):
    """k = the blurred path of a shaken camera, normalised; the same for every image of a run, decided by `seed`.

    Source: DAPS, forward_operator/motionblur (Borodenko's motionblur), with `seed` in place of NumPy's global state.

    kernel_size: side of the kernel in pixels, odd
    intensity:   0 = straight path, 1 = very crooked
    sigma:       standard deviation of the noise, >= 0
    """

    def __init__(self, kernel_size: int = 61, intensity: float = 0.5, seed: int = 42, sigma: float = 0.05) -> None:
        super().__init__([motion_kernel(keyed_generator(seed, "kernel"), kernel_size, intensity)], sigma)


def motion_kernel(generator: np.random.Generator, size: int, intensity: float) -> NDArray[np.float64]:
    """(size, size) float64 array, sum 1: the path drawn at twice the size, smoothed, and reduced."""
    diagonal = 2 * size * math.sqrt(2)
    path = motion_path(generator, diagonal, intensity) + size * (1 + 1j)  # its centre of mass in the middle
    canvas = Image.new("L", (2 * size, 2 * size))
    ImageDraw.Draw(canvas).line([(float(p.real), float(p.imag)) for p in path], fill=255, width=max(1, int(diagonal / 150)))
    canvas = canvas.filter(ImageFilter.GaussianBlur(int(diagonal * 0.01))).resize((size, size), Image.Resampling.LANCZOS)
    kernel = np.asarray(canvas, dtype=np.float64)
    return kernel / kernel.sum()


def motion_path(generator: np.random.Generator, diagonal: float, intensity: float) -> NDArray[np.complex128]:
    """Points of the path as complex numbers around 0.

    Length 0.75 d (U(0, 1) + U(0, intensity^2)), steps d (1.1 - intensity) Beta(1, 30), d the diagonal; the direction
    of each step is triangular in [0, amax + 0.1] with mode intensity amax, amax ~ U(0, intensity pi), and changes
    side with a probability drawn from Beta(2, 20).
    """
    length = 0.75 * diagonal * (generator.uniform() + generator.uniform(0, intensity**2))
    steps: list[float] = []
    while sum(steps) < length:
        step = generator.beta(1, 30) * (1.1 - intensity) * diagonal
        if step < length:
            steps.append(step)
    largest = generator.uniform(0, intensity * math.pi)
    turn = generator.beta(2, 20)
    angles = [generator.uniform(-largest, largest)]
    while len(angles) < len(steps):
        angle = generator.triangular(0, intensity * largest, largest + 0.1)
        side = -1 if generator.uniform() < turn else 1
        angles.append(angle * side * np.sign(angles[-1]))
    path = np.cumsum(np.array(steps) * np.exp(1j * np.array(angles)))
    return (path - path.mean()) * np.exp(1j * generator.uniform(0, math.pi))
