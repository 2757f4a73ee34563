"""Classical phase retrieval, without a network: an image from the magnitudes of its oversampled spectrum, by projections.

The object x is real, lies in [0, 1] and within the unpadded square. F is the orthonormal Fourier transform of x with zeros
around it, y the measured magnitudes. With m = F^-1(y F x / |F x|) the projection onto them, one iteration is

    er     x <- P_S m                                                                error reduction
    hio    x <- m where that lies in the square and in [0, 1], else x - beta m       hybrid input-output
    raar   x <- beta / 2 (R_S R_M x + x) + (1 - beta) m,  R = 2 P - 1                relaxed averaged alternating reflections

P_S cuts to the square and to [0, 1]. FINISHING iterations of error reduction end each of them. Where y is NaN, not measured,
the spectrum of x stays. Each start and each channel goes its own way. Where the samples lie between whole frequencies, F has a
phase ramp before it (utils.kernels.phase_ramp), and F^-1 its conjugate behind it. A support narrows the square.

Sources: Fienup, Appl. Opt. 21, 2758 (1982); Luke, Inverse Problems 21, 37 (2005).
"""

from typing import Literal, Protocol

import torch

from operators.base import Operator, measurements
from utils import device as devices
from utils.kernels import phase_ramp
from utils.noise import KeyedNoise

Solver = Literal["hio", "raar", "er"]


class BankSettings(Protocol):
    """solver; restarts: starts of an image; beta: of hio and raar, in (0, 1]."""

    solver: Solver
    restarts: int
    beta: float


FINISHING = 50  # iterations of error reduction at the end
SPREAD = 0.35  # width of the uniform noise around an object near which starts lie: a standard deviation of 0.1
TINY = 1e-12  # stands for a magnitude of 0 where it divides


