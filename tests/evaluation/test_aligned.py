"""The particles of one image together: turned onto the pick, who agrees, their mean and spread, the detail they agree on."""

import itertools
import math

import pytest
import torch

from utils.evaluation.aligned import correlation, resolution, summarise, transfer_function, turned_onto


def picture(seed=0, side=16):
    """(3, side, side) in [0, 1], far from its own rotation."""
    return torch.rand(3, side, side, generator=torch.Generator().manual_seed(seed))


def noisy(image, std, seed):
    return image + std * torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))


def turned(image, *channels):
    image = image.clone()
    image[list(channels)] = image[list(channels)].flip(-2, -1)
    return image


def test_each_channel_is_turned_onto_the_picks_where_it_may():
    found = [noisy(turned(picture(), *channels), 0.05, i) for i, channels in enumerate([(), (0, 1, 2), (0,), (0, 2)])]
    x = torch.stack(found)
    upright = torch.stack([noisy(picture(), 0.0, 0), *[turned(v, *c) for v, c in zip(found[1:], [(0, 1, 2), (0,), (0, 2)])]])
    upright[0] = found[0]
    assert torch.equal(turned_onto(x, x[0], "channels"), upright)
    # as a whole the second is upright when turned, the third as it is, and the fourth, two channels of three, turned
    whole = torch.stack([found[0], found[1].flip(-2, -1), found[2], found[3].flip(-2, -1)])
    assert torch.equal(turned_onto(x, x[0], "image"), whole)
    assert torch.equal(turned_onto(x, x[0], None), x)


def test_correlation_sees_neither_brightness_nor_contrast_and_no_plain_channel():
    x = torch.stack([0.5 * picture() + 0.2, 1 - picture(), torch.full((3, 16, 16), 0.3)])
    torch.testing.assert_close(correlation(x, picture()), torch.tensor([[1.0] * 3, [-1.0] * 3, [0.0] * 3]), atol=1e-4, rtol=0)


def test_another_solution_is_left_out_by_one_channel_alone():
    wrong = picture()
    wrong[2] = picture(1)[2]
    x = torch.stack([noisy(picture(), 0.02, 0), wrong, noisy(picture().flip(-2, -1), 0.02, 1), noisy(picture(), 0.02, 2)])
    found = summarise(x, 0, "channels")
    assert found.agreeing == [True, False, True, True]
    same = torch.stack([x[0], x[2].flip(-2, -1), x[3]])
    assert torch.equal(found.mean, same.mean(0))
    torch.testing.assert_close(found.std, (same - same.mean(0)).square().sum(0).div(2).sqrt())
    assert summarise(x, 0, None).agreeing == [True, False, False, True]


def test_a_pick_with_whom_nobody_agrees_has_no_spread():
    x = torch.stack([picture(1), torch.full((3, 16, 16), 0.5), picture(2)])
    found = summarise(x, 1, "channels")
    assert found.agreeing == [False, True, False] and torch.equal(found.mean, x[1])
    assert found.std is None and found.prtf is None and found.resolution is None


def test_the_mean_is_nearer_to_the_truth_than_each():
    truth = picture()
    x = torch.stack([noisy(turned(truth, *c), 0.05, i) for i, c in enumerate([(0,), (0, 1, 2), (), (1,)])])
    found = summarise(x, 1, "channels")
    error = (found.mean.flip(-2, -1) - truth).square().mean()
    assert error < 0.4 * min((turned(v, *c) - truth).square().mean() for v, c in zip(x, [(0,), (0, 1, 2), (), (1,)]))


def test_the_transfer_function_is_the_mean_cosine_of_phase_differences():
    x = torch.stack([noisy(picture(side=8), 0.3, i) for i in range(3)]).double()
    phase = torch.fft.fft2(x).angle()
    pairs = [torch.cos(phase[a] - phase[b]) for a, b in itertools.combinations(range(3), 2)]
    cosine = torch.stack(pairs).mean((0, 1))  # (8, 8)
    grid = torch.fft.fftfreq(8).double() * 8
    shell = (grid[:, None] ** 2 + grid**2).sqrt().round()
    expected = [cosine[shell == s].mean().clamp(min=0).sqrt() for s in range(5)]
    torch.testing.assert_close(transfer_function(x), torch.stack(expected))


def test_equal_images_agree_everywhere_and_random_phases_nowhere():
    """Four random phases have |mean| of about 1/2, above the 1/e that counts: the plain formula would call them resolved."""
    same = transfer_function(picture(side=64).expand(4, -1, -1, -1))
    torch.testing.assert_close(same, torch.ones(33))
    x = torch.stack([picture(i, side=64) for i in range(4)])
    plain = torch.sgn(torch.fft.fft2(x)).mean(0).abs().mean()
    assert plain > 1 / math.e
    found = transfer_function(x)
    assert found[0] == 1  # all are bright
    assert found[8:].square().mean() < 0.05 and found[8:].max() < 1 / math.e


@pytest.mark.parametrize("cut", [5, 20])
def test_the_resolution_is_where_agreement_ends(cut):
    """Images that share what is coarser than `cut` periods along the side, and nothing finer."""
    side = 64
    grid = torch.fft.fftfreq(side) * side
    coarse = (grid[:, None] ** 2 + grid**2).sqrt() <= cut + 0.5
    shared = torch.fft.fft2(picture(9, side))
    x = torch.stack([torch.fft.ifft2(torch.where(coarse, shared, torch.fft.fft2(picture(i, side)))).real for i in range(4)])
    found = transfer_function(x)
    assert found[: cut + 1].min() > 0.99
    assert resolution(found, side) == pytest.approx(side / cut, rel=1 / cut)


@pytest.mark.parametrize(
    "prtf, expected", [([1, 1, 0.3, 0.9, 0.2], 8), ([1, 0.4, 0.37, 0.37, 0.37], 2), ([1, 0.36, 1, 1, 1], None)]
)
def test_the_resolution_is_the_last_shell_before_the_first_fall(prtf, expected):
    assert resolution(prtf, 8) == expected


def test_a_shell_is_of_the_longer_side():
    found = transfer_function(torch.stack([picture()[:, :8], noisy(picture()[:, :8], 0.1, 1)]))
    assert len(found) == 9 and bool(torch.isfinite(found).all())
