"""PSNR, SSIM, the labels of the orientations, the label-free pick."""

import piq
import torch

from utils.evaluation.scores import mode_labels, pick, psnr, rotated, ssim


def truth(side=16):
    """A picture that differs from its own rotation by far, (3, side, side) in [-1, 1]."""
    ramp = torch.linspace(-0.9, 0.9, side)
    return torch.stack([ramp[:, None].expand(side, side), ramp.expand(side, side), -ramp[:, None].expand(side, side)])


def noisy(image, std, seed=0):
    return image + std * torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))


def labels(*images):
    return mode_labels(torch.stack(images), truth(), 20.0, 3.0)["label"]


def test_labels_of_the_two_orientations():
    turned = rotated(truth())
    assert labels(truth(), turned, noisy(turned, 0.02)) == ["0", "180", "180"]


def test_channels_in_different_orientations_are_mixed():
    mixed = truth().clone()
    mixed[1] = rotated(truth())[1]
    assert labels(mixed) == ["mixed"]


def test_a_poor_particle_is_failed():
    assert labels(noisy(truth(), 0.8), torch.zeros(3, 16, 16)) == ["failed", "failed"]


def test_an_image_like_its_own_rotation_needs_the_margin():
    """A nearly symmetric dark image exceeds any threshold both ways: the margin decides."""
    dark = torch.full((3, 16, 16), -0.95)
    dark[:, 2, 3] += 0.05
    both = mode_labels(dark[None], dark, 20.0, 3.0)
    assert both["psnr_0"][0] > 20 and both["psnr_180"][0] > 20
    assert both["label"] == ["0"]  # exact: it beats the other by more than the margin
    blurred = torch.full((1, 3, 16, 16), -0.95)
    assert mode_labels(blurred, dark, 20.0, 3.0)["label"] == ["failed"]


def test_aligned_psnr_is_the_better_orientation():
    modes = mode_labels(noisy(rotated(truth()), 0.05)[None], truth(), 20.0, 3.0)
    assert modes["psnr_aligned"] == modes["psnr_180"] and modes["psnr_180"][0] > modes["psnr_0"][0]


def test_scores_are_piq_on_clipped_unit_images():
    x = torch.stack([noisy(truth(), 0.3), noisy(truth(), 0.9)])
    unit = (0.5 * x + 0.5).clip(0, 1)
    reference = (0.5 * truth() + 0.5).expand(2, -1, -1, -1)
    mean_square = (unit - reference).square().flatten(1).mean(1)
    torch.testing.assert_close(psnr(x, truth()), -10 * mean_square.log10(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ssim(x, truth()), piq.ssim(unit, reference, reduction="none"))


def test_pick_ignores_the_truth_and_missing_particles():
    assert pick([3.0, 1.0, 2.0]) == 1
    assert pick([None, float("nan"), 2.0]) == 2
    assert pick([None, None]) is None
