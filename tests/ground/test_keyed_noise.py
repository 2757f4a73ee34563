"""Keyed noise: a draw depends on seed, image, particle, purpose and step, and on nothing else."""

import numpy as np
import pytest
import torch

from utils.noise import PURPOSES, KeyedNoise, keyed_generator, keyed_normal
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


def test_measurement_noise_has_a_key_of_its_own_for_each_image():
    """The particles start from other numbers than those that their measurement holds."""
    noise = KeyedNoise(42)
    measured = noise.measurement(3, (2, 4))
    assert measured.shape == (2, 4) and np.array_equal(measured, keyed_normal(42, 3, 0, "measurement", 0, (2, 4)))
    others = [
        noise.measurement(4, (2, 4)).numpy(),
        *(keyed_normal(42, 3, 0, p, 0, (2, 4)) for p in PURPOSES if p != "measurement"),
    ]
    assert all(abs(measured.numpy() - other).min() > 0 for other in others)


@pytest.mark.parametrize(
    "purpose, value",
    [
        ("velocity", 0.66363037),
        ("exchange", 0.33704158),
        ("branch", 0.4798751),
        ("mask", 0.18750171),
        ("kernel", 0.84400022),
    ],
)
def test_the_first_number_of_a_purpose_stays(purpose, value):
    assert keyed_normal(42, 3, 1, purpose, 5, 1)[0] == pytest.approx(value, abs=1e-6)


def test_noise_is_standard_normal():
    values = keyed_normal(7, 0, 0, "mcmc", 0, 200_000)
    assert values.mean() == pytest.approx(0, abs=5 / 200_000**0.5)
    assert values.var() == pytest.approx(1, abs=5 * (2 / 200_000) ** 0.5)


@pytest.mark.parametrize("part", ["seed", "image", "particle", "step"])
@pytest.mark.parametrize("value", [-1, 2**32])
def test_parts_outside_their_range_would_share_a_key_and_are_refused(part, value):
    key = dict(seed=1, image=2, particle=3, purpose="initial", step=4)
    keyed_normal(**{**key, part: 2**32 - 1}, shape=1)
    with pytest.raises(ValueError, match=rf"{part}={value}: .*\[0, 2\^32\)"):
        keyed_normal(**{**key, part: value}, shape=1)


PINNED = {
    (42, 3, 1, "annealing", 5): [-0.9133699, -0.17188653, -0.25284696, 0.54963213],
    (0, 0, 0, "initial", 0): [1.5053303, 0.5184232, 0.12157429, -0.90083563],
    (2**32 - 1, 2**32 - 1, 2**32 - 1, "mcmc", 49): [-2.1376414, 0.36633015, 0.2198493, 0.33244935],
    (42, 7, 0, "measurement", 0): [-0.14132968, 1.2680106, -0.69387853, -0.7443414],
}


@pytest.mark.parametrize("key, values", PINNED.items())
def test_noise_is_pinned(key, values):
    """A change here changes every published result."""
    assert np.array_equal(keyed_normal(*key, 4), np.float32(values))


@pytest.mark.parametrize(
    "purpose, values",
    [("mask", [2671081093, 1026676739, 2042868634]), ("kernel", [1043096156, 314912140, 478256195])],
)
def test_draws_for_masks_and_kernels_are_pinned(purpose, values):
    assert keyed_generator(42, purpose).integers(2**32, size=3).tolist() == values
