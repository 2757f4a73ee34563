"""Losses of particles that are compared with each other: each with what its operator adds for that."""

import torch

from operators.base import Operator


def owed(operator: Operator, image: torch.Tensor, y: torch.Tensor, same_image: torch.Tensor) -> torch.Tensor | None:
    """The operator's handicap (P,) beyond the smallest of the particle's image; None where it has none.

    image (P, 3, H, W), y (P, ...), same_image (P, P) bool.
    """
    handicap = operator.handicap(image, y)
    if handicap is None:
        return None
    comparable = torch.where(torch.isnan(handicap), torch.inf, handicap)
    return handicap - torch.where(same_image, comparable[None], torch.inf).min(dim=1).values
