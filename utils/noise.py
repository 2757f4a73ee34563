"""Keyed noise: every random number is a function of (seed, image id, particle index, purpose, step).

Drawn on the CPU from the counter-based generator Philox and moved to the device, so a particle's noise depends
neither on the batch, on other particles, on who is left, on sharding or resuming, nor on the device.
Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch

# The number is part of the key: changing one changes every result that uses it.
PURPOSES = {
    "measurement": 0,
    "initial": 1,
    "annealing": 2,
    "mcmc": 3,
    "velocity": 4,
    "exchange": 5,
    "branch": 8,
    "start": 10,  # of a classical solver: utils/sampling/phase_solvers.py
    "certificate": 9,
    "continuation": 11,  # of a chain after its run: utils/diagnosis/convergence.py
    "truth": 40,  # drawn from the prior: tools/calibration.py
    "mask": 32,
    "kernel": 33,
    "floor": 34,
}


def keyed_generator(seed: int, purpose: str, image: int = 0, particle: int = 0, step: int = 0) -> np.random.Generator:
    """A NumPy generator that only these decide; all key parts are integers in [0, 2^32).

    For what belongs to a whole run, such as an operator's mask or kernel, image, particle and step stay 0.
    """
    for name, part in (("seed", seed), ("image", image), ("particle", particle), ("step", step)):
        if not 0 <= part < 2**32:
            raise ValueError(f"{name}={part}: a part of the noise's key lies in [0, 2^32)")
    key = np.array([seed, (image << 32) | particle], dtype=np.uint64)
    # the two low counter words run while numbers are drawn, the two high ones are ours
    counter = np.array([0, 0, step, PURPOSES[purpose]], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


@contextmanager
def keyed_globals(seed: int, purpose: str) -> Iterator[None]:
    """Inside, torch's (CPU) and NumPy's global state follow the key; for code of others that draws from them."""
    start = int(keyed_generator(seed, purpose).integers(2**32))
    state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(start)
        np.random.seed(start)
        try:
            yield
        finally:
            np.random.set_state(state)


def keyed_normal(seed: int, image: int, particle: int, purpose: str, step: int, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers, float32 array of `shape`."""
    return keyed_generator(seed, purpose, image, particle, step).standard_normal(shape, dtype=np.float32)


class Numbered(Protocol):
    """What draws its noise by number: utils.sampling.particles.Particles."""

    z: torch.Tensor
    image: torch.Tensor
    index: torch.Tensor


class KeyedNoise:
    """Noise for all particles of a batch at once."""

    def __init__(self, seed: int) -> None:
        self.seed = int(seed)

    def of_level(self, resolution: int) -> "KeyedNoise":
        """That of a level of so many pixels at which an image is solved first: levels share no numbers."""
        return KeyedNoise((self.seed + resolution * 0x9E3779B9) % 2**32)

    def draw(self, particles: Numbered, purpose: str, step: int = 0, count: int | None = None) -> torch.Tensor:
        """Noise like `particles.z`, (P, C, h, w), or (count, P, C, h, w) for `count` iterations of one step."""
        shape = tuple(particles.z.shape[1:]) if count is None else (count, *particles.z.shape[1:])
        arrays = [
            keyed_normal(self.seed, image, index, purpose, step, shape)
            for image, index in zip(particles.image.tolist(), particles.index.tolist())
        ]
        stacked = torch.from_numpy(np.stack(arrays, axis=0 if count is None else 1))
        return stacked.to(particles.z.device, particles.z.dtype)

    def measurement(self, image: int, shape: Sequence[int]) -> torch.Tensor:
        """Measurement noise of one image, CPU tensor of `shape`; the same for all its particles."""
        return torch.from_numpy(keyed_normal(self.seed, int(image), 0, "measurement", 0, tuple(shape)))

    def uniform(self, image: int, purpose: str, shape: Sequence[int]) -> torch.Tensor:
        """Numbers in [0, 1) of one image, float32 CPU tensor of `shape`; the first rows are those of a shorter shape."""
        return torch.from_numpy(keyed_generator(self.seed, purpose, int(image)).random(tuple(shape), dtype=np.float32))
