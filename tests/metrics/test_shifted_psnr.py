"""PSNR in the better orientation and at the best place."""

import pytest
import torch

from utils.metrics.psnr import psnr
from utils.metrics.shifted_psnr import ShiftedPsnr


def picture(side=24, margin=8):
    x = -torch.ones(3, side, side)
    inner = torch.rand(3, side - 2 * margin, side - 2 * margin, generator=torch.Generator().manual_seed(0))
    x[:, margin:-margin, margin:-margin] = 2 * inner - 1
    return x


def test_it_finds_the_place_and_the_orientation():
    truth = picture()
    moved = torch.stack([truth, truth.roll((3, -5), (-2, -1)), truth.flip(-2, -1).roll((-4, 2), (-2, -1)), truth * 0.5])
    values = ShiftedPsnr()(moved, truth)
    assert values[:3].tolist() == pytest.approx([80.0] * 3, abs=0.1)  # no difference, to the 1e-8 of psnr
    assert values[3].item() == pytest.approx(psnr(truth[None] * 0.5, truth).item(), abs=1e-3)
    assert (psnr(moved[1:3], truth) < 20).all()


def test_each_axis_and_direction_has_its_own_shift():
    truth = picture()
    for shift in ((5, 0), (-5, 0), (0, 5), (0, -5)):
        assert ShiftedPsnr()(truth.roll(shift, (-2, -1))[None], truth).item() > 70


def test_no_further_than_the_share():
    truth = picture()
    moved = truth.roll(7, -1)[None]
    assert ShiftedPsnr(0.25)(moved, truth).item() < 30 < 70 < ShiftedPsnr(0.3)(moved, truth).item()


def test_it_is_never_below_the_psnr():
    generator = torch.Generator().manual_seed(1)
    x, truth = 2 * torch.rand(4, 3, 16, 16, generator=generator) - 1, picture(16, 4)
    assert (ShiftedPsnr()(x, truth) >= torch.maximum(psnr(x, truth), psnr(x.flip(-2, -1), truth)) - 1e-4).all()
