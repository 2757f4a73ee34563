"""The labels of the orientations, the label-free pick."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from utils.metrics.psnr import psnr


def rotated(x: torch.Tensor) -> torch.Tensor:
    """The image turned by 180 degrees."""
    return torch.flip(x, (-2, -1))


def mode_labels(x: torch.Tensor, truth: torch.Tensor, threshold_db: float, margin_db: float) -> dict[str, list]:
    """Which of the two orientations each particle found; x (P, C, H, W), truth (C, H, W).

    "0" or "180": the whole image reaches the threshold in that orientation and beats the other by the margin.
    "mixed": every channel does, but in different orientations. "failed": anything else.
    Returns a dict: label (P strings), psnr_0, psnr_180, psnr_aligned (P floats, the better of the two).
    """
    upright, turned = psnr(x, truth), psnr(x, rotated(truth))
    channels = x.reshape(-1, 1, *x.shape[-2:])  # (P C, 1, H, W): PSNR of each channel
    per_channel = [psnr(channels, t.repeat(len(x), 1, 1)[:, None]).reshape(len(x), -1) for t in (truth, rotated(truth))]

    def orientation(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (a > threshold_db) & (a > b + margin_db), (b > threshold_db) & (b > a + margin_db)

    is_upright, is_turned = orientation(upright, turned)
    channel_upright, channel_turned = orientation(*per_channel)
    # channels of one orientation give it to the whole image: in what is left they differ
    mixed = (channel_upright | channel_turned).all(1)
    holds = [each.cpu().numpy() for each in (is_upright, is_turned, mixed)]
    labels = np.select(holds, ["0", "180", "mixed"], "failed").tolist()
    return {
        "label": labels,
        "psnr_0": upright.tolist(),
        "psnr_180": turned.tolist(),
        "psnr_aligned": torch.maximum(upright, turned).tolist(),
    }


PICK_RULE = "lowest measurement loss of the final latent"


def pick(losses: Sequence[float | None]) -> int | None:
    """Position of the particle that a user without ground truth would take, None if there is none."""
    finite = [(value, i) for i, value in enumerate(losses) if value is not None and math.isfinite(value)]
    return min(finite)[1] if finite else None
