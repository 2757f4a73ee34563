"""The bounded residual: its bound, its base, that a particle does not depend on the others; and a run by its YAML alone."""

import pytest
import torch

from docs.examples.plugins.bounded_residual import BoundedResidual, coarse
from tests.worlds import analytic
from tests.worlds.analytic import MIXTURE
from tests.worlds.least_squares import SIGMA, call, problem
from tests.worlds.plugins import experiment, started_elsewhere
from utils import device as devices
from utils.errors import InputError
from utils.records.files import read_record

KEYS = dict(step=999, every=1, max_iterations=40, lr=0.05, stop_factor=1.0, max_move=100.0, bound=0.2, warmup=0)
WARM, COLD = torch.tensor(True), torch.tensor(False)


def bounded(**changes):
    mechanism = BoundedResidual(analytic.sampler(MIXTURE).clock, **{**KEYS, **changes})
    mechanism.sigma = SIGMA
    return mechanism


def optimised(particles, seen=lambda particles: None, **changes):
    return call(particles, seen=seen, mechanism=bounded(**changes))


def rms(z):
    return z.square().flatten(1).mean(1).sqrt()


def latents(count=3, side=8):
    """(count, 2, side, side) of different sizes."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(count, 2, side, side, generator=generator, dtype=torch.float64)
    return z * torch.arange(1, count + 1).view(-1, 1, 1, 1)


@pytest.mark.heavy
@pytest.mark.parametrize("lr", [0.01, 10.0])
@pytest.mark.parametrize("bound", [0.05, 0.2])
def test_no_entry_moves_by_more_than_the_bound(bound, lr):
    particles = problem(spread=5.0)
    z, report = optimised(particles, bound=bound, lr=lr, max_iterations=200)
    moved = (z - particles.z).abs().flatten(1).amax(1)
    assert set(report["stopped_by"][2:]) == {"max_iterations"}  # they want farther
    assert (moved <= bound * rms(particles.z) * (1 + 1e-12)).all()
    assert lr < 1 or (moved[2:] > 0.99 * bound * rms(particles.z)[2:]).all()  # and get as far as they may


@pytest.mark.heavy
def test_a_free_particle_moves_farther():
    particles = problem(spread=5.0)
    z, _ = call(particles, max_iterations=200)
    assert ((z - particles.z).abs().flatten(1).amax(1) > 0.2 * rms(particles.z))[1:].all()


def test_after_the_warm_up_the_base_stands_and_the_residual_alone_moves():
    """Adam's momentum of the base is still there, and must not carry it on."""
    states = []
    z, _ = optimised(problem(spread=5.0), seen=lambda p: states.append((p.x.clone(), p.start, p.z)), warmup=3)
    first, warm, last = states[0][0], states[3][0], states[-1][0]
    assert len(states) == 41 and len(warm) == len(first) - 1  # the particle at the solution has stopped
    for before, after in zip(states[1:3], states[2:4]):
        assert (before[0][:, 0] != after[0][:, 0]).all()
    assert all(torch.equal(x[:, 0], warm[:, 0]) for x, _, _ in states[3:] if len(x) == len(warm))
    assert not torch.equal(last[:, 1], warm[-len(last) :, 1])
    for x, start, latent in states:
        assert ((latent - x[:, 0]).abs().flatten(1).amax(1) <= 0.2 * rms(start) * (1 + 1e-12)).all()


@pytest.mark.parametrize("warmup", [0, 40])
def test_a_bound_of_zero_leaves_the_latent_to_the_base(warmup):
    particles = problem()
    z, report = optimised(particles, bound=0.0, warmup=warmup)
    assert torch.equal(z, particles.z) == (warmup == 0) and torch.isfinite(z).all()


@pytest.mark.heavy
def test_a_wide_bound_is_free():
    particles = problem()
    free, narrow, wide = call(particles), optimised(particles), optimised(particles, bound=1e5)
    torch.testing.assert_close(wide[0], free[0], rtol=0, atol=1e-7)
    assert wide[1] == free[1] != narrow[1]


@pytest.mark.heavy
@pytest.mark.parametrize("warmup", [0, 5])
def test_alone_or_among_others_the_same_iterations_and_result(warmup):
    particles = problem(spread=0.6)
    z, report = optimised(particles, warmup=warmup)
    assert len(set(report["iterations"])) > 2  # they do stop at different times
    for i in range(4):
        z_alone, alone = optimised(particles.select(torch.tensor([i])), warmup=warmup)
        torch.testing.assert_close(z_alone[0], z[i], rtol=0, atol=1e-12)
        assert (alone["iterations"], alone["stopped_by"]) == ([report["iterations"][i]], [report["stopped_by"][i]])


def test_a_particle_that_diverges_changes_no_other():
    particles = problem()
    particles.z[1] = torch.nan
    z, report = optimised(particles, warmup=5)
    healthy = optimised(problem(), warmup=5)
    assert report["stopped_by"][1] == "not_finite"
    torch.testing.assert_close(z[[0, 2, 3]], healthy[0][[0, 2, 3]], rtol=0, atol=1e-12)


def test_masking_gives_what_slicing_gives(monkeypatch):
    sliced = optimised(problem(spread=0.6), warmup=5)
    monkeypatch.setattr(devices, "batch_may_shrink", lambda device: False)
    masked = optimised(problem(spread=0.6), warmup=5)
    torch.testing.assert_close(sliced[0], masked[0], rtol=0, atol=1e-12)
    assert sliced[1] == masked[1]


