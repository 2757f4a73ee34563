"""The data term: a weighted sum of terms, in place of an operator's own sum of squared residuals.

Every term is in the unit of a squared residual: at the true image it is near sigma^2 times the number of measurements.
So tau, likelihood_factor and temperature keep their meaning: at temperature 1 the chain samples exp(-loss / 2 sigma^2).
The built-in terms and their formulas stand in operators/terms/; the contract of one's own in operators/term.py.

`free_scale` profiles an unknown exposure of y out of the terms that know a scale, one number per particle. Where particles
are compared, the normalisation's -2 n sigma^2 log t is added (`handicap`).
"""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Protocol

import torch

from operators.base import Operator, column
from operators.term import Term, number_of
from operators.terms.counts import Amplitude, Poisson
from operators.terms.gaussian import Gaussian
from utils.errors import InputError


class FidelitySettings(Protocol):
    """Weights of the terms, and what the built-in ones need; ranges: utils/config/sections.py."""

    free_scale: bool
    photons: float | None
    background: float

    @property
    def weights(self) -> Mapping[str, float]: ...


BUILT_IN: dict[str, Callable[[float, FidelitySettings], Term]] = {
    "gaussian": lambda sigma, s: Gaussian(sigma),
    "poisson": lambda sigma, s: Poisson(sigma, s.photons, s.background),
    "amplitude": lambda sigma, s: Amplitude(sigma, s.photons, s.background),
}


