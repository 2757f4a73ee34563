"""The repulsive force between the particles of an image: its direction, its strength, and what it leaves alone."""

import math
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import binom

from operators.base import Operator
from sampler import LatentDAPS
from tests.worlds import analytic
from tests.worlds.mixture import GaussianMixturePrior
from utils.errors import InputError
from utils.mechanisms.repulsion.act import SIMILARITIES, Repulsion, bandwidth_of, repel
from utils.noise import KeyedNoise
from utils.sampling.particles import Particles
from utils.sampling.profiler import Profiler
from utils.sampling.schedule import StepClock, annealing_sigmas

SETTINGS = SimpleNamespace(decay="linear", end_step=200, bandwidth="median", place="drift", similarity="latent")


def values(count, seed=0, shape=(3, 16, 16)):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("n", [1, 2, 4])
def test_the_force_drives_features_apart(similarity, n):
    from utils.mechanisms.repulsion.act import features

    x = values(n)
    direction, similar = repel(similarity, x, n, "median")
    assert direction.shape == x.shape and similar.shape == (n,)
    if n == 1:
        assert direction.abs().max() == 0 and similar.item() == 0
        return
    assert ((similar > 0) & (similar <= 1)).all()
    torch.testing.assert_close(direction.flatten(1).norm(dim=1), torch.ones(n, dtype=torch.float64))
    before, after = (torch.pdist(features(similarity, v)).mean() for v in (x, x + 0.1 * direction))
    assert after > before


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("bandwidth", ["median", 1.0])
def test_duplicates_give_finite_forces(similarity, bandwidth):
    twins = values(1).expand(4, -1, -1, -1).clone()
    direction, similar = repel(similarity, twins, 4, bandwidth)
    assert torch.isfinite(direction).all() and torch.isfinite(similar).all()
    torch.testing.assert_close(similar, torch.ones(4, dtype=torch.float64))


OWN = "tests.mechanisms.test_repulsion.mean_colour"


def mean_colour(image):
    return image.mean((-2, -1))


def test_a_similarity_of_your_own_acts_like_ours():
    """Pushed on the mean colour alone: every pixel of a channel moves alike."""
    direction, similar = repel(OWN, values(2), 2, 1.0)
    torch.testing.assert_close(direction, direction.mean((-2, -1), keepdim=True).expand_as(direction))
    assert direction.abs().max() > 0 and ((similar > 0) & (similar <= 1)).all()


@pytest.mark.parametrize("name", ["no_such_module.f", "tests.mechanisms.test_repulsion.no_such_function"])
def test_a_similarity_that_cannot_be_imported_is_named_at_once(name):
    with pytest.raises(InputError, match=f"repulsion.similarity={name}: cannot be imported"):
        Repulsion(0.1, SimpleNamespace(**{**vars(SETTINGS), "similarity": name}), None, 1)


def test_two_particles_are_not_left_out():
    """With the public code's bandwidth, median^2 / ln(n - 1), two particles feel exactly nothing."""
    _, similar = repel("latent", values(2), 2, "median")
    torch.testing.assert_close(similar, torch.full((2,), 1 / 3, dtype=torch.float64))  # exp(-ln 3)


def test_the_force_never_reaches_across_images():
    x = values(4)
    together, _ = repel("latent", torch.cat([x, values(4, seed=1)]), 4, "median")
    changed, _ = repel("latent", torch.cat([x, 100 * values(4, seed=2)]), 4, "median")
    alone, _ = repel("latent", x, 4, "median")
    assert torch.equal(together[:4], changed[:4])
    torch.testing.assert_close(together[:4], alone)


@pytest.mark.parametrize("what", [torch.nan, torch.inf, -torch.inf])
def test_a_non_finite_particle_does_not_touch_the_others(what):
    x = values(4)
    x[2] = what
    direction, similar = repel("latent", x, 4, 50.0)
    others, similar_others = repel("latent", x[[0, 1, 3]], 3, 50.0)
    torch.testing.assert_close(direction[[0, 1, 3]], others)
    torch.testing.assert_close(similar[[0, 1, 3]] * 3, similar_others * 2)
    assert direction[2].abs().max() == 0 and similar[2] == 0


def test_rotation_features_of_the_two_modes_are_opposite():
    from utils.mechanisms.repulsion.act import features

    x = values(1)
    f = features("rotation", torch.cat([x, torch.flip(x, (-2, -1)), x + 3.0]))
    torch.testing.assert_close(f[0], -f[1])
    torch.testing.assert_close(f[0], f[2])  # what both modes agree on does not count
    even = x + torch.flip(x, (-2, -1))
    direction, _ = repel("rotation", torch.cat([x, x + 0.01 * values(1, seed=3)]), 2, 1.0)
    assert abs((direction[0] * even[0]).sum().item()) < 1e-9  # and is not moved


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_strength_is_full_at_the_start_and_zero_from_the_end_step_on(decay):
    clock = StepClock(annealing_sigmas(50, 10.0, 0.1))
    strength = Repulsion(0.7, SimpleNamespace(**{**vars(SETTINGS), "decay": decay}), clock, 50).strength
    strengths = [strength(i) for i in range(50)]
    assert strengths[0] == pytest.approx(0.7) and strengths[40:] == [0.0] * 10
    assert all(a >= b for a, b in zip(strengths, strengths[1:])) and strengths[39] > 0


def force(place, similarity="latent"):
    settings = SimpleNamespace(**{**vars(SETTINGS), "place": place, "similarity": similarity})
    return Repulsion(1.0, settings, StepClock(annealing_sigmas(5, 5.0, 0.2)), 5)


def mean_distance(x):
    return torch.pdist(x.flatten(1)).mean()


