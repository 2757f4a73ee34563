"""A share of the measured values is kept out of the fit, so that the particles' loss on them is a test and no fit.

Crystallography's free set (Bruenger, Nature 355, 472 (1992)). Where the values at k and -k of a centred spectrum are the same
but for their noise (operators.base.Operator.spectrum), both are in the set or neither: the other one would give it away.
"""

from collections.abc import Sequence

import torch

from utils.noise import KeyedNoise


def split(
    y: torch.Tensor, images: Sequence[int], fraction: float, noise: KeyedNoise, paired: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """(fitted, free): the measurements y (N, ...), each NaN where the other has a value; both where y has none.

    A value is free by seed, image and place alone, and the free ones of a smaller fraction are free at a larger one.
    """
    draws = [noise.free_pixels(image, y.shape[1:]) for image in images]
    drawn = torch.stack([of_pairs(each) if paired else each for each in draws]).to(y.device)
    free = drawn < fraction
    missing = torch.full_like(y, torch.nan)
    return torch.where(free, missing, y), torch.where(free, y, missing)


def of_pairs(drawn: torch.Tensor) -> torch.Tensor:
    """(..., H, W) in which k and -k of a centred spectrum have the number that the earlier of the two had."""
    height, width = drawn.shape[-2:]
    place = torch.arange(height * width).view(height, width)
    down, across = ((2 * (n // 2) - torch.arange(n)) % n for n in (height, width))  # where -k stands
    first = torch.minimum(place, place[down][:, across])
    return drawn.flatten(-2)[..., first.flatten()].view(drawn.shape)
