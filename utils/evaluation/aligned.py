"""What the particles of one image say together, without the truth: their mean, its spread, and the detail they agree on.

Where the measurement does not see a turn by 180 degrees, particles are first turned onto one of them, the label-free pick;
those that are another solution are left out. All images (P, C, H, W) in [0, 1].

The phase retrieval transfer function of N aligned images with phases phi_n(k) in one frequency shell (Shapiro et al., PNAS
102, 15343 (2005); Chapman et al., JOSA A 23, 1179 (2006), eq. 13) is the mean over the shell of R(k) = |<exp(i phi_n(k))>_n|,
and a detail counts as resolved where it is above 1/e. For images of random phases R is not 0 but about N^(-1/2), which for
four is above 1/e. Here it is the value without that floor, the root of the pairs' mean:

    PRTF^2 = <(N R(k)^2 - 1) / (N - 1)>_k = <cos(phi_n(k) - phi_m(k))>_(k, n < m), and 0 where this is below 0
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from operators.base import Operator

AGREEING = 0.95  # correlation with the pick from which on a channel is the same solution: docs/research/measured/trust.md
RESOLVED = 1 / math.e


class Summary(NamedTuple):
    """Of one image's particles; std and prtf are None where fewer than two agree."""

    agreeing: list[bool]  # whose channels all agree with the pick's
    mean: torch.Tensor  # (C, H, W) of the agreeing ones
    std: torch.Tensor | None  # (C, H, W) their standard deviation with ddof 1
    prtf: torch.Tensor | None  # (shells,) from frequency 0 to 0.5 cycles a pixel
    resolution: float | None  # period in pixels of the finest shell that is still resolved, from 2 on


def summarise(x: torch.Tensor, picked: int, turns: str | None) -> Summary:
    """The summary of images x (P, C, H, W) of which number `picked` is the pick; turns: see `turned_onto`."""
    aligned = turned_onto(x, x[picked], turns)
    agreeing = (correlation(aligned, x[picked]) >= AGREEING).all(1)
    agreeing[picked] = True  # an image of one colour has no correlation
    same = aligned[agreeing]
    if len(same) < 2:
        return Summary(agreeing.tolist(), same.mean(0), None, None, None)
    prtf = transfer_function(same)
    return Summary(agreeing.tolist(), same.mean(0), same.std(0), prtf, resolution(prtf, max(x.shape[-2:])))


def symmetry(operator: Operator) -> str | None:
    """What may be turned without a change of the measurement: "channels" each on its own, the "image", None."""
    if operator.turns:
        return "channels"
    return "image" if operator.rotation_ambiguity else None


def turned_onto(x: torch.Tensor, pick: torch.Tensor, turns: str | None) -> torch.Tensor:
    """x (P, C, H, W), each turned by 180 degrees where that is nearer to pick (C, H, W), or to its own of (P, C, H, W).

    turns: of `symmetry`. A turn leaves |x| as it is, so the nearer one is that of the larger product with the pick.
    """
    if turns is None:
        return x
    turned = x.flip(-2, -1)
    gain = ((turned - x) * pick).sum((-2, -1), keepdim=True)  # (P, C, 1, 1)
    if turns == "image":
        gain = gain.sum(1, keepdim=True)
    return torch.where(gain > 0, turned, x)


def correlation(x: torch.Tensor, pick: torch.Tensor) -> torch.Tensor:
    """Correlation of the pixels of each channel with the pick's, (P, C) in [-1, 1]; 0 for a channel of one colour."""
    x, pick = (v - v.mean((-2, -1), keepdim=True) for v in (x, pick))
    return torch.nn.functional.cosine_similarity(x.flatten(2), pick.flatten(1)[None], dim=2)


def mutual_agreement(x: torch.Tensor, turns: bool) -> torch.Tensor:
    """The least correlation over channels of each image with each other one, (P, P) in [-1, 1], 1 with itself.

    turns: whether the other one is first turned by 180 degrees, as a whole, where that is nearer. Its channels are not turned
    each on its own: which of them are turned against each other is what two particles that found it apart agree on.
    """
    centred = (x - x.mean((-2, -1), keepdim=True)).flatten(2)  # (P, C, H W)
    unit = torch.nn.functional.normalize(centred, dim=2)
    correlations = torch.einsum("pcx,qcx->pqc", unit, unit)
    if turns:
        turned = torch.einsum("pcx,qcx->pqc", unit, unit.flip(2))
        size = centred.norm(dim=2)
        gain = ((turned - correlations) * size[:, None] * size[None]).sum(2, keepdim=True)
        correlations = torch.where(gain > 0, turned, correlations)
    return correlations.amin(2)


def transfer_function(x: torch.Tensor) -> torch.Tensor:
    """PRTF of N >= 2 aligned images (N, C, H, W), (shells,): shell s holds the frequencies next to s / max(H, W).

    In cycles a pixel, along both axes; channels count alike, and shells end at 0.5, the finest that both axes have.
    """
    count, side = len(x), max(x.shape[-2:])
    unit = torch.sgn(torch.fft.fft2(x))  # exp(i phase), 0 where there is nothing
    power = unit.mean(0).abs().square().mean(0)  # (H, W) R^2
    down, across = (torch.fft.fftfreq(n, dtype=x.dtype) for n in x.shape[-2:])
    shell = ((down[:, None].square() + across.square()).sqrt() * side).round().long().flatten()
    inside = shell <= side // 2
    total = torch.zeros(side // 2 + 1, dtype=x.dtype).index_add_(0, shell[inside], power.flatten()[inside])
    power = total / torch.bincount(shell[inside], minlength=side // 2 + 1)
    return ((count * power - 1) / (count - 1)).clamp(min=0).sqrt()


def resolution(prtf: Sequence[float] | torch.Tensor, side: int) -> float | None:
    """Pixels of one period at the last shell before the PRTF first falls below 1/e; None where no detail is resolved."""
    resolved = next((i for i, value in enumerate(prtf) if not value >= RESOLVED), len(prtf)) - 1
    return side / resolved if resolved > 0 else None
