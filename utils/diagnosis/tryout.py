"""Parts of one's own are tried once on two small inputs, before anything is sampled.

What breaks its contract (that of an operator, a term, a prior, a metric or a similarity) ends in one line that names the part
and the cause.
"""

from collections.abc import Callable
from typing import Any

import torch

from operators.base import Operator
from operators.term import Term
from utils.diagnosis.gradients import Flow, computed, follow
from utils.errors import InputError, one_line
from utils.metrics.base import Metric
from utils.priors.base import LatentPrior


def check_kinds(prior_key: str, prior: LatentPrior, operator_key: str, operator: Operator) -> None:
    """Raises InputError for what is no operator, or a prior without what its contract names."""
    if not isinstance(operator, Operator):
        raise broken(operator_key, "is no operators.base.Operator", "subclass it")
    try:
        _ = prior.latent_shape, prior.resolution, prior.device, prior.dtype, prior.decode, prior.denoise
    except AttributeError as error:
        remedy = "give it latent_shape, resolution, device, dtype, decode and denoise"
        raise broken(prior_key, one_line(error), remedy) from None


def try_operator(key: str, operator: Operator, prior: LatentPrior, device: torch.device) -> None:
    """Raises InputError. key: the operator's, with its class."""
    operator = operator.to(device)
    x = ramp((2, 3, prior.resolution, prior.resolution), prior)
    y = measured(key, "forward", operator, x)
    single = measured(key, "forward", operator, x[:1])
    if single.shape[1:] != y.shape[1:]:
        raise broken(
            key,
            f"forward gives {tuple(y.shape)} for two images and {tuple(single.shape)} for one",
            "keep the other axes",
        )
    loss = measured(key, "loss", lambda x: operator.loss(x, torch.zeros_like(y)), x)
    if loss.shape != (2,):
        raise broken(key, f"loss gives {tuple(loss.shape)} for two images", "return one number for each, (P,)")


def try_prior(key: str, prior: LatentPrior) -> None:
    """Raises InputError. key: the prior's, with its class."""
    try:
        z, wanted = ramp((2, *prior.latent_shape), prior), (2, 3, prior.resolution, prior.resolution)
    except TypeError as error:
        raise broken(key, one_line(error), "give it latent_shape, resolution, device and dtype") from None
    image = measured(key, "decode", prior.decode, z)
    if tuple(image.shape) != wanted:
        raise broken(key, f"decode gives {tuple(image.shape)} for two latents", f"return {wanted}")
    sigma = torch.ones((), dtype=prior.dtype, device=prior.device)
    clean = measured(key, "denoise", lambda z: prior.denoise(z, sigma), z, gradient=False)
    if clean.shape != z.shape:
        raise broken(key, f"denoise gives {tuple(clean.shape)} for latents {tuple(z.shape)}", "return the shape of the latents")


def try_similarity(key: str, similarity: Callable[[torch.Tensor], torch.Tensor], prior: LatentPrior) -> None:
    """Raises InputError. key: where the config names it, with its value."""
    features = measured(key, "it", similarity, ramp((2, 3, prior.resolution, prior.resolution), prior))
    if features.ndim != 2 or not features.numel():
        raise broken(key, f"it gives {tuple(features.shape)} for two images", "return a row of numbers for each, (P, D)")


