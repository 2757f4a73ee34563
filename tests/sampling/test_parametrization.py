"""What the latent optimisation moves: the residual's bound, its base, and that a particle does not depend on the others."""

from types import SimpleNamespace

import pytest
import torch

from tests.worlds.least_squares import SIGMA, call, problem
from utils import device as devices
from utils.records.files import read_record
from utils.sampling.parametrization import Residual, coarse, parametrization

RESIDUAL = dict(parametrization="residual")
WARM, COLD = torch.tensor(True), torch.tensor(False)


def rms(z):
    return z.square().flatten(1).mean(1).sqrt()


def latents(count=3, side=8):
    """(count, 2, side, side) of different sizes."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(count, 2, side, side, generator=generator, dtype=torch.float64)
    return z * torch.arange(1, count + 1).view(-1, 1, 1, 1)


@pytest.mark.parametrize("lr", [0.01, 10.0])
@pytest.mark.parametrize("bound", [0.05, 0.2])
def test_no_entry_moves_by_more_than_the_bound(bound, lr):
    particles = problem(spread=5.0)
    z, report = call(particles, bound=bound, lr=lr, max_iterations=200, **RESIDUAL)
    moved = (z - particles.z).abs().flatten(1).amax(1)
    assert set(report["stopped_by"][2:]) == {"max_iterations"}  # they want farther
    assert (moved <= bound * rms(particles.z) * (1 + 1e-12)).all()
    assert lr < 1 or (moved[2:] > 0.99 * bound * rms(particles.z)[2:]).all()  # and get as far as they may


def test_a_free_particle_moves_farther():
    particles = problem(spread=5.0)
    z, _ = call(particles, max_iterations=200)
    assert ((z - particles.z).abs().flatten(1).amax(1) > 0.2 * rms(particles.z))[1:].all()


def test_after_the_warm_up_the_base_stands_and_the_residual_alone_moves():
    """Adam's momentum of the base is still there, and must not carry it on."""
    states = []
    z, _ = call(problem(spread=5.0), seen=lambda p: states.append((p.x.clone(), p.start, p.z)), warmup=3, **RESIDUAL)
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
    z, report = call(particles, bound=0.0, warmup=warmup, **RESIDUAL)
    assert torch.equal(z, particles.z) == (warmup == 0) and torch.isfinite(z).all()


def test_a_wide_bound_is_free():
    particles = problem()
    free, narrow, wide = call(particles), call(particles, **RESIDUAL), call(particles, bound=1e5, **RESIDUAL)
    torch.testing.assert_close(wide[0], free[0], rtol=0, atol=1e-7)
    assert wide[1] == free[1] != narrow[1]


@pytest.mark.parametrize("warmup", [0, 5])
def test_alone_or_among_others_the_same_iterations_and_result(warmup):
    particles = problem(spread=0.6)
    z, report = call(particles, warmup=warmup, **RESIDUAL)
    assert len(set(report["iterations"])) > 2  # they do stop at different times
    for i in range(4):
        z_alone, alone = call(particles.select(torch.tensor([i])), warmup=warmup, **RESIDUAL)
        torch.testing.assert_close(z_alone[0], z[i], rtol=0, atol=1e-12)
        assert (alone["iterations"], alone["stopped_by"]) == ([report["iterations"][i]], [report["stopped_by"][i]])


def test_a_particle_that_diverges_changes_no_other():
    particles = problem()
    particles.z[1] = torch.nan
    z, report = call(particles, warmup=5, **RESIDUAL)
    healthy = call(problem(), warmup=5, **RESIDUAL)
    assert report["stopped_by"][1] == "not_finite"
    torch.testing.assert_close(z[[0, 2, 3]], healthy[0][[0, 2, 3]], rtol=0, atol=1e-12)


def test_masking_gives_what_slicing_gives(monkeypatch):
    sliced = call(problem(spread=0.6), warmup=5, **RESIDUAL)
    monkeypatch.setattr(devices, "batch_may_shrink", lambda device: False)
    masked = call(problem(spread=0.6), warmup=5, **RESIDUAL)
    torch.testing.assert_close(sliced[0], masked[0], rtol=0, atol=1e-12)
    assert sliced[1] == masked[1]


@pytest.mark.parametrize("warm", [WARM, COLD], ids=["warm", "cold"])
def test_the_gradient_is_that_of_the_objective(warm):
    """Against autograd: of |z - target|^2 in rho, and in the base under a change by blocks; the penalty while it is warm."""
    start, residual = latents(), Residual(0.3)
    target = start.flip(0)
    x = residual.variables(start) + 0.4 * latents()[:, None]
    x = torch.stack([x[:, 0], x[:, 1]], 1).requires_grad_()
    z = residual.latent(x, start)
    r = x[:, 1] / (0.3 * rms(start)).view(-1, 1, 1, 1)
    objective = (z - target).square().sum() + SIGMA**2 * r.square().sum() * warm
    (wanted,) = torch.autograd.grad(objective, x)
    got = residual.gradient(2 * (z - target).detach(), x.detach(), start, SIGMA, warm)
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
    start, residual = latents(side=16), Residual(0.2)
    x = residual.variables(start)
    gradient = residual.gradient(latents(side=16).flip(0), x, start, SIGMA, WARM)
    moved = residual.stepped(x, gradient, WARM)[:, 0] - start
    assert not torch.equal(moved, torch.zeros_like(moved))
    torch.testing.assert_close(coarse(moved), moved, rtol=0, atol=1e-12)


def test_the_config_chooses():
    kinds = {name: type(parametrization(SimpleNamespace(parametrization=name, bound=0.2))) for name in ("free", "residual")}
    assert kinds["residual"] is Residual is not kinds["free"]


def test_a_run_asks_for_it(run):
    """No noise comes after the last step: its latents are what the optimisation returned."""
    shared = ("data.end_id=1", "optimization_step=400", "optimization.max_iterations=4", "optimization.lr=0.5")
    latents = [
        read_record(run(*shared, f"name={name}", f"optimization.parametrization={name}")[0] / "records" / "00000.npz")[1]["z"]
        for name in ("free", "residual")
    ]
    assert abs(latents[0] - latents[1]).max() > 0.01
