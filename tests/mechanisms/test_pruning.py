"""Pruning: which particles are kept, by measurement loss and by diversity, and that a run goes on with them alone."""

from types import SimpleNamespace

import pytest
import torch

from tests.worlds import analytic
from tests.worlds.analytic import MIXTURE
from utils.mechanisms.pruning.act import Choice, Pruning, choose
from utils.sampling.particles import Particles
from utils.sampling.profiler import Profiler
from utils.sampling.schedule import StepClock, annealing_sigmas

FAR, NEAR = 10.0, 1.0
CLOCK = StepClock(annealing_sigmas(5, 5.0, 0.2))
STEP = 3  # t = 400 of five steps


def settings(**changes):
    return SimpleNamespace(**{**dict(near_distance=0.5, loss_tolerance=1.0, fill="next_best"), **changes})


def distances(n, near=()):
    return [[0.0 if i == j else NEAR if {i, j} in [set(p) for p in near] else FAR for j in range(n)] for i in range(n)]


CASES = [
    # what, loss, near pairs, settings, expected; floor 100, its standard deviation 1
    ("far twins with equal loss are both kept", [110, 110, 130, 140], [], {}, Choice([0, 1], [])),
    ("of a near pair the lower loss stays", [112, 110, 115, 190], [(0, 1)], {}, Choice([1, 2], [])),
    ("a far particle with a bad loss is not worthy, next best fills", [110, 112, 150, 160], [(0, 1)], {}, Choice([0, 1], [])),
    ("the same, filled by a clone", [110, 112, 150, 160], [(0, 1)], dict(fill="clone"), Choice([0], [(1, 0)])),
    ("the same, dropped", [110, 112, 150, 160], [(0, 1)], dict(fill="drop"), Choice([0], [])),
    ("tolerance is on the excess over the floor", [110, 121, 119, 150], [], {}, Choice([0, 2], [])),
    ("below the floor its standard deviation is the scale", [99, 101.5, 103, 150], [], {}, Choice([0, 1], [])),
    ("a non-finite particle goes first", [float("nan"), 110, 111, 112], [], {}, Choice([1, 2], [])),
    ("near_distance 0 looks at the loss alone", [110, 111, 112, 150], [(0, 1)], dict(near_distance=0.0), Choice([0, 1], [])),
]


@pytest.mark.parametrize("what, loss, near, changes, expected", CASES, ids=[c[0] for c in CASES])
def test_choice(what, loss, near, changes, expected):
    assert choose([float(v) for v in loss], distances(4, near), 100.0, 1.0, 2, settings(**changes)) == expected


def test_a_batch_of_non_finite_particles_shrinks_all_the_same():
    assert choose([float("nan")] * 4, distances(4), 100.0, 1.0, 2, settings()) == Choice([0, 1], [])


def pruned_by(z, loss, images, count=2, sigma=1.0, **changes):
    """{image id: report} of particles with one-dimensional latents z, 8 measurements each, and these losses."""
    n = len(z) // len(images)
    y = torch.zeros(len(images), 8, dtype=torch.float64)
    particles = Particles.start(y, images, n, 0, (1, 1, 1), torch.float64)
    particles = particles.at(torch.tensor(z, dtype=torch.float64).view(-1, 1, 1, 1))
    operator = analytic.Identity(sigma)
    return Pruning(count, settings(**changes), STEP, CLOCK)(particles, torch.tensor(loss, dtype=torch.float64), operator)[1]


def test_each_image_is_judged_by_its_own_losses_and_distances():
    """The twins are 0 and 1 in the first image, 0 and 2 in the second, whose particle 1 fits worst."""
    z = [0.0, 0.1, 5.0, 9.0, 0.0, 5.0, 0.1, 9.0]
    reports = pruned_by(z, [10.0, 11.0, 12.0, 13.0, 10.0, 14.0, 11.0, 12.0], [4, 7])
    assert (reports[4]["kept"], reports[7]["kept"]) == ([0, 2], [0, 3])
    assert reports[4]["distance"] == pytest.approx([0.1, 5.0, 9.0, 4.9, 8.9, 4.0])
    assert reports[7]["distance"] == pytest.approx([5.0, 0.1, 9.0, 4.9, 4.0, 8.9])