class WithFidelity(Operator):
    """An operator with another data term. Measures by the model of its terms: counts where one of them counts.

    operator: A; settings: weights (those above 0), free_scale, photons (counts at m = 1), background (counts, > 0);
    own_terms: those of one's own, by the names that they have among the weights
    Raises InputError for a term that the operator cannot have.
    """

    def __init__(self, operator: Operator, settings: FidelitySettings, own_terms: Mapping[str, Term] | None = None) -> None:
        super().__init__(operator.sigma)
        self.operator, self.settings, self.free_scale, own_terms = operator, settings, settings.free_scale, own_terms or {}
        self.weights = {name: settings.weights[name] for name in (*BUILT_IN, *own_terms) if settings.weights.get(name)}
        terms = [own_terms[name] if name in own_terms else BUILT_IN[name](operator.sigma, settings) for name in self.weights]
        self._terms = torch.nn.ModuleList(terms)  # a ModuleDict would refuse names such as "type"
        for name in ("rotation_ambiguity", "turns", "separable", "linear", "spectrum", "offset"):
            setattr(self, name, getattr(operator, name))
        self.separable = self.separable and all(term.separable for term in terms)
        self.check({name: f"fidelity.terms.{name}" if name in own_terms else f"fidelity.{name}" for name in self.weights})
        for term in terms:
            term.free_scale = self.free_scale and term.knows_scale

    @property
    def terms(self) -> dict[str, Term]:
        return dict(zip(self.weights, self._terms))

    def check(self, keys: Mapping[str, str]) -> None:
        """Raises InputError; keys: of the terms in the config."""
        kind = type(self.operator).__name__
        no_magnitude = f"the measurement of {kind} is no magnitude (operators.base.Operator.spectrum); choose gaussian"
        for name, term in self.terms.items():
            if term.needs == "spectrum" and not self.spectrum:
                raise InputError(f"{keys[name]}: {no_magnitude}")
            if term.needs == "image" and self.spectrum:
                raise InputError(f"{keys[name]}: the measurement of {kind} is a spectrum and no image; leave it out")
        if self.free_scale and not self.spectrum:
            raise InputError(f"fidelity.free_scale: {no_magnitude}")
        if self.free_scale and not any(term.knows_scale for term in self.terms.values()):
            raise InputError("fidelity.free_scale: none of these terms knows a scale; leave it out, or give gaussian a weight")

    def coarse(self, side: int, resolution: int, terms: Mapping[str, Term] | None = None) -> "WithFidelity":
        """This data term for images of `resolution` pixels and the centre of the measurement (PhaseRetrieval.coarse).

        terms: one's own, by name, made for the coarse operator's sigma. Counts stay what they are: where the centre is y / q, a
        magnitude of 1 stands for q^2 times as many, and the background of each sample is the same.
        Raises ValueError for a term of one's own that is not among them.
        """
        if absent := [name for name in self.weights if name not in BUILT_IN and name not in (terms or {})]:
            raise ValueError(f"terms: {', '.join(absent)} of one's own must be made for the coarse operator")
        operator, settings = self.operator.coarse(side, resolution), copy.copy(self.settings)
        if settings.photons is not None:
            settings.photons *= math.prod(operator.pixel) / math.prod(self.operator.pixel)
        return WithFidelity(operator, settings, terms)

    def centre(self, y: torch.Tensor, side: int, resolution: int) -> torch.Tensor:
        return self.operator.centre(y, side, resolution)

    def visible(self, x: torch.Tensor) -> torch.Tensor:
        return self.operator.visible(x)

    def magnitudes(self, y: torch.Tensor) -> torch.Tensor:
        """Without the background where it is known, of which a count has `settings.background` each."""
        if self.settings.photons is not None:
            y = (y.square() - self.settings.background / self.settings.photons).clamp(min=0).sqrt()
        return self.operator.magnitudes(y)

    @property
    def support(self) -> torch.Tensor | None:
        return self.operator.support

    @property
    def magnitude_variance(self) -> float:
        """Of counts: the square root of a Poisson count has variance 1 / 4."""
        return self.sigma**2 if self.settings.photons is None else 1 / (4 * self.settings.photons)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.operator(x)

    def measure(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """By the first term that has a law of its own, else as the operator."""
        drawn = self._drawn(self(x), noise)
        return self.operator.measure(x, noise) if drawn is None else drawn

    def _drawn(self, m: torch.Tensor, noise: torch.Tensor) -> torch.Tensor | None:
        """A measurement of m by the first term that has a law of its own."""
        drawn = (term.measured(m, noise) for term in self.terms.values())
        return next((y for y in drawn if y is not None), None)

    def repeated(self, x: torch.Tensor, y: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of counts the noise depends on the exposure; that of one size is as large a share of all at each."""
        exposure = self.exposure(x, y)
        if exposure is None:
            return super().repeated(x, y, noise)
        root = column(exposure.sqrt(), y)
        seen = root * self(x)
        drawn = self._drawn(seen, noise)
        return seen, root * self.operator.measure(x, noise) if drawn is None else drawn

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Weighted sum of the terms of each particle, (P,)."""
        return self.total(self.parts(x, y), 1)

    def channel_loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The same of each channel, (P, C); it adds up to the loss."""
        return self.total(self.parts(x, y), 2)

    def handicap(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor | None:
        """-2 n sigma^2 log t, (P,): the normalisation of y = (m + noise) / t, without which a darker image fits better."""
        if not self.free_scale:
            return None
        known, m = ~torch.isnan(y), self(x)
        y, missing = torch.where(known, y, 0.0), []
        for name, term in self.terms.items():
            if (log_t := term.log_exposure(m, y, known)) is not None:
                missing.append(-2 * self.weights[name] * self.sigma**2 * number_of(known, log_t.dtype) * log_t)
        return sum(missing) if missing else None

    def exposure(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor | None:
        """By the first term that fits one."""
        known, m = ~torch.isnan(y), self(x)
        fitted = (term.exposure_of(m, torch.where(known, y, 0.0), known) for term in self.terms.values() if term.free_scale)
        return next((value for value in fitted if value is not None), None)

    def components(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        """{term: (P,)}, without their weights."""
        return {name: summed(part, 1) for name, part in self.parts(x, y).items()}

    def total(self, parts: Mapping[str, torch.Tensor], axis: int) -> torch.Tensor:
        return sum(self.weights[name] * summed(part, axis) for name, part in parts.items())

    def parts(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        """What each measurement adds to each term, or each channel, or each particle; 0 where y is NaN."""
        known, m = ~torch.isnan(y), self(x)
        y, parts = torch.where(known, y, 0.0), {}
        for name, term in self.terms.items():
            part = term.value(m, y, known)
            parts[name] = torch.where(known, part, 0.0) if part.shape == y.shape else part
        return parts

    def residual(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """(P, n) numbers whose squares' curvature is the loss's at the truth, of the terms that have such."""
        known, m = ~torch.isnan(y), self(x)
        y, parts = torch.where(known, y, 0.0), []
        for name, term in self.terms.items():
            if (part := term.residual(m, y, known)) is not None:
                parts.append(self.weights[name] ** 0.5 * torch.where(known, part, 0.0).flatten(1))
        return torch.cat(parts, 1) if parts else torch.zeros_like(m).flatten(1)

    def noise_floor(self, y: torch.Tensor, axis: int = 1) -> torch.Tensor:
        """Expected loss of the true image, (P,), or (P, C) with axis 2."""
        return self.total(self.floors(y, axis), axis)

    def floor_spread(self, y: torch.Tensor, axis: int = 1) -> torch.Tensor:
        """Standard deviation of the true image's loss over its floor; that of several terms as if they rose together."""
        known = ~torch.isnan(y)
        filled = torch.where(known, y, 0.0)
        spread = sum(self.weights[name] * term.spread(filled, known, axis) for name, term in self.terms.items())
        return spread / self.noise_floor(y, axis)

    def floor_components(self, y: torch.Tensor) -> dict[str, torch.Tensor]:
        """{term: (P,)}, without their weights."""
        return self.floors(y, 1)

    def floors(self, y: torch.Tensor, axis: int) -> dict[str, torch.Tensor]:
        """Of each term, without its weight, as `noise_floor`."""
        known = ~torch.isnan(y)
        y = torch.where(known, y, 0.0)
        return {name: term.floor(y, known, axis) for name, term in self.terms.items()}


def summed(part: torch.Tensor, axis: int) -> torch.Tensor:
    """Over the axes from `axis` on."""
    return part.flatten(axis).sum(axis) if part.dim() > axis else part
