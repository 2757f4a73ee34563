"""Pruning: which particles are kept, by measurement loss and by diversity, and that a run goes on with them alone."""

from types import SimpleNamespace

import pytest
import torch

from tests.worlds import analytic
from tests.worlds.analytic import MIXTURE
from utils.sampling.events import Events
from utils.sampling.profiler import Profiler
from utils.sampling.pruning import Choice, Pruning, choose
from utils.sampling.schedule import StepClock, annealing_sigmas

FAR, NEAR = 10.0, 1.0
CLOCK = StepClock("progress", annealing_sigmas(5, 5.0, 0.2))
EVENTS = Events(CLOCK, pruning_step=400)


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


def run(pruning=None, images=(0, 1), sizes=None):
    particles = analytic.start(MIXTURE, [0.3, 0.1, -0.2], 4, images)
    loop = analytic.sampler(MIXTURE, seed=42)
    if pruning is not None:
        loop.mechanisms, loop.events = (pruning,), EVENTS

    def on_step(info):
        if sizes is not None:
            sizes.append(len(info.particles))

    return loop.sample(particles, Profiler(torch.device("cpu")), on_step)


def test_a_kept_particle_follows_the_trajectory_it_would_have_had():
    full, pruned = run(), run(Pruning(2, settings(), EVENTS))
    assert len(pruned.particles) == 4
    for image, index, z in zip(pruned.particles.image.tolist(), pruned.particles.index.tolist(), pruned.particles.z):
        assert index in pruned.of_image("pruning", image)[0]["kept"]
        twin = (full.particles.image == image) & (full.particles.index == index)
        torch.testing.assert_close(z, full.particles.z[twin][0], rtol=0, atol=1e-9)


def test_the_batch_really_shrinks_after_the_event():
    sizes = []
    result = run(Pruning(2, settings(), EVENTS), sizes=sizes)
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
        Watched(2, settings(near_distance=1e9, fill="clone"), EVENTS), images=(0,)
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
    result = run(Pruning(2, settings(near_distance=1e9, fill="drop"), EVENTS))
    assert result.particles.image.tolist() == [0, 1]
    assert torch.isfinite(result.particles.z).all()