def test_distances_of_near_copies_keep_their_digits_among_many():
    """Above 25 rows torch would take them from products, which loses them far from the origin."""
    z = [1000.0 + 0.01 * i for i in range(32)]
    particles = Particles.start(torch.zeros(1, 1), [0], 32, 0, (1, 1, 1), torch.float32)
    particles = particles.at(torch.tensor(z).view(-1, 1, 1, 1))
    report = Pruning(4, settings(), STEP, CLOCK)(particles, torch.arange(32.0), analytic.Identity(1.0))[1][0]
    assert report["distance"][:3] == pytest.approx([0.01, 0.02, 0.03], rel=0.02)


@pytest.mark.parametrize("excess, kept", [(7.9, [0, 2]), (8.1, [0, 1])])
def test_the_scale_below_the_floor_is_the_standard_deviation_of_the_truths_loss(excess, kept):
    """8 measurements of unit noise: the truth's loss is chi-square with mean 8 and standard deviation 4."""
    reports = pruned_by([0.0, 0.1, 8.0, 9.0], [1.0, 1.5, 8.0 + excess, 50.0], [0])
    assert reports[0]["kept"] == kept  # particle 1 is near, so it fills the slot of an unworthy one


def run(pruning=None, images=(0, 1), sizes=None, chain=None):
    particles = analytic.start(MIXTURE, [0.3, 0.1, -0.2], 4, images)
    loop = analytic.sampler(MIXTURE, chain, seed=42)
    if pruning is not None:
        loop.mechanisms = (pruning,)

    def on_step(info):
        if sizes is not None:
            sizes.append(len(info.particles))

    return loop.sample(particles, Profiler(torch.device("cpu")), on_step)


CHAINS = {
    "langevin": analytic.chain(),
    "fresh velocity": analytic.chain(mc_algo="hmc", momentum=0.8),
    "velocity kept": analytic.chain(mc_algo="hmc", momentum=0.8, keep_velocity=True),
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_a_kept_particle_follows_the_trajectory_it_would_have_had(chain):
    full, pruned = run(chain=chain), run(Pruning(2, settings(), STEP, CLOCK), chain=chain)
    assert len(pruned.particles) == 4
    assert pruned.particles.index.tolist() != [0, 1, 0, 1]  # not simply the first ones
    for image, index, z in zip(pruned.particles.image.tolist(), pruned.particles.index.tolist(), pruned.particles.z):
        assert index in pruned.of_image("pruning", image)[0]["kept"]
        twin = (full.particles.image == image) & (full.particles.index == index)
        torch.testing.assert_close(z, full.particles.z[twin][0], rtol=0, atol=1e-9)


def test_the_batch_really_shrinks_after_the_event():
    sizes = []
    result = run(Pruning(2, settings(), STEP, CLOCK), sizes=sizes)
    assert sizes == [8, 8, 8, 4, 4]  # five steps; t = 400 is index 3
    for report in result.reports["pruning"][0].values():
        assert sorted(report["kept"] + report["dropped"]) == [0, 1, 2, 3]
        assert len(report["loss"]) == 4 and len(report["distance"]) == 6


def test_a_clone_starts_from_its_parent_with_the_noise_of_its_slot():
    seen = []

    class Watched(Pruning):
        def __call__(self, particles, *rest):
            pruned, reports = super().__call__(particles, *rest)
            seen.append((particles, pruned))
            return pruned, reports

    result = run(
        Watched(2, settings(near_distance=1e9, fill="clone"), STEP, CLOCK), images=(0,)
    )  # every other particle counts as near
    ((before, after),) = seen
    ((slot, parent),) = result.of_image("pruning", 0)[0]["parents"].items()
    slots = sorted([int(slot), parent])
    assert result.of_image("pruning", 0)[0]["kept"] == slots == result.particles.index.tolist()
    assert torch.equal(after.z, before.z[[parent, parent]])
    noise = analytic.sampler(MIXTURE, seed=42).noise
    assert torch.equal(noise.draw(after, "mcmc", 4), noise.draw(before, "mcmc", 4)[slots])
    assert (result.particles.z[0] - result.particles.z[1]).abs().max() > 1e-3  # so they part


def test_dropping_leaves_images_with_different_numbers():
    result = run(Pruning(2, settings(near_distance=1e9, fill="drop"), STEP, CLOCK))
    assert result.particles.image.tolist() == [0, 1]
    assert torch.isfinite(result.particles.z).all()
