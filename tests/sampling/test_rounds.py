"""A run in two stretches, and the particles that stop between them."""

from types import SimpleNamespace

import pytest
import torch

from tests.worlds import analytic
from tests.worlds.analytic import MIXTURE
from utils.sampling.profiler import Profiler
from utils.sampling.rounds import sample_a_round

CPU = torch.device("cpu")
IMAGES = (3, 5)


def world(**changes):
    return analytic.sampler(MIXTURE, analytic.chain(**changes), seed=42), analytic.start(MIXTURE, [0.3, 0.1, -0.2], 2, IMAGES)


KEPT = dict(mc_algo="hmc", momentum=0.5, keep_velocity=True)


@pytest.mark.parametrize("changes", [{}, KEPT])
@pytest.mark.parametrize("step", [0, 2, 3])
def test_two_stretches_are_one_run(changes, step):
    loop, particles = world(**changes)
    seen, steps = [], []
    whole = loop.sample(particles, Profiler(CPU), lambda info: seen.append(info.image))
    paused = loop.begin(particles, step, Profiler(CPU), lambda info: steps.append(info))
    assert [info.step for info in steps] == list(range(step + 1)) and paused.info is steps[-1]
    result = loop.resume(paused, Profiler(CPU, step + 1), lambda info: steps.append(info))
    assert torch.equal(result.particles.z, whole.particles.z) and torch.equal(result.loss, whole.loss)
    assert [info.step for info in steps] == list(range(5))
    assert all(torch.equal(one.image, other) for one, other in zip(steps, seen, strict=True))


def test_what_stops_is_what_its_chain_left_and_the_rest_is_as_in_a_whole_run():
    """In the order in which they started: the second of one image stops, and the first of the other."""
    loop, particles = world(**KEPT)
    whole, chains = loop.sample(particles, Profiler(CPU)), []
    gone = [False, True, True, False]
    certificate = SimpleNamespace(hopeless=lambda info: gone)
    result, followed, said = sample_a_round(loop, particles, certificate, 1, lambda info: chains.append(info.particles))
    assert said == gone
    assert result.particles.image.tolist() == [3, 3, 5, 5] and result.particles.index.tolist() == [0, 1, 0, 1]
    for row, out in enumerate(gone):
        expected = chains[1].z[row] if out else whole.particles.z[row]
        assert torch.equal(result.particles.z[row], expected)
        picture = loop.prior.decode(expected[None])
        assert torch.equal(result.image[row], picture[0])
        assert result.loss[row] == loop.operator.loss(picture, particles.y[row : row + 1])
    assert [len(those) for _, those in followed] == [4, 2] and [p.first_step for p, _ in followed] == [0, 2]
    assert [len(p.step_s) for p, _ in followed] == [2, 3] and len(result.timing_info) == 5


@pytest.mark.parametrize("gone", [True, False])
def test_where_all_or_none_stop_there_is_one_end(gone):
    loop, particles = world()
    certificate = SimpleNamespace(hopeless=lambda info: [gone] * 4)
    result, followed, _ = sample_a_round(loop, particles, certificate, 1, lambda info: None)
    assert len(followed) == (1 if gone else 2) and len(result.particles) == 4
    whole = loop.sample(particles, Profiler(CPU))
    assert torch.equal(result.particles.z, whole.particles.z) != gone
