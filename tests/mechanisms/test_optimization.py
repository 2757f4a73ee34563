"""Hard data consistency: per particle, wherever it is; on a linear world, where the residual is known."""

from types import SimpleNamespace

import pytest
import torch

from tests.worlds.analytic import MIXTURE
from tests.worlds.least_squares import SIGMA, call, loss, problem, settings
from utils import device as devices
from utils.mechanisms.optimization.act import HardDataConsistency
from utils.sampling.particles import Particles


def test_alone_or_among_others_the_same_iterations_and_result():
    particles = problem()
    z, report = call(particles)
    assert len(set(report["iterations"])) > 1  # they do stop at different times
    for i in range(4):
        z_alone, alone = call(particles.select(torch.tensor([i])))
        torch.testing.assert_close(z_alone[0], z[i], rtol=0, atol=1e-12)
        assert (alone["iterations"], alone["stopped_by"]) == ([report["iterations"][i]], [report["stopped_by"][i]])


def test_masking_gives_what_slicing_gives(monkeypatch):
    particles = problem()
    sliced = call(particles)
    monkeypatch.setattr(devices, "batch_may_shrink", lambda device: False)
    masked = call(particles)
    torch.testing.assert_close(sliced[0], masked[0], rtol=0, atol=1e-12)
    assert sliced[1] == masked[1]


def test_a_stopped_particle_costs_no_further_pass():
    passes = []
    _, report = call(problem(), passes)
    assert passes[0] == 4 and passes == sorted(passes, reverse=True) and passes[-1] < 4
    assert sum(passes) == sum(report["iterations"]) + 4  # one pass to look, one per iteration


def test_it_stops_at_the_noise_level():
    particles = problem()
    z, report = call(particles, max_iterations=1000)
    assert report["stopped_by"] == ["discrepancy"] * 4
    assert report["iterations"][0] == 0 and torch.equal(z[0], particles.z[0])  # it fits already: nothing is done
    assert (loss(particles, z) <= 3 * SIGMA**2).all()


def test_the_other_ways_to_stop():
    assert call(problem(), max_iterations=2)[1]["stopped_by"] == ["discrepancy"] + ["max_iterations"] * 3
    particles = problem()
    z, report = call(particles, max_move=0.12)
    assert report["stopped_by"] == ["discrepancy"] + ["max_move"] * 3
    assert ((z - particles.z).square().flatten(1).mean(1).sqrt() <= 0.12).all()


def test_the_best_iterate_is_returned():
    """A step size that overshoots: the last iterate is not the best."""
    particles = problem()
    before = loss(particles, particles.z)
    z, _ = call(particles, lr=5.0, max_iterations=3)
    assert (loss(particles, z) <= before).all()


def test_a_non_finite_particle_stops_alone():
    particles = problem()
    particles.z[1] = torch.nan
    z, report = call(particles)
    assert report["stopped_by"][1] == "not_finite" and report["iterations"][1] == 0
    healthy = call(problem())
    torch.testing.assert_close(z[[0, 2, 3]], healthy[0][[0, 2, 3]], rtol=0, atol=1e-12)


def test_the_noise_level_counts_every_measurement():
    """Three measurements: a loss of 2.9 sigma^2 is noise, one of 3.1 is not."""
    particles = problem(2, spread=1.0)
    inside, outside = (particles.at(at_loss(particles, factor * SIGMA**2)) for factor in (2.9, 3.1))
    assert call(inside)[1]["iterations"][1] == 0 < call(outside)[1]["iterations"][1]
    assert call(outside, stop_factor=1.1)[1]["iterations"][1] == 0


def test_the_noise_level_counts_the_measured_ones_of_each_particle():
    """Particle 1 lacks one measurement of three: it may have 2 sigma^2, and 2.5 is too much."""
    particles = problem(2, spread=1.0)
    particles = particles.at(at_loss(particles, 2.5 * SIGMA**2))
    assert call(particles)[1]["iterations"] == [0, 0]
    error = (MIXTURE.decode(particles.z) - particles.y)[1].flatten()
    particles.y[1, error.abs().argmin()] = torch.nan
    assert call(particles)[1]["iterations"][1] > 0


def test_its_seconds_are_shared_by_the_images(monkeypatch):
    seconds = iter((10.0, 16.0))
    monkeypatch.setattr(devices, "clock", lambda device: next(seconds))
    step = HardDataConsistency(settings(max_iterations=1), 0, None)
    p = Particles(torch.zeros(3, 1, 1, 1), torch.zeros(3, 1), torch.tensor([7, 7, 9]), torch.tensor([0, 1, 0]))
    still = SimpleNamespace(
        operator=SimpleNamespace(noise_floor=lambda y: torch.ones(3)),
        data_gradient=lambda p: (torch.zeros_like(p.z), torch.zeros(len(p)), None),
    )
    _, report = step.after_chain(p, None, still)
    assert {image: each["time_s"] for image, each in report.items()} == {7: 3.0, 9: 3.0}


def at_loss(particles, wanted):
    """Latents on the line from the solution through the particles, at this loss."""
    solution = particles.z[:1]
    offset = particles.z - solution
    own = loss(particles, particles.z).clamp(min=1e-12)
    return solution + offset * (wanted / own).sqrt().view(-1, 1, 1, 1)


def test_its_steps_are_those_of_adam():
    particles = problem(2, spread=3.0)
    iterations = 7
    z, _ = call(particles, max_iterations=iterations, stop_factor=0.0)
    expected = particles.z.clone().requires_grad_()
    adam = torch.optim.Adam([expected], lr=0.05)
    for _ in range(iterations):
        adam.zero_grad()
        loss(particles, expected).sum().backward()
        adam.step()
    torch.testing.assert_close(z[1], expected[1].detach(), rtol=1e-9, atol=1e-9)
    assert loss(particles, z)[1] < loss(particles, particles.z)[1]  # still descending: the last iterate is the best


@pytest.mark.program
@pytest.mark.parametrize("every, calls", [(1, 2), (5, 2)])
def test_the_result_of_the_run_is_its_output(run, every, calls):
    """The last step always has a call, and no noise comes after it."""
    _, m = run(
        "optimization_step=500",
        "sampler.annealing_scheduler_config.num_steps=4",
        f"optimization.every={every}",
        "optimization.max_iterations=2",
        "optimization.max_move=10",
        f"name=every{every}",
    )
    assert m["optimization"]["calls"] == [[calls] * 4] * 2
    assert all(i <= 2 * calls for row in m["optimization"]["iterations"] for i in row)
    assert all(s == "max_iterations" for row in m["optimization"]["stopped_by"] for stops in row for s in stops)
    assert m["time"]["phases"]["optimization"]["decoder_forward_backward"] == 2 * 2 + 3 * calls
