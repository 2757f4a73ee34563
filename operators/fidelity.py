"""The data term: a weighted sum of named terms, in place of an operator's own sum of squared residuals.

Every term is in the unit of a squared residual: at the true image it is near sigma^2 times the number of measurements.
So tau, likelihood_factor and temperature keep their meaning: at temperature 1 the chain samples exp(-loss / 2 sigma^2).

With m = A(x), measured y, n measurements of a particle, d = log(m + sigma) - log(max(y, 0) + sigma):

    gaussian   |m - y|^2; with free_scale |m - t y|^2, t as below
    poisson    2 sigma^2 sum(mu - k + k log(k / mu)), the deviance of counts k = photons y^2 from mu = photons m^2 + background
    amplitude  4 sigma^2 |sqrt(mu + 1/8) - sqrt(k + 3/8)|^2: the counts' root has variance 1/4 and the mean of the model's.
               Anscombe, Biometrika 35 (1948)
    silog      sigma^2 sum (d - mean d)^2, the scale-invariant error of Eigen et al., arXiv 1406.2283, eq. 1; epsilon is sigma,
               so that it is |m - y|^2 where both are far below the noise
    ssi        sum (m - mean m - (y - mean y) sd(m) / sd(y))^2, scale- and shift-invariant: Ranftl et al., arXiv 1907.01341,
               eq. 3 and 5, with mean and standard deviation; sd(m) outside the ratio counts as a constant
    gradient   n sigma times the multi-scale gradient error of m - y: operators/gradients.py

The exposure that `free_scale` profiles out is one number per particle. For gaussian it is the maximum of the likelihood
of y = (m + noise) / t, whose normalisation keeps m from shrinking: t^2 |y|^2 - t <m, y> = n sigma^2. There the derivative
in t vanishes (envelope theorem), so t counts as a constant; where particles are compared, the normalisation's
-2 n sigma^2 log t is added (`handicap`). For counts mu = s photons m^2 + background with
s = (sum k - n background) / sum photons m^2, the maximum of the likelihood for a small background.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import scipy.special
import scipy.stats
import torch

from operators.base import Operator, column, measurements
from operators.floors import COUNTED, EDGE, STEP, TAIL, count_tables, look_up, silog_tables
from operators.gradients import multi_scale_gradient
from utils.errors import InputError
from utils.noise import keyed_generator

TERMS = ("gaussian", "poisson", "amplitude", "silog", "ssi", "gradient")
DRAWS = 16  # of noise, for the floor of the gradient term


class FidelitySettings(Protocol):
    """Weights of the terms, and what they need; ranges: utils/config/sections.py."""

    free_scale: bool
    photons: float | None
    background: float

    @property
    def weights(self) -> Mapping[str, float]: ...


class WithFidelity(Operator):
    """An operator with another data term. Measures by the model of its terms: counts where one of them counts.

    operator: A; settings: weights (those above 0), free_scale, photons (counts at m = 1), background (counts, > 0)
    Raises InputError for a term that the operator cannot have.
    """

    def __init__(self, operator: Operator, settings: FidelitySettings) -> None:
        super().__init__(operator.sigma)
        self.operator = operator
        self.weights = {name: settings.weights[name] for name in TERMS if settings.weights.get(name)}
        self.free_scale, self.photons, self.background = settings.free_scale, settings.photons, settings.background
        self.check()
        for name in ("rotation_ambiguity", "turns", "separable", "linear", "spectrum"):
            setattr(self, name, getattr(operator, name))
        for name, values in self.tables().items():
            self.register_buffer(name, torch.from_numpy(values))

    def check(self) -> None:
        """Raises InputError."""
        wrong = [name for name in (*COUNTED, "silog") if name in self.weights] + ["free_scale"] * self.free_scale
        kind = type(self.operator).__name__
        if wrong and not self.operator.spectrum:
            raise InputError(
                f"fidelity.{wrong[0]}: the measurement of {kind} is no magnitude (operators.base.Operator.spectrum); "
                "choose gaussian, ssi or gradient"
            )
        if "gradient" in self.weights and self.operator.spectrum:
            raise InputError(f"fidelity.gradient: the measurement of {kind} is a spectrum and has no edges; leave it at 0")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.operator(x)

    def measure(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """As the operator, or sqrt(counts / photons), the counts being the Poisson quantile of standard normal `noise`."""
        if not any(name in self.weights for name in COUNTED):
            return self.operator.measure(x, noise)
        mean = self.photons * self(x).double().square() + self.background
        rank = scipy.special.ndtr(noise.double().cpu().numpy())
        counts = scipy.stats.poisson.ppf(rank, mean.cpu().numpy())
        return torch.from_numpy(np.sqrt(counts / self.photons)).to(x.device, x.dtype)

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Weighted sum of the terms of each particle, (P,)."""
        return self.total(self.parts(x, y), 1)

    def channel_loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The same of each channel, (P, C); it adds up to the loss."""
        return self.total(self.parts(x, y), 2)

    def handicap(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor | None:
        """-2 n sigma^2 log t, (P,): the normalisation of y = (m + noise) / t, without which a darker image fits better."""
        if not self.free_scale or "gaussian" not in self.weights:
            return None
        known = ~torch.isnan(y)
        t = self.exposure(self(x), torch.where(known, y, 0.0), known).flatten()
        return -2 * self.weights["gaussian"] * self.sigma**2 * measurements_of(known, t.dtype) * t.log()

    def components(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        """{term: (P,)}, without their weights."""
        return {name: part.flatten(1).sum(1) for name, part in self.parts(x, y).items()}

    def total(self, parts: Mapping[str, torch.Tensor], axis: int) -> torch.Tensor:
        return sum(self.weights[name] * part.flatten(axis).sum(axis) for name, part in parts.items())

    def parts(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        """What each measurement adds to each term, {term: (P, C, ...)}; 0 where y is NaN."""
        known, m = ~torch.isnan(y), self(x)
        y = torch.where(known, y, 0.0)
        return {
            name: torch.where(known, part, 0.0) if part.shape == y.shape else part for name, part in self._parts(m, y, known)
        }

    def _parts(self, m, y, known):
        mu = k = None
        if any(name in self.weights for name in COUNTED):
            mu, k = self.model(m, y, known), self.counts(y)
        for name in self.weights:
            match name:
                case "gaussian":
                    yield name, (m - self.exposure(m, y, known) * y if self.free_scale else m - y).square()
                case "poisson":
                    yield name, 2 * self.sigma**2 * (mu - k + torch.xlogy(k, k) - k * mu.log())
                case "amplitude":
                    yield name, 4 * self.sigma**2 * ((mu + 1 / 8).sqrt() - (k + 3 / 8).sqrt()).square()
                case "silog":
                    d = torch.where(known, (m + self.sigma).log() - (y.clamp(min=0) + self.sigma).log(), 0.0)
                    yield name, self.sigma**2 * (d - mean(d, known)).square()
                case "ssi":
                    a, b = centred(m, known), centred(y, known)
                    scale = mean(a.square(), known).sqrt() + 1e-12
                    b = b / (mean(b.square(), known).sqrt() + 1e-12)
                    yield name, scale.detach() ** 2 * (a / scale - b).square()
                case "gradient":
                    error = multi_scale_gradient(torch.where(known, m - y, 0.0), known)[..., None]  # (P, C, 1)
                    yield name, self.sigma * column(measurements_of(known, m.dtype), error) * error

    def residual(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """(P, n) numbers whose squares' curvature is the loss's at the truth; the gradient term has none."""
        known, m = ~torch.isnan(y), self(x)
        y = torch.where(known, y, 0.0)
        parts = []
        for name, weight in self.weights.items():
            part = m - y
            if name in COUNTED:
                part = 2 * self.sigma * (self.photons * m.square() + self.background + 3 / 8).sqrt()
            elif name == "silog":
                part = self.sigma * (m + self.sigma).log()
            if name != "gradient":
                parts.append(weight**0.5 * torch.where(known, part, 0.0).flatten(1))
        return torch.cat(parts, 1) if parts else torch.zeros_like(m).flatten(1)

    def counts(self, y: torch.Tensor) -> torch.Tensor:
        return self.photons * y.clamp(min=0).square()

    def model(self, m: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """The mean counts mu."""
        unscaled = self.photons * m.square()
        if self.free_scale:
            signal = mean(torch.where(known, self.counts(y), 0.0), known) - self.background
            unscaled = unscaled * signal.clamp(min=1e-6) / mean(torch.where(known, unscaled, 0.0), known).clamp(min=1e-6)
        return unscaled + self.background

    def exposure(self, m: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """t of each particle, shaped to broadcast over y."""
        m, dtype = torch.where(known, m, 0.0).detach(), m.dtype
        energy = y.square().flatten(1).sum(1).clamp(min=1e-20)  # none where nothing was measured
        both = (m * y).flatten(1).sum(1)
        noise = measurements_of(known, dtype) * self.sigma**2
        return column((both / energy + (both.square() / energy + 4 * noise).sqrt() / energy.sqrt()) / 2, y)

    def noise_floor(self, y: torch.Tensor, axis: int = 1) -> torch.Tensor:
        """Expected loss of the true image, (P,), or (P, C) with axis 2.

        gaussian, ssi: of a chi-square less what was fitted; for ssi to first order in sigma^2 over the variance of m.
        poisson, amplitude, silog: it depends on what is measured, so each measurement adds a number whose expectation is
        that of the loss at the unknown truth (`unbiased`).
        gradient: the mean over some draws of the noise.
        """
        return sum(self.weights[name] * floor for name, floor, _ in self.floors(y, axis))

    def floor_spread(self, y: torch.Tensor, axis: int = 1) -> torch.Tensor:
        """Standard deviation of the true image's loss over its floor; that of several terms as if they rose together."""
        return sum(self.weights[name] * deviation for name, _, deviation in self.floors(y, axis)) / self.noise_floor(y, axis)

    def floor_components(self, y: torch.Tensor) -> dict[str, torch.Tensor]:
        """{term: (P,)}, without their weights."""
        return {name: floor for name, floor, _ in self.floors(y, 1)}

    def floors(self, y: torch.Tensor, axis: int):
        """(term, floor, standard deviation) of each term."""
        count, all_of_it, known = measurements(y, axis), measurements(y), ~torch.isnan(y)
        filled, unit = torch.where(known, y, 0.0), self.sigma**2

        def total(values):
            return torch.where(known, values, 0.0).flatten(axis).sum(axis)

        for name in self.weights:
            match name:
                case "gaussian" | "ssi":
                    fitted = 2 if name == "ssi" else int(self.free_scale)
                    yield name, unit * count * column(1 - fitted / all_of_it, count), unit * (2 * count) ** 0.5
                case "poisson" | "amplitude":
                    k = self.counts(filled)
                    floor, variance = (total(look_up(self.get_buffer(f"{name}_{what}"), k)) for what in ("mean", "variance"))
                    yield name, unit * floor, unit * variance.clamp(min=0).sqrt()
                case "silog":
                    level = filled.clamp(min=-EDGE * self.sigma) / self.sigma
                    first, square, variance = (
                        torch.where(level > TAIL, tail, look_up(self.get_buffer(f"silog_{what}"), (level + EDGE) / STEP))
                        for what, tail in (
                            ("first", 0 * level),
                            ("square", 1 / (1 + level) ** 2),
                            ("variance", 2 / (1 + level) ** 4),
                        )
                    )
                    centre = mean(torch.where(known, first, 0.0), known)
                    yield (
                        name,
                        unit * total(square - 2 * centre * first + centre**2),
                        unit * total(variance).clamp(min=0).sqrt(),
                    )
                case "gradient":
                    noise = keyed_generator(0, "floor").standard_normal((DRAWS, *y.shape[1:]), dtype=np.float32)
                    noise = self.sigma * torch.from_numpy(noise).to(y.device, y.dtype)
                    draws = torch.stack([multi_scale_gradient(torch.where(known, e, 0.0), known) for e in noise])  # (D, P, C)
                    draws = self.sigma * all_of_it[:, None] * draws
                    draws = draws if axis == 2 else draws.sum(2)
                    yield name, draws.mean(0), draws.std(0)

    def tables(self) -> dict[str, np.ndarray]:
        """What measurements of some value add to the floors, {name: (values,)}."""
        found = {}
        if any(name in self.weights for name in COUNTED):
            found |= count_tables(min(self.background, 1.0), self.weights)
        if "silog" in self.weights:
            found |= silog_tables()
        return found


def measurements_of(known: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return known.flatten(1).sum(1).to(dtype)


def mean(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Mean of each particle's measured values, which are 0 elsewhere, shaped to broadcast."""
    return column(values.flatten(1).sum(1) / measurements_of(known, values.dtype).clamp(min=1), values)


def centred(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    values = torch.where(known, values, 0.0)
    return torch.where(known, values - mean(values, known), 0.0)
