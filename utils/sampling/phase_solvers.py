"""Classical phase retrieval, without a network: an image from the magnitudes of its oversampled spectrum, by projections.

The object x is real, lies in [0, 1] and within the unpadded square. F is the orthonormal Fourier transform of x with zeros
around it, y the measured magnitudes. With m = F^-1(y F x / |F x|) the projection onto them, one iteration is

    er     x <- P_S m                                                                error reduction
    hio    x <- m where that lies in the square and in [0, 1], else x - beta m       hybrid input-output
    raar   x <- beta / 2 (R_S R_M x + x) + (1 - beta) m,  R = 2 P - 1                relaxed averaged alternating reflections

P_S cuts to the square and to [0, 1]. FINISHING iterations of error reduction end each of them. Where y is NaN, not measured,
the spectrum of x stays. Each start and each channel goes its own way.

Sources: Fienup, Appl. Opt. 21, 2758 (1982); Luke, Inverse Problems 21, 37 (2005).
"""

from typing import Literal

import torch

Solver = Literal["hio", "raar", "er"]
FINISHING = 50  # iterations of error reduction at the end
TINY = 1e-12  # stands for a magnitude of 0 where it divides


class Support:
    """Where the object lies within the padded field, and the step onto it. side: of the object; field: of y, (H', W')."""

    def __init__(self, side: tuple[int, int], field: tuple[int, int], device: torch.device) -> None:
        self.rows, self.columns = (slice((f - s) // 2, (f - s) // 2 + s) for s, f in zip(side, field))
        self.field = field
        self.inside = torch.zeros(field, dtype=torch.bool, device=device)  # (H', W')
        self.inside[self.rows, self.columns] = True

    def padded(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., H, W) with zeros around it, (..., H', W')."""
        field = x.new_zeros(*x.shape[:-2], *self.field)
        field[..., self.rows, self.columns] = x
        return field

    def cut(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., H', W') without what lies around the object, (..., H, W)."""
        return x[..., self.rows, self.columns]

    def onto(self, x: torch.Tensor) -> torch.Tensor:
        """The nearest x that lies in the square and in [0, 1]."""
        return torch.where(self.inside, x, 0.0).clamp(0, 1)

    def allows(self, x: torch.Tensor) -> torch.Tensor:
        """Where x lies in the square and in [0, 1], bool."""
        return self.inside & (x >= 0) & (x <= 1)


def onto_magnitudes(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The nearest real x (..., H', W') whose spectrum has the magnitudes y, uncentred, as torch.fft.fft2 orders them."""
    spectrum = torch.fft.fft2(x, norm="ortho")
    measured = y * spectrum / spectrum.abs().clamp(min=TINY)
    return torch.fft.ifft2(torch.where(torch.isnan(y), spectrum, measured), norm="ortho").real


def iterate(x: torch.Tensor, y: torch.Tensor, support: Support, solver: Solver, beta: float) -> torch.Tensor:
    """One iteration of x (..., H', W'); y uncentred, broadcast over x; beta: of hio and raar, in (0, 1]."""
    m = onto_magnitudes(x, y)
    if solver == "hio":
        return torch.where(support.allows(m), m, x - beta * m)
    if solver == "raar":
        reflected = 2 * m - x
        return beta / 2 * (2 * support.onto(reflected) - reflected + x) + (1 - beta) * m
    return support.onto(m)


class Bank:
    """Solutions of one measurement from many starts, in the middle of their iterations.

    y (C, H', W'): centred magnitudes, NaN where not measured; negative ones, which noise makes, are aimed at as 0.
    start: (R, C, H, W) in [0, 1], on the device of y.
    """

    def __init__(self, y: torch.Tensor, start: torch.Tensor, solver: Solver, beta: float) -> None:
        self.support = Support((start.shape[-2], start.shape[-1]), (y.shape[-2], y.shape[-1]), y.device)
        self.measured = torch.fft.ifftshift(y, dim=(-2, -1))  # as torch.fft.fft2 orders it
        self.target = self.measured.clamp(min=0)
        self.solver, self.beta = solver, beta
        self.x = self.support.padded(start)  # (R, C, H', W')

    def advance(self, iterations: int) -> None:
        """So many iterations more."""
        for _ in range(iterations):
            self.x = iterate(self.x, self.target, self.support, self.solver, self.beta)

    def finish(self) -> None:
        """The error reduction at the end."""
        for _ in range(FINISHING):
            self.x = iterate(self.x, self.target, self.support, "er", self.beta)

    def ranked(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Objects (R, C, H, W) in [0, 1] and residuals sum (|F x| - y)^2, (R, C); of each channel the smallest first."""
        x = self.support.onto(self.x)
        off = torch.fft.fft2(x, norm="ortho").abs() - self.measured
        residual, order = torch.where(torch.isnan(off), 0.0, off).square().sum((-2, -1)).sort(dim=0)
        return torch.take_along_dim(self.support.cut(x), order[..., None, None], dim=0), residual


def in_one_orientation(x: torch.Tensor) -> torch.Tensor:
    """x (..., C, H, W) with each channel turned by 180 degrees where it is then more like the first one.

    A channel and its turned self have the same magnitudes; channels of one picture are alike.
    """
    centred = x - x.mean((-2, -1), keepdim=True)
    first = centred[..., :1, :, :]
    gain = ((centred.flip(-2, -1) - centred) * first).sum((-2, -1), keepdim=True)  # (..., C, 1, 1)
    return torch.where(gain > 0, x.flip(-2, -1), x)
