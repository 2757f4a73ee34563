"""Scores of particles against the truth, mode labels, the label-free pick."""

import logging
import math
import warnings
from pathlib import Path

import piq
import torch

from operators.gradients import multi_scale_gradient

log = logging.getLogger("latentdaps")

LPIPS_FILES = ("vgg16-397923af.pth", "lpips_weights.pt")
LPIPS_ALEX_FILE = "alexnet-owt-7be5be79.pth"


def to_unit(x):
    """[-1, 1] -> [0, 1], clipped; what every score is computed on. Not-a-number becomes 0."""
    return torch.nan_to_num(0.5 * x + 0.5).clip(0, 1)


def psnr(x, truth):
    """(P,) PSNR in dB of images x (P, C, H, W) against `truth`, broadcast to x, both in [-1, 1].

    piq.psnr without its checks of the range, which wait for the device: the trace asks at each annealing step.
    """
    return -10 * torch.log10((to_unit(x) - to_unit(truth)).square().mean((1, 2, 3)) + 1e-8)


def ssim(x, truth):
    """(P,) SSIM of images in [-1, 1], at least 11 pixels wide."""
    return piq.ssim(to_unit(x), to_unit(truth).expand(x.shape), data_range=1.0, reduction="none")


def gradient_error(x, truth):
    """(P,) multi-scale gradient error of images in [-1, 1], at least 3 pixels wide: of their difference in [0, 1]."""
    difference = to_unit(x) - to_unit(truth)
    return multi_scale_gradient(difference, torch.ones_like(difference, dtype=torch.bool)).sum(1)


def _weights_folder():
    """Where torchvision and piq look for downloaded weights."""
    return Path(torch.hub.get_dir()) / "checkpoints"


class Lpips:
    """LPIPS with average pooling, as DAPS reports it; None with one warning where the weights are absent."""

    def __init__(self):
        folder = _weights_folder()
        missing = [name for name in LPIPS_FILES if not (folder / name).is_file()]
        self.network = None
        if missing:
            log.warning("LPIPS is left out: put %s into %s (docs/data.md, section LPIPS)", " and ".join(missing), folder)
        else:
            self.network = piq.LPIPS(replace_pooling=True, reduction="none")

    def __call__(self, x, truth):
        """(P,) scores, or P times None."""
        if self.network is None:
            return [None] * len(x)
        with torch.no_grad():
            return self.network(to_unit(x), to_unit(truth).expand(x.shape)).flatten().tolist()


class LpipsAlex:
    """LPIPS with AlexNet, as its authors' package `lpips` computes it (Zhang et al., arXiv 1801.03924); optional.

    Only the backbone has to be there: the package brings the linear weights.
    """

    MIN_SIDE = 31  # pixels; the second pooling has nothing left of a smaller image

    def __init__(self):
        self.network = None
        if (_weights_folder() / LPIPS_ALEX_FILE).is_file():
            import lpips

            with warnings.catch_warnings():  # the package asks torchvision in an older way
                warnings.simplefilter("ignore")
                self.network = lpips.LPIPS(net="alex", verbose=False)

    def __call__(self, x, truth):
        """(P,) scores of images (P, 3, H, W) in [-1, 1], or None where the backbone is absent or the images too small."""
        if self.network is None or min(x.shape[-2:]) < self.MIN_SIDE:
            return None
        with torch.no_grad():
            return self.network(to_unit(x), to_unit(truth).expand(x.shape), normalize=True).flatten().tolist()


def r_factor(seen, y, free_scale=False):
    """sum |A(x) - y| / sum |y| of the measured values, (P,): how much of the measurement is not explained; 0 at best.

    seen: A(x), (P, ...); y (P, ...), NaN where nothing was measured; free_scale: A(x) times the number that fits best, for
    measurements of an unknown exposure. Crystallography's R1.
    """
    measured = ~torch.isnan(y)
    if free_scale:
        both, own = (torch.where(measured, seen * v, 0.0).flatten(1).sum(1) for v in (y, seen))
        seen = seen * (both / own).view(-1, *[1] * (seen.dim() - 1))
    off, size = (torch.where(measured, v.abs(), 0.0).flatten(1).sum(1) for v in (seen - y, y))
    return off / size


def rotated(x):
    """The image turned by 180 degrees."""
    return torch.flip(x, (-2, -1))


def mode_labels(x, truth, threshold_db, margin_db):
    """Which of the two orientations each particle found; x (P, C, H, W), truth (C, H, W).

    "0" or "180": the whole image reaches the threshold in that orientation and beats the other by the margin.
    "mixed": every channel does, but in different orientations. "failed": anything else.
    Returns a dict: label (P strings), psnr_0, psnr_180, psnr_aligned (P floats, the better of the two).
    """
    upright, turned = psnr(x, truth), psnr(x, rotated(truth))
    channels = x.reshape(-1, 1, *x.shape[-2:])  # (P C, 1, H, W): PSNR of each channel
    per_channel = [psnr(channels, t.repeat(len(x), 1, 1)[:, None]).reshape(len(x), -1) for t in (truth, rotated(truth))]

    def orientation(a, b):
        return (a > threshold_db) & (a > b + margin_db), (b > threshold_db) & (b > a + margin_db)

    is_upright, is_turned = orientation(upright, turned)
    channel_upright, channel_turned = orientation(*per_channel)
    # channels of one orientation give it to the whole image: in what is left they differ
    mixed = (channel_upright | channel_turned).all(1)
    labels = [
        "0" if a else "180" if b else "mixed" if m else "failed"
        for a, b, m in zip(is_upright.tolist(), is_turned.tolist(), mixed.tolist())
    ]
    return {
        "label": labels,
        "psnr_0": upright.tolist(),
        "psnr_180": turned.tolist(),
        "psnr_aligned": torch.maximum(upright, turned).tolist(),
    }


PICK_RULES = {
    "loss": "lowest measurement loss of the final latent",
    "free_loss": "lowest loss of the measurements kept out of the fit",
}


def pick(losses):
    """Position of the particle that a user without ground truth would take, None if there is none."""
    finite = [(value, i) for i, value in enumerate(losses) if value is not None and math.isfinite(value)]
    return min(finite)[1] if finite else None
