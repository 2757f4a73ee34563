"""Decoder and denoiser through torch.compile: fewer and larger kernels, the same numbers up to rounding."""
import threading
import time

import torch

from utils.config import InputError

SIZES = 64  # graphs of one function before torch would go back to the plain one: each pass size is one

_lock, _started, _seconds = threading.Lock(), [None], [0.0]
_on = threading.Event()


class CompiledPrior:
    """A prior whose decoder with its backward pass, and whose denoiser, are compiled for each pass size they meet.

    Decoding without a gradient stays as it was: it happens a few times per image, and would be one more graph per size.
    No CUDA graphs: their outputs would be overwritten by the next pass, while the sampler still holds them.
    Raises InputError if there is no compiler.
    """

    def __init__(self, prior):
        self._prior = prior
        _start_watch()
        torch._dynamo.config.recompile_limit = max(SIZES, torch._dynamo.config.recompile_limit)
        self._decode, self._denoise = (torch.compile(f, dynamic=False) for f in (prior.decode, prior.denoise))
        _try_compiler(prior.device)

    def __getattr__(self, name):
        return getattr(self._prior, name)

    def decode(self, z):
        with_gradient = torch.is_grad_enabled() and z.requires_grad
        return (self._decode if with_gradient else self._prior.decode)(z)

    def denoise(self, z, sigma):
        with torch.no_grad():  # steps with and without other gradients share one graph
            return self._denoise(z, sigma)


def _try_compiler(device):
    try:
        torch.compile(lambda x: x.sin() + 1, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # no compiler, no Triton, no Python headers, a device too old: kinds and causes differ
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"compile=true: torch.compile does not work here ({reason}); install a C++ compiler (g++), on "
                         "GPUs also triton, or use compile=false") from None


def _start_watch():
    """From here on the time that torch.compile takes is counted."""
    from torch._dynamo.callback import callback_handler

    with _lock:
        if _on.is_set():
            return
        _on.set()
        callback_handler.register_start_callback(lambda *_: _started.__setitem__(0, time.perf_counter()))
        callback_handler.register_end_callback(_stop)


def _stop(*_):
    with _lock:
        _seconds[0] += time.perf_counter() - _started[0]


def take_compile_s():
    """Seconds that torch.compile has taken in this process and that no earlier call has returned; None if it is off."""
    if not _on.is_set():
        return None
    with _lock:
        new, _seconds[0] = _seconds[0], 0.0
    return new