def try_term(key: str, term: Term, operator: Operator, prior: LatentPrior) -> None:
    """Raises InputError. key: the term's; operator: the one whose measurement it compares."""
    key = f"{key}: {type(term).__name__}"
    x = ramp((2, 3, prior.resolution, prior.resolution), prior)
    with torch.no_grad():
        y = operator(0.5 * x.flip(0))  # of other images, so that no term is at its minimum
    mask = torch.ones_like(y, dtype=torch.bool)
    value = measured(key, "value", lambda x: term.value(operator(x), y, mask), x)
    shapes = (y.shape, y.shape[:2]) if term.separable else (y.shape[:1],)
    if value.shape not in shapes:
        wanted = " or ".join(str(tuple(shape)) for shape in shapes)
        raise broken(key, f"value gives {tuple(value.shape)} for measurements {tuple(y.shape)}", f"return {wanted}")
    for name in ("floor", "spread"):
        for axis in (1, 2) if term.separable and operator.separable else (1,):
            values = measured(key, name, lambda y: getattr(term, name)(y, mask, axis), y, gradient=False)
            if values.shape != y.shape[:axis]:
                fault = f"{name} with axis={axis} gives {tuple(values.shape)} for measurements {tuple(y.shape)}"
                raise broken(key, fault, f"return {tuple(y.shape[:axis])}")


def try_metric(key: str, metric: Metric, prior: LatentPrior, operator: Operator) -> None:
    """Raises InputError. key: the metric's place in the config; operator: on the prior's device."""
    x = ramp((2, 3, prior.resolution, prior.resolution), prior)
    other = 0.5 * x.flip(-1)  # than each of x
    compared_with: tuple[Any, ...] = operator(other).detach(), operator
    if metric.of == "image":
        x, compared_with = x.float().cpu(), (other[0].float().cpu(),)
    values: torch.Tensor | None = measured(key, "it", lambda x: metric(x, *compared_with), x, gradient=False)
    if values is None or values.shape != (2,):
        result = "nothing" if values is None else str(tuple(values.shape))
        raise broken(key, f"gives {result} for two images", "return one number for each, (P,)")
    if not values.isfinite().all():
        raise broken(key, f"gives {values.tolist()} for two ordinary images", "return finite numbers")


def ramp(shape: tuple[int, ...], prior: LatentPrior) -> torch.Tensor:
    """Numbers from -0.9 to 0.9, all different and none of them 0: no kink of an operator is met."""
    count = torch.Size(shape).numel()
    return torch.linspace(-0.9, 0.9, count + count % 2, dtype=prior.dtype, device=prior.device)[:count].reshape(shape)


def measured(
    key: str, name: str, part: Callable[[torch.Tensor], torch.Tensor | None], x: torch.Tensor, gradient: bool = True
) -> torch.Tensor:
    """part(x), detached: a real tensor with the first axis of x, differentiable in x. Raises InputError."""
    of = f"for {tuple(x.shape)}"
    flow = follow(part, x) if gradient else computed(part, x)
    if flow.state == "fails":
        (first, *_) = flow.lost
        raise broken(key, f"{name} fails {of} ({first.why}) at {first.place}", "mend it")
    if (fault := what_is_wrong(flow, x)) is not None:
        raise broken(key, f"{name} {fault[0]} {of}", fault[1])
    return flow.result


def what_is_wrong(flow: Flow, x: torch.Tensor) -> tuple[str, str] | None:
    """(fault, remedy) of what a part did with x."""
    result, lines = flow.result, "; ".join(map(str, flow.lost[:3]))
    if not isinstance(result, torch.Tensor) and result is not None:
        return f"gives no tensor but {type(result).__name__}", "return a tensor"
    if isinstance(result, torch.Tensor):
        if result.is_complex():
            return "gives complex numbers", "return real ones, for example torch.view_as_real of them"
        if not result.is_floating_point():
            return f"gives {result.dtype}", "return floating-point numbers"
        if result.ndim == 0 or len(result) != len(x):
            return f"gives {tuple(result.shape)}", "the first axis belongs to the particles: keep it"
    if flow.state in ("cut", "zero"):
        fault = "a result without a gradient" if flow.state == "cut" else "a gradient that is zero everywhere"
        remedy = "compute it from its input by tensor operations, without detach, round or NumPy"
        return f"gives {fault}{f' ({lines})' if lines else ''}", remedy
    return None


def broken(key: str, fault: str, remedy: str) -> InputError:
    return InputError(f"{key}: {fault}; {remedy}")
