"""Fourier phase retrieval: only the magnitude of an oversampled spectrum is measured."""

from operators.base import Operator
from utils import device as devices


class PhaseRetrieval(Operator):
    """A(x) = |FFT(pad(x / 2 + 1/2))| per colour channel.

    The FFT is two-dimensional, centred and orthonormal; `pad` adds int(oversample / 8 * H) zeros on each side, so
    oversample 2 turns 64 pixels into 96. Source: DAPS, forward_operator/__init__.py, PhaseRetrieval.

    Each channel turned by 180 degrees has the same measurement, so a colour image has 2^3 = 8. That there are no
    others is known only where a side has at least 2 H - 1 samples (Hayes 1982); oversample 2 gives 1.5 H: 384 of the
    511 that 256 pixels want.

    oversample: > 0; from 4 on the sides reach 2 H
    sigma:      standard deviation of the noise on the magnitude, >= 0
    """

    rotation_ambiguity = True
    turns = True
    separable = True
    magnitude = True
    friedel = True

    def __init__(self, oversample=2.0, sigma=0.05):
        super().__init__(sigma)
        self.oversample = float(oversample)

    def padding(self, side):
        return int(self.oversample / 8 * side)

    def forward(self, x):
        pad_y, pad_x = self.padding(x.shape[-2]), self.padding(x.shape[-1])
        return devices.spectrum_magnitude(0.5 * x + 0.5, pad_y, pad_x)  # (P, 3, H', W')
