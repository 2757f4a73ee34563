"""Fourier phase retrieval: only the magnitude of an oversampled spectrum is measured."""

import torch

from operators.base import Operator
from utils import device as devices

LUMINANCE = (0.299, 0.587, 0.114)


class PhaseRetrieval(Operator):
    """A(x) = |FFT(pad(x / 2 + 1/2))| per colour channel, or of the luminance alone.

    The FFT is two-dimensional, centred and orthonormal; `pad` adds int(oversample / 8 * H) zeros on each side, so
    oversample 2 turns 64 pixels into 96. Source: DAPS, forward_operator/__init__.py, PhaseRetrieval.

    Each channel turned by 180 degrees has the same measurement, so a colour image has 2^3 = 8. That there are no
    others is known only where a side has at least 2 H - 1 samples (Hayes 1982); oversample 2 gives 1.5 H: 384 of the
    511 that 256 pixels want.

    oversample: > 0; from 4 on the sides reach 2 H
    sigma:      standard deviation of the noise on the magnitude, >= 0
    channels:   3, or 1: of the luminance 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), y (P, 1, H', W'); colours are the prior's
    """

    rotation_ambiguity = True
    turns = True
    separable = True
    spectrum = True
    luminance: torch.Tensor | None  # (1, 3, 1, 1)

    def __init__(self, oversample: float = 2.0, sigma: float = 0.05, channels: int = 3) -> None:
        super().__init__(sigma)
        self.oversample = float(oversample)
        self.register_buffer("luminance", torch.tensor(LUMINANCE).view(1, 3, 1, 1) if channels == 1 else None)
        if channels == 1:  # which mixes the image's channels
            self.turns = self.separable = False

    def padding(self, side: int) -> int:
        return int(self.oversample / 8 * side)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pad_y, pad_x = self.padding(x.shape[-2]), self.padding(x.shape[-1])
        if self.luminance is not None:
            x = (self.luminance.to(x.dtype) * x).sum(1, keepdim=True)  # (P, 1, H, W)
        return devices.spectrum_magnitude(0.5 * x + 0.5, pad_y, pad_x)  # (P, C, H', W')
