"""Fourier phase retrieval: only the magnitude of an oversampled spectrum is measured."""

import copy
import math
from functools import lru_cache

import torch

from operators.base import Operator
from utils import device as devices

LUMINANCE = (0.299, 0.587, 0.114)
ROUNDING = 1e-6  # pixels: two that share less only touch


class PhaseRetrieval(Operator):
    """A(x) = D |FFT(pad(x / 2 + 1/2))| per colour channel, or of the luminance alone. D is 1 unless pixels are large.

    The FFT is two-dimensional, centred and orthonormal; `pad` adds int(oversample / 8 * H) zeros on each side, so
    oversample 2 turns 64 pixels into 96. Source: DAPS, forward_operator/__init__.py, PhaseRetrieval.

    Each channel turned by 180 degrees has the same measurement, so a colour image has 2^3 = 8. That there are no
    others is known only where a side has at least 2 H - 1 samples (Hayes 1982); oversample 2 gives 1.5 H: 384 of the
    511 that 256 pixels want.

    Large pixels: the measurement of an image of q x q times larger pixels is D times its own spectrum, at the frequencies
    that it has, and q times as large (`dirichlet`). So the centre of a spectrum is the measurement of a small image
    (`coarse`, `centre`), with noise of one size.

    oversample: > 0; from 4 on the sides reach 2 H
    sigma:      standard deviation of the noise on the magnitude, >= 0
    channels:   3, or 1: of the luminance 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), y (P, 1, H', W'); colours are the prior's
    pixel:      (rows, columns) >= 1, the sides q of the image's pixels in pixels of the object whose measurement's centre y is;
                no key of the config, since the images of a run have the pixels of their measurement

    What a detector's frame says, and no config (utils/running/geometry.py):

    frame:      (H', W') of y, at least the image's; None: as `oversample` says
    offset:     of rows and columns, in samples: y is the spectrum at the frequencies k + offset, of a beam between pixels
    inside:     (H, W) booleans, where the object lies: the image is taken as 0 elsewhere; None: everywhere. A support that is
                not its own turn by 180 degrees leaves an image one orientation
    """

    rotation_ambiguity = True
    turns = True
    separable = True
    spectrum = True
    luminance: torch.Tensor | None  # (1, 3, 1, 1)
    inside: torch.Tensor | None  # (H, W) bool

    def __init__(
        self,
        oversample: float = 2.0,
        sigma: float = 0.05,
        channels: int = 3,
        pixel: tuple[float, float] = (1.0, 1.0),
        frame: tuple[int, int] | None = None,
        offset: tuple[float, float] = (0.0, 0.0),
        inside: torch.Tensor | None = None,
    ) -> None:
        super().__init__(sigma)
        self.oversample, self.pixel, self.frame, self.offset = float(oversample), pixel, frame, offset
        self.register_buffer("luminance", torch.tensor(LUMINANCE).view(1, 3, 1, 1) if channels == 1 else None)
        if channels == 1:  # which mixes the image's channels
            self.separable = False
        self.register_buffer("inside", None)
        self.confine(inside)

    def confine(self, inside: torch.Tensor | None) -> None:
        """To images that are 0 outside of a support (H, W), booleans; what an image's turns measure follows from it."""
        self.inside = inside
        symmetric = inside is None or inside.equal(inside.flip(0, 1))
        self.rotation_ambiguity = type(self).rotation_ambiguity and symmetric
        self.turns = type(self).turns and symmetric and self.luminance is None

    @property
    def support(self) -> torch.Tensor | None:
        return self.inside

    def padding(self, side: int) -> int:
        return int(self.oversample / 8 * side)

    def samples(self, side: int) -> int:
        """Samples a side of the spectrum of `side` pixels."""
        return side + 2 * self.padding(side)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        field = self.frame or (self.samples(x.shape[-2]), self.samples(x.shape[-1]))
        if self.luminance is not None:
            x = (self.luminance.to(x.dtype) * x).sum(1, keepdim=True)  # (P, 1, H, W)
        x = 0.5 * x + 0.5  # in [0, 1]
        if self.inside is not None:
            x = x * self.inside
        spectrum = devices.spectrum_magnitude(x, field, self.offset)  # (P, C, H', W')
        return spectrum if self.pixel == (1, 1) else spectrum * self.attenuation(spectrum)

    def visible(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.luminance is None else (self.luminance.to(x) * x).sum(1, keepdim=True).expand_as(x)

    def magnitudes(self, y: torch.Tensor) -> torch.Tensor:
        """y / D: D is nowhere below (2 / pi)^2 = 0.405, in the corners, so that noise grows by at most 2.5."""
        return y if self.pixel == (1, 1) else y / self.attenuation(y)

    def attenuation(self, like: torch.Tensor) -> torch.Tensor:
        """D at the frequencies of a spectrum (P, C, H', W'): (H', W')."""
        return dirichlet((like.shape[-2], like.shape[-1]), self.pixel, self.offset, like.device, like.dtype)

    def coarse(self, side: int, resolution: int) -> "PhaseRetrieval":
        """The operator of images of `resolution` pixels that measures the centre of the spectrum of objects of `side` pixels.

        Its noise is that of `centre`. Offset in samples and support stay: a pixel may differ from 0 where the support meets it.
        Raises ValueError if `resolution` exceeds `side`.
        """
        if resolution > side:
            raise ValueError(f"resolution={resolution}: must not exceed the object's side {side}")
        full = self.frame or (self.samples(side), self.samples(side))
        small = self.samples_at(side, resolution)
        larger = full[0] / small[0], full[1] / small[1]
        coarse = copy.deepcopy(self)
        coarse.sigma = self.sigma / math.prod(larger) ** 0.5
        coarse.pixel = self.pixel[0] * larger[0], self.pixel[1] * larger[1]
        coarse.frame = self.frame and small
        if self.inside is not None:
            coarse.confine(support_of_pixels(self.inside, resolution, larger))
        return coarse

    def centre(self, y: torch.Tensor, side: int, resolution: int) -> torch.Tensor:
        """What `coarse` measures, (P, C, m, m'), of y (P, C, M, M'), of an object of `side` pixels.

        Its centre, over the root of the product of M / m and M' / m'.
        """
        rows, columns = self.samples_at(side, resolution)
        top, left = y.shape[-2] // 2 - rows // 2, y.shape[-1] // 2 - columns // 2  # frequency 0: at M // 2, and then at m // 2
        larger = (y.shape[-2] / rows) * (y.shape[-1] / columns)
        return y[..., top : top + rows, left : left + columns] / larger**0.5

    def samples_at(self, side: int, resolution: int) -> tuple[int, int]:
        """Samples, rows and columns, of an image of `resolution` pixels in the place of an object of `side`.

        Of a detector's frame as many as the image's field, q times its sides, still holds the object: q = M / m.
        """
        if self.frame is None:
            return self.samples(resolution), self.samples(resolution)
        rows, columns = self.frame
        return rows * resolution // side, columns * resolution // side


@lru_cache(maxsize=16)
def dirichlet(
    sides: tuple[int, int], pixel: tuple[float, float], offset: tuple[float, float], device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """D(k) = d(k_y) d(k_x) at the centred frequencies, `offset` higher, of H' x W' samples: (H', W'), each factor in (0, 1].

    d(k) = sin(pi k q / M) / (q sin(pi k / M)) with M = q m for m samples a side: the spectrum of q equal pixels in a row, over
    q. An object of M samples a side that is constant on q x q squares has q D(k) times the magnitude of the image of its
    squares, exactly where q is whole, at every k; otherwise squares end inside pixels, which blurs their borders. d falls to
    1 / (q sin(pi / 2q)) >= 2 / pi at the border. Ours; a sum of a geometric series.
    """
    factors = []
    for side, q, above in zip(sides, pixel, offset):
        angle = math.pi * (torch.arange(side, dtype=torch.float64) - side // 2 + above) / side  # pi k q / M
        factor = angle.sin() / (q * (angle / q).sin())
        factors.append(torch.where(angle == 0, 1.0, factor))  # the limit of 0 / 0
    return torch.outer(*factors).to(dtype).to(device)


def support_of_pixels(inside: torch.Tensor, resolution: int, larger: tuple[float, float]) -> torch.Tensor:
    """Which of `resolution` pixels a side, `larger` times as large, meet the support (H, W), booleans; both in the middle."""
    overlaps = []
    for side, q in zip(inside.shape, larger):
        coarse = (torch.arange(resolution) - resolution / 2)[:, None] * q  # borders of the large pixels, from the middle
        fine = torch.arange(side) - side / 2
        overlaps.append(((coarse < fine + 1 - ROUNDING) & (fine < coarse + q - ROUNDING)).double())  # (resolution, side)
    rows, columns = (each.to(inside.device) for each in overlaps)
    return rows @ inside.double() @ columns.T > 0
