"""Keyed noise: a draw depends on seed, image, particle, purpose and step, and on nothing else."""

import numpy as np
import pytest
import torch

from utils.noise import PURPOSES, KeyedNoise, keyed_normal
from utils.sampling.particles import Particles


def particles(images, num_samples, first=0):
    return Particles.start(torch.zeros(len(images), 1), images, num_samples, first, (4, 2, 2), torch.float32)


def test_noise_does_not_depend_on_the_company():
    noise = KeyedNoise(42)
    batch = noise.draw(particles([3, 8], 4), "mcmc", step=5, count=3)  # (3, 8, 4, 2, 2)
    single = noise.draw(particles([8], 1, first=2), "mcmc", step=5, count=3)
    assert torch.equal(batch[:, 6:7], single)


def test_every_part_of_the_key_matters():
    base = dict(seed=1, image=2, particle=3, purpose="initial", step=4)
    changed = [{**base, key: base[key] + 1} for key in ("seed", "image", "particle", "step")]
    changed += [{**base, "purpose": purpose} for purpose in PURPOSES if purpose != "initial"]
    reference = keyed_normal(**base, shape=64)
    assert np.array_equal(reference, keyed_normal(**base, shape=64))
    for key in changed:
        assert abs(np.corrcoef(reference, keyed_normal(**key, shape=64))[0, 1]) < 0.6


def test_image_and_particle_do_not_collide():
    streams = {keyed_normal(0, image, particle, "initial", 0, 4).tobytes() for image in range(20) for particle in range(20)}
    assert len(streams) == 400


def test_noise_is_standard_normal():
    values = keyed_normal(7, 0, 0, "mcmc", 0, 200_000)
    assert values.mean() == pytest.approx(0, abs=5 / 200_000**0.5)
    assert values.var() == pytest.approx(1, abs=5 * (2 / 200_000) ** 0.5)


def test_noise_is_pinned():
    """A change here changes every published result."""
    expected = np.random.Generator(np.random.Philox(key=[42, (3 << 32) | 1], counter=[0, 0, 5, 2])).standard_normal(
        4, dtype=np.float32
    )
    assert np.array_equal(keyed_normal(42, 3, 1, "annealing", 5, 4), expected)
