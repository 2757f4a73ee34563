"""The multi-scale gradient error: how far edges are off, which the mean square hardly sees.

Source: Ranftl et al., "Towards Robust Monocular Depth Estimation", arXiv 1907.01341, eq. 11 (after Li and Snavely,
MegaDepth, CVPR 2018), with Sobel's kernels in place of forward differences.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F

REDUCTIONS = (1, 2, 4, 8)
# d/dx and d/dy per pixel, (2, 1, 3, 3)
SOBEL = torch.tensor([[[[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]], [[[-1.0, -2, -1], [0, 0, 0], [1, 2, 1]]]]) / 8


def multi_scale_gradient(residual: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Share of each channel in the error of a residual image R (P, C, H, W), (P, C); over the channels it adds up to

        mean over scales 1, 1/2, 1/4, 1/8 of mean over valid pixels of |dR/dx| + |dR/dy|.

    R is resized bilinearly, `known` (like R, bool: what was measured) by nearest; a derivative is valid where its centre is
    known. A scale without valid pixels is skipped, of one particle or, where a side is below 3 pixels, of all.
    In the units of R per pixel of the scale.
    """
    sobel = SOBEL.to(residual.device, residual.dtype)
    total = residual.new_zeros(residual.shape[:2])
    scales = residual.new_zeros(len(residual), 1)
    for reduction in REDUCTIONS:
        size = [side // reduction for side in residual.shape[-2:]]
        if min(size) < 3:
            break
        scaled, mask = residual, known.to(residual.dtype)
        if reduction > 1:
            rows, columns = (linear_reduction(*sides).to(residual) for sides in zip(residual.shape[-2:], size))
            scaled = rows @ residual @ columns.T
            mask = F.interpolate(mask, size, mode="nearest")
        slopes = F.conv2d(scaled.reshape(-1, 1, *size), sobel).abs().sum(1).view(*residual.shape[:2], size[0] - 2, size[1] - 2)
        mask = mask[..., 1:-1, 1:-1]
        valid = mask.flatten(1).sum(1)[:, None]  # (P, 1)
        total = total + (slopes * mask).flatten(2).sum(2) / valid.clamp(min=1)
        scales = scales + (valid > 0)
    return total / scales.clamp(min=1)


@lru_cache(maxsize=16)
def linear_reduction(side: int, reduced: int) -> torch.Tensor:
    """(reduced, side): linear resizing as a product, because XLA takes the gradient of a bilinear one to the host."""
    return F.interpolate(torch.eye(side, dtype=torch.float64)[None], reduced, mode="linear", align_corners=False)[0].T
