"""Classical solvers of phase retrieval: their projections and steps, what they find, and that no start knows another."""

import numpy as np
import pytest
import torch

from operators.phase_retrieval import PhaseRetrieval
from utils.sampling.phase_solvers import Bank, Support, in_one_orientation, iterate, onto_magnitudes

SIDE = 16


def picture(seed=0, channels=3):
    """(C, H, W) smooth and asymmetric in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, 4, 4, generator=generator)
    shared = torch.rand(1, 1, 4, 4, generator=generator)
    return torch.nn.functional.interpolate((coarse + 3 * shared) / 4, size=SIDE, mode="bicubic")[0].clamp(0, 1)


def magnitudes(x, oversample=2.0, channels=3):
    return PhaseRetrieval(oversample, channels=channels)(2 * x[None] - 1)[0]


def starts(count, channels=3, seed=1):
    return torch.rand(count, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def solved(y, start, solver="hio", iterations=300, beta=0.9):
    bank = Bank(y, start, solver, beta)
    bank.advance(iterations)
    bank.finish()
    return bank.ranked()


def psnr(x, truth):
    """Of each channel, in the better orientation."""
    return torch.stack([-10 * (x - t).square().mean((-2, -1)).log10() for t in (truth, truth.flip(-2, -1))]).max(0).values


def test_the_projection_meets_the_magnitudes_and_leaves_a_solution_alone():
    truth = picture()
    support = Support((SIDE, SIDE), (24, 24), torch.device("cpu"))
    y = torch.fft.ifftshift(magnitudes(truth), dim=(-2, -1))
    torch.testing.assert_close(onto_magnitudes(support.padded(truth), y), support.padded(truth), atol=1e-5, rtol=0)
    projected = onto_magnitudes(support.padded(starts(1)[0]), y)
    torch.testing.assert_close(torch.fft.fft2(projected, norm="ortho").abs(), y, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(onto_magnitudes(projected, y), projected, atol=1e-5, rtol=0)  # a projection


def test_what_was_not_measured_keeps_its_spectrum():
    truth, x = picture(), starts(1)[0]
    y = torch.fft.ifftshift(magnitudes(truth), dim=(-2, -1))
    y[:, 3:6, 2:9] = torch.nan
    field = Support((SIDE, SIDE), (24, 24), torch.device("cpu")).padded(x)
    missing = torch.isnan(y) & torch.isnan(torch.roll(y.flip(-2, -1), (1, 1), (-2, -1)))  # k and -k, so that x stays real
    before, after = (torch.fft.fft2(v, norm="ortho") for v in (field, onto_magnitudes(field, y)))
    torch.testing.assert_close(after[missing], before[missing], atol=1e-5, rtol=0)


def test_each_step_is_the_one_that_is_written():
    """Against NumPy in float64, for one field and one magnitude."""
    generator = np.random.default_rng(0)
    x, y = generator.random((24, 24)) - 0.2, generator.random((24, 24)) * 3
    inside = np.zeros((24, 24), bool)
    inside[4:20, 4:20] = True
    spectrum = np.fft.fft2(x, norm="ortho")
    m = np.fft.ifft2(y * spectrum / np.abs(spectrum), norm="ortho").real
    onto = lambda v: np.where(inside, np.clip(v, 0, 1), 0)  # noqa: E731
    r = 2 * m - x
    expected = {
        "er": onto(m),
        "hio": np.where(inside & (m >= 0) & (m <= 1), m, x - 0.8 * m),
        "raar": 0.4 * (2 * onto(r) - r + x) + 0.2 * m,
    }
    support = Support((SIDE, SIDE), (24, 24), torch.device("cpu"))
    for solver, value in expected.items():
        np.testing.assert_allclose(iterate(torch.from_numpy(x), torch.from_numpy(y), support, solver, 0.8), value, atol=1e-12)


@pytest.mark.parametrize("solver", ["hio", "raar"])
def test_it_finds_an_image_from_exact_magnitudes(solver):
    truth = picture()
    x, residual = solved(magnitudes(truth), starts(24), solver)
    assert psnr(x[0], truth).min() > 30 and (residual[1:] >= residual[:-1]).all()


def test_error_reduction_alone_does_not():
    """Negative control: the reason why there are others."""
    truth = picture()
    assert psnr(solved(magnitudes(truth), starts(24), "er")[0][0], truth).min() < 30


def test_a_shifted_spectrum_or_a_larger_object_is_not_found():
    truth = picture()
    wrong = torch.roll(magnitudes(truth), 1, -1)
    assert psnr(solved(wrong, starts(24))[0][0], truth).min() < 25
    small = solved(magnitudes(truth), starts(24)[..., :12, :12])[0][0]
    assert (
        solved(magnitudes(truth), starts(24)[..., :12, :12])[1][0].min()
        > 10 * solved(magnitudes(truth), starts(24))[1][0].max()
    )
    assert small.shape == (3, 12, 12)


def test_missing_pixels_are_no_zeros():
    truth = picture()
    y = magnitudes(truth)
    y[:, 11:14, 11:14] = torch.nan  # a beam stop over the brightest
    assert psnr(solved(y, starts(24))[0][0], truth).mean() > psnr(solved(y.nan_to_num(), starts(24))[0][0], truth).mean() + 5


def test_a_start_and_a_channel_know_no_other():
    y = magnitudes(picture()) + 0.05 * torch.randn(3, 24, 24, generator=torch.Generator().manual_seed(3))
    together = Bank(y, starts(5), "hio", 0.9)
    together.advance(40)
    alone = Bank(y[1:2], starts(5)[3:4, 1:2], "hio", 0.9)
    for _ in range(4):
        alone.advance(10)
    torch.testing.assert_close(together.x[3:4, 1:2], alone.x, rtol=0, atol=0)


def test_channels_are_turned_to_agree():
    truth = picture()
    turned = torch.stack([truth, truth]).clone()
    turned[0, 1], turned[1, 2] = truth[1].flip(-2, -1), truth[2].flip(-2, -1)
    aligned = in_one_orientation(turned)
    torch.testing.assert_close(aligned, torch.stack([truth, truth]))
    first = turned.clone()
    first[0, 0] = truth[0].flip(-2, -1)  # then all of them follow it
    torch.testing.assert_close(in_one_orientation(first)[0], truth.flip(-2, -1))
