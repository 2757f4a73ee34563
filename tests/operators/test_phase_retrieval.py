"""Phase retrieval: magnitudes, gradients and noise against plain numpy and the formula."""

import numpy as np
import pytest
import torch

from operators.fidelity import WithFidelity
from operators.phase_retrieval import PhaseRetrieval
from utils.config.sections import Fidelity


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


FRAMES = [
    ((18, 18), (0.0, 0.0)),
    ((18, 18), (0.5, -0.5)),
    ((25, 19), (0.0, 0.0)),
    ((25, 18), (-0.3, 0.2)),
    ((13, 30), (0.0, 0.5)),
]


def direct(x, frame, offset):
    """Magnitudes of images (P, C, H, W) in [-1, 1] by the sum itself, at the frequencies k + offset of a frame."""
    matrices = []
    for side, samples, s in zip(x.shape[-2:], frame, offset):
        k = np.arange(samples) - samples // 2 + s
        matrices.append(np.exp(-2j * np.pi * k[:, None] * np.arange(side) / samples) / samples**0.5)
    return np.abs(matrices[0] @ (0.5 * x + 0.5) @ matrices[1].T)


@pytest.mark.parametrize("frame, offset", FRAMES)
def test_a_frame_of_any_size_with_its_beam_between_pixels_is_the_transform_itself(frame, offset):
    x = images()
    y = PhaseRetrieval(frame=frame, offset=offset)(x)
    np.testing.assert_allclose(y.numpy(), direct(x.numpy(), frame, offset), atol=1e-12)


def test_a_frame_of_the_tasks_own_size_changes_no_bit():
    x = images(side=16, dtype=torch.float32)
    everywhere = torch.ones(16, 16, dtype=torch.bool)
    assert torch.equal(PhaseRetrieval(frame=(24, 24), inside=everywhere)(x), PhaseRetrieval()(x))


@pytest.mark.parametrize("frame, offset", FRAMES)
def test_a_turn_is_not_seen_about_any_centre(frame, offset):
    operator, x = PhaseRetrieval(frame=frame, offset=offset), images()
    one_channel = torch.cat([torch.flip(x[:, :1], (-2, -1)), x[:, 1:]], dim=1)
    torch.testing.assert_close(operator(one_channel), operator(x), rtol=0, atol=1e-12)
    assert operator.turns and operator.rotation_ambiguity


def inside(rows, columns, side=12):
    where = torch.zeros(side, side, dtype=torch.bool)
    where[rows, columns] = True
    return where


def test_nothing_is_measured_outside_the_support():
    where = inside(slice(2, 10), slice(4, 8))
    operator, x = PhaseRetrieval(inside=where), images().requires_grad_()
    y = operator(x)
    torch.testing.assert_close(y, PhaseRetrieval()(torch.where(where, x, -1.0)), rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(operator.loss(x, y.detach() + 1).sum(), x)
    assert (gradient[..., ~where] == 0).all() and (gradient[..., where] != 0).all()


def test_a_support_that_is_no_turn_of_itself_leaves_one_orientation():
    symmetric, other = PhaseRetrieval(inside=inside(slice(2, 10), slice(4, 8))), PhaseRetrieval(inside=inside(slice(2, 9), 5))
    x = images()
    torch.testing.assert_close(symmetric(torch.flip(x, (-2, -1))), symmetric(x), rtol=0, atol=1e-12)
    assert symmetric.turns and symmetric.rotation_ambiguity
    assert (other(torch.flip(x, (-2, -1))) - other(x)).abs().max() > 1e-2
    assert not other.turns and not other.rotation_ambiguity and PhaseRetrieval.turns and PhaseRetrieval.rotation_ambiguity


def test_the_gradient_of_a_frame_in_float64():
    operator = PhaseRetrieval(frame=(11, 14), offset=(0.4, -0.5), inside=inside(slice(1, 7), slice(2, 6), 8))
    x = images(1, 8).requires_grad_()
    y = operator(images(1, 8).flip(0)).detach() * 1.1
    assert torch.autograd.gradcheck(lambda v: operator.loss(v, y), x)


def test_another_data_term_keeps_what_the_frame_says():
    operator = PhaseRetrieval(offset=(0.5, 0.0), inside=inside(slice(2, 9), 5))
    other = WithFidelity(operator, Fidelity(gaussian=2.0))
    assert other.offset == (0.5, 0.0) and other.support is operator.inside and not other.turns
