"""PSNR, SSIM, the labels of the orientations, the label-free pick."""

import piq
import pytest
import torch

from utils.evaluation.scores import mode_labels, pick, rotated
from utils.metrics.psnr import psnr
from utils.metrics.r_factor import r_factor
from utils.metrics.ssim import Ssim


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


def off_by(upright_db, turned_db):
    """(truth, x), (3, 2, 8) each, with a value per half: PSNR upright_db as it is and turned_db turned, in each channel."""
    a, b = (2 * 10 ** (-db / 20) for db in (upright_db, turned_db))
    halves = torch.tensor([0.0, (b * b - a * a) ** 0.5]).repeat_interleave(4)
    return halves.expand(3, 2, 8), (halves + a).expand(3, 2, 8)


def label_of(truth, x, threshold_db=20.0, margin_db=3.0):
    return mode_labels(x[None], truth, threshold_db, margin_db)["label"][0]


@pytest.mark.parametrize(
    "upright_db, turned_db, expected",
    [
        (21.0, 17.0, "0"),
        (21.0, 19.0, "failed"),  # within the margin, though the other orientation is below the threshold
        (25.0, 21.0, "0"),  # both reach the threshold: by the margin
        (25.0, 23.0, "failed"),
        (19.0, 10.0, "failed"),
        (30.0, 24.0, "0"),
    ],
)
def test_an_orientation_needs_threshold_and_margin(upright_db, turned_db, expected):
    truth, x = off_by(upright_db, turned_db)
    modes = mode_labels(x[None], truth, 20.0, 3.0)
    assert (modes["psnr_0"][0], modes["psnr_180"][0]) == pytest.approx((upright_db, turned_db), abs=1e-3)
    assert modes["label"] == [expected]
    assert mode_labels(x[None], rotated(truth), 20.0, 3.0)["label"] == ["180" if expected == "0" else "failed"]


def test_mixed_needs_an_orientation_of_each_channel():
    """By threshold and margin, as the whole image; channels of one orientation are that of the image."""
    near, below, within = off_by(25.0, 20.5), off_by(19.0, 15.5), off_by(25.0, 23.0)

    def channels(*parts):
        """(truth, x) of a channel of each of the parts, the second turned."""
        turned = [(truth, rotated(x) if c == 1 else x) for c, (truth, x) in enumerate(parts)]
        return [torch.stack([part[i][0] for part in turned]) for i in (0, 1)]

    assert label_of(*channels(near, near, near)) == "mixed"
    assert label_of(*channels(near, near, below)) == "failed"
    assert label_of(*channels(near, near, within)) == "failed"
    assert label_of(*channels(near, near, near), margin_db=5.0) == "failed"
    assert label_of(*near) == "0"


def test_aligned_psnr_is_the_better_orientation():
    modes = mode_labels(noisy(rotated(truth()), 0.05)[None], truth(), 20.0, 3.0)
    assert modes["psnr_aligned"] == modes["psnr_180"] and modes["psnr_180"][0] > modes["psnr_0"][0]


def test_scores_are_piq_on_clipped_unit_images():
    x = torch.stack([noisy(truth(), 0.3), noisy(truth(), 0.9)])
    unit = (0.5 * x + 0.5).clip(0, 1)
    reference = (0.5 * truth() + 0.5).expand(2, -1, -1, -1)
    mean_square = (unit - reference).square().flatten(1).mean(1)
    torch.testing.assert_close(psnr(x, truth()), -10 * mean_square.log10(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(Ssim()(x, truth()), piq.ssim(unit, reference, reduction="none"))


def test_pick_ignores_the_truth_and_missing_particles():
    assert pick([3.0, 1.0, 2.0]) == 1
    assert pick([None, float("nan"), 2.0]) == 2
    assert pick([None, None]) is None


def test_the_r_factor_is_the_unexplained_share_of_what_was_measured():
    y = torch.tensor([[2.0, 3.0, float("nan"), 5.0]])
    seen = torch.tensor([[1.0, 3.0, 9.0, 6.0]])
    assert r_factor(seen, y).tolist() == pytest.approx([2 / 10])
    assert r_factor(y.nan_to_num(4.0), 7 * y)[0] == pytest.approx(6 / 7)
    assert r_factor(y.nan_to_num(4.0), 7 * y, free_scale=True)[0] == pytest.approx(0, abs=1e-6)
