"""Wrappers of a prior, in the order of a call: passes of bounded size, then counting, then compiled functions.

Each may wrap another one, and has what it does not define from what it wraps.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from utils import device as devices
from utils.errors import InputError, one_line
from utils.priors.base import LatentPrior


class SplitPrior:
    """A prior whose networks run in bounded passes.

    Under a gradient each runs whole, since its activations live until the backward pass: there the caller puts computing and
    differentiating into one pass (Algorithm.data_gradient, GuidedDDIM.guided).
    """

    def __init__(self, prior: Any, passes: Callable[..., torch.Tensor]) -> None:
        self._prior, self._passes = prior, passes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._prior, name)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self._run(self._prior.decode, z)

    def denoise(self, z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return self._run(self._prior.denoise, z, sigma)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self._run(self._prior.encode, x)

    def _run(self, network: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and tensors[0].requires_grad:
            return network(*tensors)
        return self._passes(network, *tensors)


class CountingPrior:
    """A prior whose calls are counted: what was run, not what a formula says was run.

    calls: {kind: particles that went through that network}
    """

    def __init__(self, prior: Any) -> None:
        self._prior = prior
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._prior, name)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        with_gradient = torch.is_grad_enabled() and z.requires_grad
        self.calls["decoder_forward_backward" if with_gradient else "decoder_forward"] += len(z)
        return self._prior.decode(z)

    def denoise(self, z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        self.calls["denoiser_calls"] += len(z)
        return self._prior.denoise(z, sigma)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        self.calls["encoder_forward"] += len(x)
        return self._prior.encode(x)


SIZES = 64  # graphs of one function before torch would go back to the plain one: each pass size is one


class CompiledPrior:
    """A prior whose decoder with its backward pass, and whose denoiser, are compiled for each pass size they meet.

    Decoding without a gradient stays as it was: it happens a few times per image, and would be one more graph per size.
    No CUDA graphs: their outputs would be overwritten by the next pass, while the sampler still holds them.
    Raises InputError if there is no compiler.

    plain: the prior as it was; compiled functions have no second derivative
    """

    def __init__(self, prior: LatentPrior) -> None:
        self._prior = self.plain = prior
        devices.watch_compile()
        torch._dynamo.config.recompile_limit = max(SIZES, torch._dynamo.config.recompile_limit)
        self._decode, self._denoise = (torch.compile(f, dynamic=False) for f in (prior.decode, prior.denoise))
        _try_compiler(prior.device)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._prior, name)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        with_gradient = torch.is_grad_enabled() and z.requires_grad
        return (self._decode if with_gradient else self._prior.decode)(z)

    def denoise(self, z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        # steps with and without gradients of others share one graph
        with torch.set_grad_enabled(torch.is_grad_enabled() and z.requires_grad):
            return self._denoise(z, sigma)


def _try_compiler(device: torch.device) -> None:
    try:
        torch.compile(lambda x: x.sin() + 1, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # no compiler, no Triton, no Python headers, a device too old: kinds and causes differ
        raise InputError(
            f"compile=true: torch.compile does not work here ({one_line(error)}); install a C++ compiler (g++), on "
            "GPUs also triton, or use compile=false"
        ) from None
