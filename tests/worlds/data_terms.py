"""Laws that every term of the data term keeps, built-in or of one's own, as functions of an operator that has it."""

import pytest
import torch

from operators.fidelity import WithFidelity
from operators.hdr import HighDynamicRange
from operators.phase_retrieval import PhaseRetrieval
from utils.config.sections import Fidelity
from utils.running.build import own_terms

SIDE = 16


def with_fidelity(sigma=0.1, image=False, **keys):
    """In float64, on phase retrieval, or on a clipped image; keys: of the block `fidelity`."""
    operator, settings = (HighDynamicRange(scale=1.0, sigma=sigma) if image else PhaseRetrieval(sigma=sigma)), Fidelity(**keys)
    return WithFidelity(operator, settings, own_terms(settings, sigma)).double()


def images(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.rand(count, 3, SIDE // 2, SIDE // 2, generator=generator, dtype=torch.float64) * 2 - 1
    fine = torch.rand(count, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)  # else a spectrum has exact zeros
    return 0.8 * smooth.repeat_interleave(2, -1).repeat_interleave(2, -2) + 0.2 * fine


def measured(operator, count, seed=1, lost=0.2):
    """Of as many images, with other pixels missing in each."""
    generator = torch.Generator().manual_seed(seed)
    x = images(count, seed)
    noise = torch.randn(operator(x).shape, generator=generator, dtype=torch.float64)
    y = operator.measure(x, noise)
    return x, torch.where(torch.rand(y.shape, generator=generator) < lost, torch.nan, y)


def deviation(m, y):
    return m[~torch.isnan(y)].std(correction=0)


def a_batch_with_different_masks_equals_singles(operator):
    (_, y), x = measured(operator, 3), images(3, seed=5)
    for quantity in (operator.loss, operator.channel_loss):
        singles = torch.cat([quantity(x[i : i + 1], y[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(quantity(x, y), singles, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(operator.channel_loss(x, y).sum(1), operator.loss(x, y), rtol=1e-12, atol=0)
    for axis in (1, 2):
        singles = torch.cat([operator.noise_floor(y[i : i + 1], axis) for i in range(3)])
        torch.testing.assert_close(operator.noise_floor(y, axis), singles, rtol=1e-12, atol=0)
    torch.testing.assert_close(operator.noise_floor(y, 2).sum(1), operator.noise_floor(y), rtol=1e-12, atol=0)


def what_is_missing_has_no_say(operator):
    """Nor makes it a gradient infinite, also where nothing at all was measured."""
    (_, y), x = measured(operator, 2), images(2, seed=5).requires_grad_()
    (gradient,) = torch.autograd.grad(operator.loss(x, y).sum(), x)
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0
    nothing = torch.full_like(y, torch.nan)
    assert torch.isfinite(torch.autograd.grad(operator.loss(x, nothing).sum(), x)[0]).all()


def the_gradient_equals_finite_differences(operator, potential=None):
    """potential(x, y, middle): what the gradient belongs to at the image `middle`, where a factor of the loss counts as a
    constant; None: the loss itself."""
    (_, y), x = measured(operator, 1), 0.9 * images(1, seed=5).requires_grad_()
    (gradient,) = torch.autograd.grad(operator.loss(x, y).sum(), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    step = 1e-6
    with torch.no_grad():
        up, down = (
            operator.loss(x + s * direction, y) if potential is None else potential(x + s * direction, y, x)
            for s in (step, -step)
        )
    assert (gradient * direction).sum().item() == pytest.approx(((up - down) / (2 * step)).item(), rel=2e-5)


def floor_and_spread_are_those_of_the_true_images_loss(operator, known_to=0.03):
    """Over draws of the measurement; the floor itself depends on the draw where the noise depends on the image.

    known_to: of the floor, what is known to first order or by a table only.
    """
    draws = 300
    x = images(1).expand(draws, -1, -1, -1)
    noise = torch.randn(operator(x).shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    y = operator.measure(x, noise)
    y[..., :7, 3:] = torch.nan
    loss, floor = operator.loss(x, y), operator.noise_floor(y)
    several = len(operator.weights) > 1
    # 5 deviations of the mean
    assert loss.mean().item() == pytest.approx(
        floor.mean().item(), rel=5 * (loss.std() / loss.mean()).item() / draws**0.5 + known_to
    )
    ratio = (loss - floor).std() / (floor * operator.floor_spread(y)).mean()  # what a verdict divides by
    assert 0.85 < ratio < 1.15 or several and 0.5 < ratio <= 1.1
    per_channel = operator.channel_loss(x, y).mean(0) / operator.noise_floor(y, 2).mean(0)
    assert ((per_channel - 1).abs() < 0.08).all()
