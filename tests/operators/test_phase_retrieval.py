"""Phase retrieval: magnitudes, gradients and noise against plain numpy and the formula."""

import numpy as np
import pytest
import torch

from operators.phase_retrieval import PhaseRetrieval


def images(count=2, side=12, dtype=torch.float64):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=dtype) * 2 - 1


@pytest.mark.parametrize("side, oversample, padded", [(64, 2.0, 96), (256, 2.0, 384), (64, 1.0, 80), (33, 2.0, 49)])
def test_against_plain_numpy(side, oversample, padded):
    x = images(side=side)
    pad = (padded - side) // 2
    plain = np.pad(0.5 * x.numpy() + 0.5, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    expected = np.abs(np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(plain, axes=(-2, -1)), norm="ortho"), axes=(-2, -1)))
    measured = PhaseRetrieval(oversample)(x)
    assert measured.shape == (2, 3, padded, padded)
    np.testing.assert_allclose(measured.numpy(), expected, atol=1e-12)


def test_a_rotated_image_has_the_same_measurement():
    operator, x = PhaseRetrieval(), images()
    torch.testing.assert_close(operator(torch.flip(x, (-2, -1))), operator(x), rtol=0, atol=1e-12)


def test_each_channel_has_its_own_ambiguity():
    operator, x = PhaseRetrieval(), images()
    one_channel = torch.cat([torch.flip(x[:, :1], (-2, -1)), x[:, 1:]], dim=1)
    torch.testing.assert_close(operator(one_channel), operator(x), rtol=0, atol=1e-12)


def test_a_mirrored_image_has_another_measurement():
    operator, x = PhaseRetrieval(), images()
    assert (operator(torch.flip(x, (-1,))) - operator(x)).abs().max() > 1e-2


def test_gradient_in_float64():
    operator, x = PhaseRetrieval(), images(1, 8).requires_grad_()
    y = operator(images(1, 8).flip(0)).detach() * 1.1
    assert torch.autograd.gradcheck(lambda v: operator.loss(v, y), x)


def test_gradient_is_finite_where_the_spectrum_is_zero():
    operator = PhaseRetrieval()
    x = torch.full((1, 3, 16, 16), -1.0, requires_grad=True)  # black: every amplitude is zero
    (gradient,) = torch.autograd.grad(operator.loss(x, torch.ones(1, 3, 24, 24)).sum(), x)
    assert torch.isfinite(gradient).all()


def test_loss_is_a_sum_per_particle():
    operator, x = PhaseRetrieval(), images(4)
    y = operator(images(1)) + 0.3
    batched = operator.loss(x, y.expand(4, -1, -1, -1))
    singles = torch.cat([operator.loss(x[i : i + 1], y) for i in range(4)])
    torch.testing.assert_close(batched, singles, rtol=1e-12, atol=0)
    torch.testing.assert_close(batched[0], (operator(x)[0] - y[0]).square().sum())


def test_noise_floor_is_the_loss_of_the_truth():
    operator, x = PhaseRetrieval(sigma=0.05), images(64)
    noise = torch.randn(64, 3, 18, 18, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = operator.measure(x, noise)
    losses = operator.loss(x, y)
    floor = operator.noise_floor(y)[0].item()
    error = floor * (2 / (3 * 18 * 18)) ** 0.5 / 64**0.5
    assert losses.mean().item() == pytest.approx(floor, abs=5 * error)


def test_one_channel_is_that_of_the_luminance():
    x = 2 * torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    grey = (0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2])[:, None]
    y = PhaseRetrieval(channels=1).double()(x)
    assert y.shape == (2, 1, 18, 18)
    torch.testing.assert_close(y, PhaseRetrieval()(grey.expand(2, 3, 12, 12))[:, :1], rtol=1e-6, atol=1e-6)
    assert not PhaseRetrieval(channels=1).separable and not PhaseRetrieval(channels=1).turns and PhaseRetrieval().separable