class Support:
    """Where the object lies within the padded field, and the step onto it.

    side: of the object; field: of y, (H', W'); support: (H, W) booleans, where within its square it may lie; None: everywhere.
    """

    def __init__(
        self, side: tuple[int, int], field: tuple[int, int], device: torch.device, support: torch.Tensor | None = None
    ) -> None:
        self.rows, self.columns = (slice((f - s) // 2, (f - s) // 2 + s) for s, f in zip(side, field))
        self.field = field
        self.symmetric = support is None or support.equal(support.flip(0, 1))  # as its own turn by 180 degrees
        self.inside = torch.zeros(field, dtype=torch.bool, device=device)  # (H', W')
        self.inside[self.rows, self.columns] = True if support is None else support.to(device)

    def padded(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., H, W) with zeros around it, (..., H', W')."""
        field = x.new_zeros(*x.shape[:-2], *self.field)
        field[..., self.rows, self.columns] = x
        return field

    def cut(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., H', W') without what lies around the object, (..., H, W)."""
        return x[..., self.rows, self.columns]

    def onto(self, x: torch.Tensor) -> torch.Tensor:
        """The nearest x that lies in the support and in [0, 1]."""
        return torch.where(self.inside, x, 0.0).clamp(0, 1)

    def allows(self, x: torch.Tensor) -> torch.Tensor:
        """Where x lies in the support and in [0, 1], bool."""
        return self.inside & (x >= 0) & (x <= 1)


class Magnitudes:
    """The step onto measured magnitudes y (..., H', W'), centred, NaN where not measured; negative ones are aimed at as 0.

    The spectrum of a real x has the same magnitude at k and at -k, where y has two values. With unmeasured ones at those of x,
    the real part of F^-1(y F x / |F x|) depends on the mean of the two. So half a spectrum is enough, and half the time.

    offset: of the samples from the whole frequencies, in samples; there k and -k are no pair, and the whole spectrum is taken.
    """

    def __init__(self, y: torch.Tensor, offset: tuple[float, float] = (0.0, 0.0)) -> None:
        self.field = (y.shape[-2], y.shape[-1])
        self.ramp = phase_ramp(self.field, self.field, offset, y.device, y.dtype) if any(offset) else None  # (H', W')
        self.y = torch.fft.ifftshift(y, dim=(-2, -1))  # as torch.fft.fft2 orders it
        missing = torch.isnan(self.y)
        aim = self.y.nan_to_num(0.0).clamp(min=0)
        if self.ramp is not None:
            self.aim, self.free = aim, missing.to(y.dtype)
            return
        half = self.field[1] // 2 + 1
        self.aim = (aim + opposite(aim))[..., :half] / 2
        self.free = (missing.to(y.dtype) + opposite(missing.to(y.dtype)))[..., :half] / 2  # share of the two not measured

    def onto(self, x: torch.Tensor) -> torch.Tensor:
        """The nearest real x (..., H', W') whose spectrum has these magnitudes."""
        spectrum = torch.fft.rfft2(x, norm="ortho") if self.ramp is None else self.spectrum(x)
        spectrum *= self.aim / spectrum.abs().clamp_(min=TINY) + self.free
        if self.ramp is None:
            return torch.fft.irfft2(spectrum, s=self.field, norm="ortho")
        return (torch.fft.ifft2(spectrum, norm="ortho") * self.ramp.conj()).real

    def spectrum(self, x: torch.Tensor) -> torch.Tensor:
        """F x (..., H', W'), as torch.fft.fft2 orders it."""
        return torch.fft.fft2(x if self.ramp is None else x * self.ramp, norm="ortho")

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        """sum (|F x| - y)^2 over what is measured, (...)."""
        off = self.spectrum(x).abs() - self.y
        return torch.where(torch.isnan(off), 0.0, off).square().sum((-2, -1))


def opposite(y: torch.Tensor) -> torch.Tensor:
    """y (..., H', W') in the order of torch.fft.fft2, at -k."""
    return y.flip(-2, -1).roll((1, 1), (-2, -1))


def iterate(x: torch.Tensor, y: Magnitudes, support: Support, solver: Solver, beta: float) -> torch.Tensor:
    """One iteration of x (..., H', W'), over which y is broadcast; beta: of hio and raar, in (0, 1]."""
    m = y.onto(x)
    if solver == "hio":
        return torch.where(support.allows(m), m, x - beta * m)
    if solver == "raar":
        reflected = 2 * m - x
        return beta / 2 * (2 * support.onto(reflected) - reflected + x) + (1 - beta) * m
    return support.onto(m)


class Bank:
    """Solutions of one measurement from many starts, in the middle of their iterations.

    y (C, H', W'): centred magnitudes, NaN where not measured.
    start: (R, C, H, W) in [0, 1], on the device of y.
    offset, support: of `Magnitudes` and `Support`.
    """

    def __init__(
        self,
        y: torch.Tensor,
        start: torch.Tensor,
        solver: Solver,
        beta: float,
        offset: tuple[float, float] = (0.0, 0.0),
        support: torch.Tensor | None = None,
    ) -> None:
        self.support = Support((start.shape[-2], start.shape[-1]), (y.shape[-2], y.shape[-1]), y.device, support)
        self.magnitudes = Magnitudes(y, offset)
        self.solver, self.beta = solver, beta
        self.x = self.support.padded(start)  # (R, C, H', W')

    def advance(self, iterations: int) -> None:
        """So many iterations more."""
        for _ in range(iterations):
            self.x = iterate(self.x, self.magnitudes, self.support, self.solver, self.beta)

    def finish(self) -> None:
        """The error reduction at the end."""
        for _ in range(FINISHING):
            self.x = iterate(self.x, self.magnitudes, self.support, "er", self.beta)

    def ranked(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Objects (R, C, H, W) in [0, 1] and residuals sum (|F x| - y)^2, (R, C); of each channel the smallest first."""
        x = self.support.onto(self.x)
        residual, order = self.magnitudes.residual(x).sort(dim=0)
        return torch.take_along_dim(self.support.cut(x), order[..., None, None], dim=0), residual


def bank_of(
    y: torch.Tensor,
    image: int,
    side: int,
    operator: Operator,
    noise: KeyedNoise,
    settings: BankSettings,
    around: torch.Tensor | None = None,
) -> tuple[Bank, torch.Tensor]:
    """The bank of one image before its first iteration, and the residual that noise leaves in each channel, (C,).

    y (1, C, H', W'): its measurement by `operator`; side: of the object. On the CPU where the device has no Fourier transform.
    around: (K, C, H, W) in [0, 1], objects near which the starts lie, in turn; None: they lie anywhere.
    """
    y = y.cpu() if devices.compiles_each_graph(y.device) else y
    magnitudes = operator.magnitudes(y)[0].float()
    start = noise.uniform(image, "start", (settings.restarts, len(magnitudes), side, side)).to(magnitudes.device)
    if around is not None:
        near = around.to(start)[torch.arange(settings.restarts, device=start.device) % len(around)]
        start = (near + SPREAD * (start - 0.5)).clamp(0, 1)
    bank = Bank(magnitudes, start, settings.solver, settings.beta, operator.offset, operator.support)
    return bank, measurements(y, axis=2)[0] * operator.magnitude_variance


def put_together(
    x: torch.Tensor, residual: torch.Tensor, count: int, floor: float, turns: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Objects of which each channel is one of the candidates x (R, C, H, W), best first, with residuals (R, C); C is 1 or 3.

    Channels of one picture are alike, and wrong solutions of different channels are not. So the best object is that with the
    largest sum of its channels' correlations, less the excess of their residuals over the smallest, in units of `floor`, the
    residual that noise leaves. Where a channel turned by 180 degrees fits as well, `turns`, both ways round are tried. The
    objects differ in their middle channel. Returns (count, C, H, W) and (count, C).
    """
    if x.shape[1] == 1:
        return x[:count], residual[:count]
    either_way = ways_round(x, turns)
    red, green, blue = either_way[0], either_way[1, 0], either_way[2]
    score = (
        torch.einsum("oad,gd->goa", red, green)[:, :, None, :, None]
        + torch.einsum("pbd,gd->gpb", blue, green)[:, None, :, None, :]
        + torch.einsum("oad,pbd->opab", red, blue)[None]
    )  # (green, way of red, way of blue, red, blue)
    excess = (residual - residual.amin(0)) / max(floor, TINY)
    score = score - excess[:, 1].view(-1, 1, 1, 1, 1) - excess[:, 0].view(-1, 1) - excess[:, 2]
    best, at = score.flatten(1).max(1)
    chosen = best.sort(descending=True, stable=True).indices[:count]
    turned_red, turned_blue, a, b = torch.unravel_index(at[chosen], score.shape[1:])
    turned = torch.stack([turned_red, torch.zeros_like(a), turned_blue], 1).bool()  # (count, 3)
    rows = torch.stack([a, chosen, b], 1)
    channels = torch.arange(3, device=x.device)
    picked = x[rows, channels]
    return torch.where(turned[..., None, None], picked.flip(-2, -1), picked), residual[rows, channels]


def averaged(x: torch.Tensor, candidates: torch.Tensor, count: int, turns: bool = True) -> torch.Tensor:
    """Each channel of the objects x (K, C, H, W): the mean of the `count` candidates (R, C, H, W) that are most alike.

    Solutions of one measurement err each in its own way, so their mean is often nearer to the object than they are. Where a
    channel turned by 180 degrees fits as well, `turns`, candidates are turned onto x first.
    """
    alike = torch.einsum("ckd,cwrd->wckr", ways_round(x, False)[:, 0], ways_round(candidates, turns))  # (1 or 2, C, K, R)
    alike, way = alike.nan_to_num(-2.0).max(dim=0)  # a diverged one is chosen last, and takes no part in the mean
    chosen = alike.topk(min(count, len(candidates)), dim=-1).indices  # (C, K, count)
    turned = way.gather(-1, chosen).bool()
    channels = torch.arange(x.shape[1], device=x.device)[:, None, None]
    near = candidates[chosen, channels]  # (C, K, count, H, W)
    return torch.where(turned[..., None, None], near.flip(-2, -1), near).nanmean(2).transpose(0, 1)


def ways_round(x: torch.Tensor, turns: bool) -> torch.Tensor:
    """Channels of x (R, C, H, W), of mean 0 and norm 1, as they are and, if `turns`, turned: (C, 1 or 2, R, H W)."""
    pictures = (x - x.mean((-2, -1), keepdim=True)).transpose(0, 1)  # (C, R, H, W)
    pictures = pictures / pictures.flatten(-2).norm(dim=-1).clamp(min=TINY)[..., None, None]
    return torch.stack([pictures, pictures.flip(-2, -1)] if turns else [pictures], 1).flatten(-2)