def test_in_the_chain_a_descent_along_the_bent_gradient_parts_the_particles():
    """By strength x similarity x the length of the data gradient; with none of it, not at all."""
    x, gradient, strength = values(4), values(4, seed=1), torch.tensor(0.3, dtype=torch.float64)
    bent = force("chain").bend(gradient, x, 4, strength)
    assert mean_distance(x - 0.1 * (bent - gradient)) > mean_distance(x)
    _, similar = repel("latent", x, 4, "median")
    lengths = [v.flatten(1).norm(dim=1) for v in (bent - gradient, gradient)]
    torch.testing.assert_close(lengths[0], 0.3 * similar * lengths[1])
    assert torch.equal(force("chain").bend(gradient, x, 4, 0 * strength), gradient)


@pytest.mark.parametrize("similarity", ["latent", OWN])
def test_in_the_drift_particles_part_relative_to_the_drift(similarity):
    """Through the decoder too, whose images are compared."""
    z, z0hat = values(4, 1, (2, 1, 1)), values(4, 2, (2, 1, 1))
    y = torch.zeros(1, 3, 1, 1, dtype=torch.float64)
    particles = Particles.start(y, [0], 4, 0, (2, 1, 1), torch.float64).at(z)
    s = SimpleNamespace(strengths={"repulsion": torch.tensor(0.3, dtype=torch.float64)})
    moved = force("drift", similarity).guide(z0hat, particles, s, analytic.sampler(analytic.MIXTURE))
    on = (lambda v: v) if similarity == "latent" else analytic.MIXTURE.decode
    assert mean_distance(on(moved)) > mean_distance(on(z0hat))
    _, similar = repel(similarity, on(z0hat), 4, "median")
    lengths = [v.flatten(1).norm(dim=1) for v in (moved - z0hat, z0hat - z)]
    torch.testing.assert_close(lengths[0], 0.3 * similar * lengths[1])
    assert torch.equal(force("chain", similarity).guide(z0hat, particles, s, None), z0hat)


@pytest.mark.parametrize("similarity, where", [("latent", "latent"), (OWN, "image"), ("rotation", "image")])
def test_in_the_chain_it_acts_where_it_compares(similarity, where):
    assert force("chain", similarity).bends == where and force("drift", similarity).bends is None


def test_the_median_bandwidth_is_of_the_pairs_alone():
    """Of an even number the lower one; a non-finite particle has no pairs."""
    line = torch.tensor([0.0, 1.0, 3.0, 7.0], dtype=torch.float64)
    squared = (line[:, None] - line[None]).square()[None]
    pairs = ~torch.eye(4, dtype=torch.bool)[None]
    assert bandwidth_of(squared, pairs, "median").item() == pytest.approx(9 / math.log(5))  # of 1, 4, 9, 16, 36, 49
    pairs[:, 3] = pairs[:, :, 3] = False
    assert bandwidth_of(squared, pairs, "median").item() == pytest.approx(4 / math.log(5))  # of 1, 4, 9
    assert bandwidth_of(squared, pairs, 2.5).item() == 2.5


def test_decays_on_the_way():
    """From t = 1000 to the end step, here from step 0 to step 40 of 50: halfway, and at three quarters of it."""
    clock = StepClock(annealing_sigmas(50, 10.0, 0.1))
    for decay, quarter in {"linear": 0.25, "cosine": 0.5 * (1 - math.cos(math.pi / 4))}.items():
        settings = SimpleNamespace(**{**vars(SETTINGS), "decay": decay})
        strength = Repulsion(0.8, settings, clock, 50).strength
        assert strength(20) == pytest.approx(0.8 * 0.5) and strength(30) == pytest.approx(0.8 * quarter)


class Magnitude(Operator):
    """y = |x|: a sign ambiguity, the one-dimensional picture of the two orientations."""

    def forward(self, x):
        return x.abs()


MODES = GaussianMixturePrior(means=[[-2.0], [2.0]], stds=[0.3, 0.3], weights=[0.5, 0.5], decoder=[[1.0]])
RUNS = 400


def two_mode_run(scale):
    """(RUNS, 2) final latents of RUNS images with two particles each; true value +-2."""
    annealing = SimpleNamespace(num_steps=20, sigma_max=10.0, sigma_min=0.05)
    clock = StepClock(annealing_sigmas(20, 10.0, 0.05))
    loop = LatentDAPS(
        MODES,
        Magnitude(0.0),
        KeyedNoise(1),
        annealing,
        SimpleNamespace(num_steps=2, sigma_min=0.01, final_sigma=0.0),
        analytic.chain(num_steps=5, lr=1e-3, tau=0.3),
        [Repulsion(scale, SETTINGS, clock, clock.first_step(200))] if scale > 0 else [],
    )
    y = torch.full((RUNS, 1, 1, 1), 2.0, dtype=torch.float64)
    particles = Particles.start(y, list(range(RUNS)), 2, 0, (1, 1, 1), torch.float64)
    return loop.sample(particles, Profiler(torch.device("cpu"))).particles.z.reshape(RUNS, 2)


def covering_runs(z):
    return int(((z.min(1).values < 0) & (z.max(1).values > 0)).sum())


@pytest.mark.heavy
def test_repulsion_makes_more_runs_cover_both_modes():
    independent, repelled = two_mode_run(0.0), two_mode_run(4.0)
    # negative control: independent particles land on the same side half of the time
    assert 0.001 < binom.sf(covering_runs(independent) - 1, RUNS, 0.5) < 0.999
    assert binom.sf(covering_runs(repelled) - 1, RUNS, 0.7) < 1e-6
    # once it has decayed the particles sit on the modes as tightly as independent ones
    off_mode = [(z.abs() - 2).abs().mean().item() for z in (independent, repelled)]
    assert off_mode[1] < off_mode[0] * 1.2
