"""Classical solvers of phase retrieval: their projections and steps, what they find, and that no start knows another."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from operators.phase_retrieval import PhaseRetrieval
from utils.noise import KeyedNoise
from utils.sampling.phase_solvers import SPREAD, Bank, Magnitudes, Support, averaged, bank_of, iterate, put_together

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
    y = Magnitudes(magnitudes(truth))
    torch.testing.assert_close(y.onto(support.padded(truth)), support.padded(truth), atol=1e-5, rtol=0)
    projected = y.onto(support.padded(starts(1)[0]))
    torch.testing.assert_close(torch.fft.fft2(projected, norm="ortho").abs(), y.y, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(y.onto(projected), projected, atol=1e-5, rtol=0)  # a projection
    assert y.residual(projected).max() < 1e-6 < y.residual(support.padded(starts(1)[0])).min()


def test_what_was_not_measured_keeps_its_spectrum():
    truth, x = picture(), starts(1)[0]
    y = magnitudes(truth)
    y[:, 3:6, 2:9] = torch.nan
    field = Support((SIDE, SIDE), (24, 24), torch.device("cpu")).padded(x)
    measured = Magnitudes(y)
    missing = torch.isnan(measured.y) & torch.isnan(torch.roll(measured.y.flip(-2, -1), (1, 1), (-2, -1)))  # k and -k
    before, after = (torch.fft.fft2(v, norm="ortho") for v in (field, measured.onto(field)))
    torch.testing.assert_close(after[missing], before[missing], atol=1e-5, rtol=0)


@pytest.mark.parametrize("field", [24, 25])
def test_half_a_spectrum_says_the_same_as_the_whole(field):
    """Of magnitudes with noise, which differ at k and -k, with some of them missing and some negative."""
    generator = np.random.default_rng(0)
    x = generator.random((field, field)) - 0.2
    y = generator.standard_normal((field, field)) + 1
    y[2:7, 5:9] = np.nan
    spectrum = np.fft.fft2(x, norm="ortho")
    corner = np.fft.ifftshift(y)
    aim = np.where(np.isnan(corner), spectrum, np.clip(corner, 0, None) * spectrum / np.abs(spectrum))
    expected = np.fft.ifft2(aim, norm="ortho").real
    np.testing.assert_allclose(Magnitudes(torch.from_numpy(y)).onto(torch.from_numpy(x)), expected, atol=1e-12)
    off = (np.abs(spectrum) - corner) ** 2
    np.testing.assert_allclose(Magnitudes(torch.from_numpy(y)).residual(torch.from_numpy(x)), np.nansum(off), rtol=1e-12)


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
    measured = Magnitudes(torch.from_numpy(np.fft.fftshift(y)))
    for solver, value in expected.items():
        np.testing.assert_allclose(iterate(torch.from_numpy(x), measured, support, solver, 0.8), value, atol=1e-12)


@pytest.mark.heavy
@pytest.mark.parametrize("solver", ["hio", "raar"])
def test_it_finds_an_image_from_exact_magnitudes(solver):
    truth = picture()
    x, residual = solved(magnitudes(truth), starts(24), solver)
    assert psnr(x[0], truth).min() > 30 and (residual[1:] >= residual[:-1]).all()


@pytest.mark.heavy
def test_error_reduction_alone_does_not():
    """Negative control: the reason why there are others."""
    truth = picture()
    assert psnr(solved(magnitudes(truth), starts(24), "er")[0][0], truth).min() < 30


@pytest.mark.heavy
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


@pytest.mark.heavy
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


def rivals():
    """A truth, (8, 3, H, W) with its channels in different rows, some turned, among those of other images, and residuals."""
    truth = picture()
    others = torch.stack([picture(seed) for seed in range(1, 9)])
    x = torch.stack([others[:, 0], others[:, 1].roll(1, 0), others[:, 2].roll(3, 0)], 1)  # of a row, no two of one picture
    x[5, 0], x[2, 1], x[7, 2] = truth[0].flip(-2, -1), truth[1], truth[2].flip(-2, -1)
    return truth, x, torch.ones(8, 3)


def test_channels_that_agree_are_put_together_and_turned():
    truth, x, residual = rivals()
    objects, residuals = put_together(x, residual, 4, floor=1.0)
    torch.testing.assert_close(objects[0], truth)
    assert objects.shape == (4, 3, SIDE, SIDE) and residuals.shape == (4, 3)
    middle = objects[:, 1].flatten(1)
    assert torch.cdist(middle, middle).add(torch.eye(4)).min() > 0.1  # four different ones


def test_a_channel_that_does_not_fit_is_not_taken_for_its_looks():
    truth, x, residual = rivals()
    residual[2, 1] = 20.0  # the true green, far above the others
    objects, residuals = put_together(x, residual, 1, floor=1.0)
    assert residuals.max() == 1.0
    objects, residuals = put_together(x, residual, 1, floor=1000.0)  # within what noise does
    torch.testing.assert_close(objects[0], truth)
    assert residuals[0].tolist() == [1.0, 20.0, 1.0]


def test_of_one_channel_the_smallest_residuals_are_the_objects():
    x, residual = starts(5, channels=1), torch.arange(5.0)[:, None]
    objects, residuals = put_together(x, residual, 2, floor=1.0)
    assert torch.equal(objects, x[:2]) and residuals[:, 0].tolist() == [0.0, 1.0]


def box(rows, columns):
    where = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    where[rows, columns] = True
    return where


BETWEEN = dict(frame=(28, 25), offset=(0.5, -0.25))  # samples, and where they lie between the whole frequencies


@pytest.mark.parametrize("offset", [(0.5, 0.0), (-0.3, 0.2)])
def test_the_projection_between_frequencies_is_the_one_that_is_written(offset):
    generator = np.random.default_rng(0)
    x, y = generator.random((24, 21)) - 0.2, generator.random((24, 21)) * 3
    y[2:7, 5:9] = np.nan
    row, column = np.indices(x.shape)
    ramp = np.exp(-2j * np.pi * (offset[0] * row / 24 + offset[1] * column / 21))
    spectrum, corner = np.fft.fft2(x * ramp, norm="ortho"), np.fft.ifftshift(y)
    aim = np.where(np.isnan(corner), spectrum, corner * spectrum / np.abs(spectrum))
    expected = (np.fft.ifft2(aim, norm="ortho") * ramp.conj()).real
    measured, field = Magnitudes(torch.from_numpy(y), offset), torch.from_numpy(x)
    np.testing.assert_allclose(measured.onto(field), expected, atol=1e-12)
    np.testing.assert_allclose(measured.residual(field), np.nansum((np.abs(spectrum) - corner) ** 2), rtol=1e-12)


@pytest.mark.parametrize("where", [None, box(slice(3, 12), slice(5, 11))])
def test_an_object_stays_where_its_frame_of_any_kind_is_met(where):
    truth = picture() if where is None else picture() * where
    y = PhaseRetrieval(**BETWEEN, inside=where)(2 * truth[None] - 1)[0]
    bank = Bank(y, truth[None], "er", 0.9, BETWEEN["offset"], where)
    bank.finish()
    x, residual = bank.ranked()
    torch.testing.assert_close(x[0], truth, atol=1e-5, rtol=0)
    assert residual.max() < 1e-6


def test_the_bank_of_an_image_knows_what_its_operator_says_of_the_frame():
    where = box(slice(3, 12), slice(5, 11))
    truth, operator = picture() * where, PhaseRetrieval(**BETWEEN, inside=where)
    settings = SimpleNamespace(solver="hio", restarts=2, beta=0.9)
    bank, _ = bank_of(operator(2 * truth[None] - 1), 0, SIDE, operator, KeyedNoise(0), settings)
    assert bank.magnitudes.residual(bank.support.padded(truth)).max() < 1e-6
    assert torch.equal(bank.support.cut(bank.support.inside), where)


@pytest.mark.heavy
def test_a_support_finds_what_the_whole_square_does_not():
    """Few starts, few iterations; and one that is no turn of itself finds its one orientation."""
    where = box(slice(3, 12), slice(5, 11))
    where[3:7, 5:8] = False
    truth = picture() * where
    y = magnitudes(truth)
    found = {}
    for name, support in (("support", where), ("square", None)):
        bank = Bank(y, starts(8), "hio", 0.9, support=support)
        bank.advance(200)
        bank.finish()
        found[name] = bank.ranked()[0][0]
    error = {name: (x - truth).square().mean((-2, -1)).max() for name, x in found.items()}
    assert error["support"] < 1e-6 and error["square"] > 1e-3
    assert (found["support"][:, ~where] == 0).all()


def test_channels_are_put_together_as_they_are_where_a_turn_does_not_fit():
    x = torch.stack([picture(1), picture(2)])
    x[:, 0], residual = x[:, 0].flip(-2, -1), torch.ones(2, 3)
    objects, _ = put_together(x, residual, 1, floor=1.0, turns=False)
    assert all(any(torch.equal(channel, candidate[c]) for candidate in x) for c, channel in enumerate(objects[0]))
    turned, _ = put_together(x, residual, 1, floor=1.0)
    assert not torch.equal(turned[0, 0], objects[0, 0])


# objects that are known nearly


def test_a_channel_becomes_the_mean_of_the_solutions_most_alike_turned_onto_it():
    truth, (one, two) = picture(), 0.1 * starts(2)
    candidates = torch.stack([starts(1, seed=2)[0], truth + one, (truth + two).flip(-2, -1), starts(1, seed=3)[0]])
    mean = averaged(truth[None], candidates, 2)
    torch.testing.assert_close(mean, (truth + (one + two) / 2)[None])
    torch.testing.assert_close(averaged(truth[None].flip(-2, -1), candidates, 2), mean.flip(-2, -1))
    torch.testing.assert_close(averaged(truth[None], candidates, 1), (truth + one)[None], atol=0.1, rtol=0)
    unturned = averaged(truth[None], candidates, 1, turns=False)
    torch.testing.assert_close(unturned, (truth + one)[None])


def test_each_channel_chooses_by_itself_and_nothing_of_what_diverged():
    truth = picture()
    lost, diverged = truth.clone(), torch.full_like(truth, torch.nan)
    lost[1] = starts(1)[0, 1]
    candidates = torch.stack([diverged, lost, truth])
    mean = averaged(truth[None], candidates, 2, turns=False)[0]
    torch.testing.assert_close(mean[[0, 2]], truth[[0, 2]])
    torch.testing.assert_close(mean[1], (truth[1] + lost[1]) / 2)
    torch.testing.assert_close(averaged(truth[None], candidates, 3, turns=False)[0], mean)


def test_starts_lie_near_the_objects_in_turn():
    around = torch.stack([picture(), picture(1)])
    settings, operator = SimpleNamespace(solver="raar", restarts=5, beta=0.9), PhaseRetrieval()
    bank, _ = bank_of(operator(2 * around[:1] - 1), 0, SIDE, operator, KeyedNoise(0), settings, around)
    start = bank.support.cut(bank.x)
    assert start.shape == (5, 3, SIDE, SIDE) and start.min() >= 0 and start.max() <= 1
    off = start - around[[0, 1, 0, 1, 0]]
    assert off.abs().max() <= SPREAD / 2 and off[0].std() > 0.05 and not torch.equal(off[0], off[2])
