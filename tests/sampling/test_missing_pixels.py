"""Pixels that were not measured: NaN in y, left out of loss, gradient, counts and stops, and other ones in each image."""

import pytest
import torch

from operators.hdr import HighDynamicRange
from operators.phase_retrieval import PhaseRetrieval
from tests.worlds.xla import World

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tiny_prior):
    return World(tiny_prior, CPU, torch.float64)


def problem(operator, count=3):
    """Images (P, 3, 16, 16), measurements of others with a different half missing for each, and the same unharmed."""
    generator = torch.Generator().manual_seed(0)
    x, other = (torch.rand(count, 3, 16, 16, generator=generator, dtype=torch.float64) * 2 - 1 for _ in range(2))
    y = operator(other)
    return x, torch.where(torch.rand(y.shape, generator=generator) < 0.5, torch.nan, y), y


@pytest.mark.parametrize("operator", [PhaseRetrieval(), HighDynamicRange()], ids=["phase_retrieval", "hdr"])
def test_loss_and_gradient_are_those_of_the_measured_pixels(operator):
    x, y, _ = problem(operator)
    x.requires_grad_()
    loss = operator.loss(x, y)
    (gradient,) = torch.autograd.grad(loss.sum(), x, retain_graph=True)
    expected = torch.stack([(operator(x)[p] - y[p])[~torch.isnan(y[p])].square().sum() for p in range(3)])
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), x)[0], rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(operator.channel_loss(x, y).sum(1), loss, rtol=1e-12, atol=0)


def test_where_all_is_measured_nothing_differs_by_a_bit():
    operator = PhaseRetrieval()
    x, _, y = problem(operator)
    x, y = x.float().requires_grad_(), y.float()
    plain = (operator(x) - y).square().flatten(1).sum(1)
    assert torch.equal(operator.loss(x, y), plain)
    assert torch.equal(*(torch.autograd.grad(v.sum(), x)[0] for v in (operator.loss(x, y), plain)))


def test_what_diverged_is_not_taken_for_what_is_missing():
    operator = PhaseRetrieval()
    x, y, _ = problem(operator)
    x[1] = torch.nan
    assert torch.isnan(operator.loss(x, y)).tolist() == [False, True, False]


@pytest.mark.heavy
def test_the_floor_counts_what_was_measured_of_each_particle():
    """Means and deviations of the truth's loss over draws of the noise, per particle and per channel."""
    operator = PhaseRetrieval(sigma=0.3)
    x, y, _ = problem(operator, 2)
    y[1, 2, 3:] = torch.nan
    draws = 4000
    noise = 0.3 * torch.randn(draws, *y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    squared = torch.where(torch.isnan(y), 0, noise).square()
    for axis, shape in ((1, (2,)), (2, (2, 3))):
        losses = squared.flatten(1 + axis).sum(-1)
        floor, spread = operator.noise_floor(y, axis), operator.floor_spread(y, axis)
        assert floor.shape == spread.shape == shape
        error = spread / draws**0.5  # of the mean
        assert ((losses.mean(0) / floor - 1).abs() < 5 * error).all()
        assert ((losses.std(0) / (floor * spread) - 1).abs() < 5 / (2 * draws) ** 0.5).all()
    assert operator.noise_floor(y)[1] < 0.9 * operator.noise_floor(y)[0]


ALL = dict(pruning_step=700, optimization_step=400, steps=4)


@pytest.mark.heavy
@pytest.mark.parametrize(
    "switches", [ALL, dict(recombination_step=700, steps=4)], ids=["pruning and optimisation", "recombination"]
)
def test_images_with_other_masks_in_one_batch_equal_single_runs(world, switches):
    batch, _ = world.run(image=(0, 1), lost=0.3, **switches)
    for image in (0, 1):
        alone, _ = world.run(image=image, lost=0.3, **switches)
        mine = batch.particles.select(batch.particles.of_image(image))
        assert mine.index.tolist() == alone.particles.index.tolist()
        torch.testing.assert_close(mine.z, alone.particles.z, rtol=0, atol=1e-8)
        for name in ("pruning", "optimization", "recombination"):
            assert len(batch.of_image(name, image)) == len(alone.of_image(name, image))
        for here, there in zip(batch.of_image("optimization", image), alone.of_image("optimization", image)):
            assert here["particles"] == there["particles"]
    whole, _ = world.run(image=0, **switches)
    first = batch.particles.select(batch.particles.of_image(0))
    assert torch.isfinite(batch.particles.z).all() and (whole.particles.z - first.z).abs().max() > 1e-4
