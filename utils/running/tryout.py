"""Parts of one's own are tried once on two small inputs, before anything is sampled: what breaks the contract of
operators/base.py, utils/priors/base.py or utils/sampling/repulsion.py ends in one line that names the part and the cause."""

from collections.abc import Callable

import torch

from operators.base import Operator
from utils.errors import InputError, one_line
from utils.priors.base import LatentPrior
from utils.running.gradients import Flow, computed, follow

TOLERANCE = 0.05  # of the largest value: far above any rounding, far below another noise level


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


def try_prior(key: str, prior: LatentPrior, spaced: bool = False) -> None:
    """Raises InputError. key: the prior's, with its class; spaced: particles will have noise levels of their own."""
    try:
        z, wanted = ramp((2, *prior.latent_shape), prior), (2, 3, prior.resolution, prior.resolution)
    except TypeError as error:
        raise broken(key, one_line(error), "give it latent_shape, resolution, device and dtype") from None
    image = measured(key, "decode", prior.decode, z)
    if tuple(image.shape) != wanted:
        raise broken(key, f"decode gives {tuple(image.shape)} for two latents", f"return {wanted}")
    levels = torch.tensor([1.0, 2.0], dtype=prior.dtype, device=prior.device)
    clean = measured(key, "denoise", lambda z: prior.denoise(z, levels[0]), z, gradient=False)
    if clean.shape != z.shape:
        raise broken(key, f"denoise gives {tuple(clean.shape)} for latents {tuple(z.shape)}", "return the shape of the latents")
    if not spaced:
        return
    name = "denoise with a sigma for each particle, as spacing in a portfolio needs it,"
    own = measured(key, name, lambda z: prior.denoise(z, levels), z, gradient=False)
    with torch.no_grad():
        alone = torch.cat([prior.denoise(z[i : i + 1], levels[i]) for i in range(2)])
    if own.shape != z.shape or (own - alone).abs().max() > TOLERANCE * alone.abs().max():
        raise broken(key, f"{name} gives other latents than one by one", "take sigma as a (P,) tensor too")


def try_similarity(key: str, similarity: Callable[[torch.Tensor], torch.Tensor], prior: LatentPrior) -> None:
    """Raises InputError. key: repulsion.similarity with its value."""
    measured(key, "it", similarity, ramp((2, 3, prior.resolution, prior.resolution), prior))


def ramp(shape: tuple[int, ...], prior: LatentPrior) -> torch.Tensor:
    """Numbers from -0.9 to 0.9, all different and none of them 0: no kink of an operator is met."""
    count = torch.Size(shape).numel()
    return torch.linspace(-0.9, 0.9, count + count % 2, dtype=prior.dtype, device=prior.device)[:count].reshape(shape)


def measured(
    key: str, name: str, part: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, gradient: bool = True
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