@pytest.mark.parametrize("warm", [WARM, COLD], ids=["warm", "cold"])
def test_the_gradient_is_that_of_the_objective(warm):
    """Against autograd: of |z - target|^2 in rho, and in the base under a change by blocks; the penalty while it is warm."""
    start, residual = latents(), bounded(bound=0.3)
    target = start.flip(0)
    x = residual.variables(start) + 0.4 * latents()[:, None]
    x = torch.stack([x[:, 0], x[:, 1]], 1).requires_grad_()
    z = residual.latent(x, start)
    r = x[:, 1] / (0.3 * rms(start)).view(-1, 1, 1, 1)
    objective = (z - target).square().sum() + SIGMA**2 * r.square().sum() * warm
    (wanted,) = torch.autograd.grad(objective, x)
    got = residual.pulled_back(2 * (z - target).detach(), x.detach(), start, warm)
    torch.testing.assert_close(got[:, 1], wanted[:, 1], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(got[:, 0], coarse(wanted[:, 0]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("side", [16, 8, 3, 18])
def test_the_coarse_part_is_an_orthogonal_projection_onto_blocks(side):
    z, other = latents(side=side), latents(side=side).flip(-1).roll(1, -2)
    low = coarse(z)
    assert low.shape == z.shape
    torch.testing.assert_close(coarse(low), low, rtol=0, atol=1e-12)
    torch.testing.assert_close((low * other).sum(), (z * coarse(other)).sum())
    if side >= 8:
        assert low[0, 0].unique().numel() < z[0, 0].numel() and not torch.allclose(low, z)
        block = side // 4
        torch.testing.assert_close(low[0, 0, :block, :block].unique().mean(), z[0, 0, :block, :block].mean())


def test_the_base_moves_by_blocks():
    """Four a side of 16; the detail is left to the residual."""
    start, residual = latents(side=16), bounded(bound=0.2)
    x = residual.variables(start)
    moved = residual.pulled_back(latents(side=16).flip(0), x, start, WARM)[:, 0]
    assert not torch.equal(moved, torch.zeros_like(moved))
    torch.testing.assert_close(coarse(moved), moved, rtol=0, atol=1e-12)


EXPERIMENT = (*experiment("bounded_residual"), "data.end_id=1")
SMALL = ("step=400", "max_iterations=4", "lr=0.5")


@pytest.mark.program
def test_a_run_asks_for_it(run):
    """No noise comes after the last step: its latents are what the optimisation returned."""
    latents = []
    for bound in (0, 0.2):
        own = [f"mechanisms.bounded_residual.{key}" for key in (*SMALL, f"bound={bound}")]
        folder, metrics = run(*EXPERIMENT, *own, f"name=bound{bound}")
        latents.append(read_record(folder / "records" / "00000.npz")[1]["z"])
    assert abs(latents[0] - latents[1]).max() > 0.01
    (block,) = metrics["mechanisms"]["bounded_residual"]
    assert block["calls"] == [1] * 4 and set(sum(block["stopped_by"], [])) <= {"max_iterations", "discrepancy", "max_move"}
    assert metrics["optimization"] is None and list(metrics["time"]["phases"]) == ["sampling"]


@pytest.mark.heavy
def test_bounded_free_is_the_cores_own(run):
    """A bound that is wide against every move, in float32: the same calls, iterations and latents up to rounding."""
    free, m = run("data.end_id=1", "name=free", *(f"optimization_{key}" for key in SMALL[:1]), "optimization.max_iterations=4")
    own = [f"mechanisms.bounded_residual.{key}" for key in ("step=400", "max_iterations=4", "bound=1e4")]
    wide, w = run(*EXPERIMENT, *own, "name=wide")
    here, there = (read_record(folder / "records" / "00000.npz")[1]["z"] for folder in (free, wide))
    assert abs(here - there).max() < 1e-3 * abs(here).max()
    assert w["mechanisms"]["bounded_residual"][0]["iterations"] == m["optimization"]["iterations"][0]


@pytest.mark.heavy
@pytest.mark.parametrize(
    "key, message",
    [
        ("bound=-0.1", "bound=-0.1: input should be greater than or equal to 0"),
        ("warmup=-1", "warmup=-1: input should be"),
        ("warmup=1.5", "warmup=1.5: input should be a valid integer"),
        ("warmup=31", "warmup=31: must not exceed max_iterations=30, after which nothing moves"),
        ("step=0", "step=0: the last of 3 annealing steps is at t = 333.333, so this never happens"),
        ("step=1000", "step=1000: input should be less than 1000"),
        ("+width=3", "width=3: extra inputs are not permitted"),
    ],
)
def test_a_key_that_cannot_be_is_refused(run, key, message):
    plus, key = ("+", key[1:]) if key.startswith("+") else ("", key)
    with pytest.raises(InputError) as caught:
        run(*EXPERIMENT, f"{plus}mechanisms.bounded_residual.{key}")
    assert str(caught.value).startswith(f"mechanisms.bounded_residual.{message}") and "\n" not in str(caught.value)


@pytest.mark.program
def test_it_starts_from_any_folder(tiny, tmp_path):
    started_elsewhere("bounded_residual", tiny, tmp_path, "data.end_id=1", "mechanisms.bounded_residual.step=400")
