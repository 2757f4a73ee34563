"""Every CUDA, XLA and CPU branch of the project; no other file asks what the device is.

XLA means TPU through torch_xla. With PJRT_DEVICE=CPU the same compiler runs on the host, for tests.
"""
import logging
import os
import platform
import time
from contextlib import contextmanager

from utils.config import InputError

log = logging.getLogger("latentdaps")

TPU_INSTALL = "pip install 'torch==2.9.*' 'torch_xla[tpu]==2.9.*'"


def silence_unused_xla():
    """Keep an installed torch_xla, which diffusers imports on sight, from announcing a runtime nobody asked for."""
    os.environ.setdefault("PJRT_DEVICE", "CPU")


def get_device(use_tpu=False, gpu=0, local_rank=0):
    """The torch.device of this run. `gpu` is a CUDA number, -1 for the CPU; rank r of a node takes `gpu` + r.

    Without CUDA the run goes on on the CPU with one warning. Raises InputError if XLA cannot be had.
    """
    import torch

    if use_tpu:
        return _xla_device()
    if gpu < 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        log.warning("no CUDA device found: running on the CPU (gpu=-1 asks for it without this line)")
        return torch.device("cpu")
    if gpu + local_rank >= torch.cuda.device_count():
        rank = f" for rank {local_rank} of this machine (one device per rank)" if local_rank else ""
        raise InputError(f"gpu={gpu}: no CUDA device {gpu + local_rank}{rank}; this machine has devices 0 to "
                         f"{torch.cuda.device_count() - 1}")
    return torch.device("cuda", gpu + local_rank)


def _xla_device():
    try:
        import torch_xla
        import torch_xla.runtime as runtime
    except ImportError as error:
        reason = "is not installed" if isinstance(error, ModuleNotFoundError) else f"does not fit this torch ({error})"
        raise InputError(f"use_tpu=true: torch_xla {reason}; install it with {TPU_INSTALL}") from None
    try:
        device = torch_xla.device()
    except RuntimeError as error:
        raise InputError(f"use_tpu=true: no TPU could be opened ({str(error).splitlines()[0]})") from None
    if runtime.device_type() != "TPU":
        log.warning("use_tpu=true runs XLA on %s, not on a TPU", runtime.device_type())
    return device


def setup_device(device):
    """Reproducible arithmetic: deterministic cuDNN, no TF32, denormals flushed on the CPU."""
    import torch

    torch.set_flush_denormal(True)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def mark_step(device):
    """Close a sampling step: on XLA the lazily recorded graph runs now; elsewhere nothing happens."""
    if device.type == "xla":
        import torch_xla

        torch_xla.sync()


def batch_may_shrink(device):
    """Whether dropping finished particles saves work; on XLA each new batch size costs a compilation."""
    return device.type != "xla"


def synchronize(device):
    """Wait until the device has done all work that was given to it: call it before reading the clock."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "xla":
        import torch_xla

        torch_xla.sync(wait=True)


def clock(device):
    """Seconds, read after the device has finished."""
    synchronize(device)
    return time.perf_counter()


def reset_peak_memory(device):
    """Start a new section for `peak_memory_mb`."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device):
    """Peak memory in MB since the last reset; None where the runtime does not count it (see `probe_peak_mb`)."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2 ** 20
    if device.type == "xla":
        import torch_xla.core.xla_model as xm

        try:
            return xm.get_memory_info(device)["peak_bytes_used"] / 2 ** 20
        except (RuntimeError, KeyError):  # XLA on the CPU keeps no such figures
            return None
    return None


def probe_peak_mb(device, work, resident_bytes):
    """Peak of torch-allocated memory in MB while `work()` runs, on top of `resident_bytes`; None off the CPU.

    The CPU allocator keeps no peak, so one representative piece of work runs under torch.profiler.
    """
    import torch

    if device.type != "cpu":
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    in_use = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        in_use += event.nbytes()
        peak = max(peak, in_use)
    return (resident_bytes + peak) / 2 ** 20


def is_out_of_memory(error):
    """Whether an exception says that device or host memory is exhausted."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # XLA and the CPU allocator raise RuntimeError
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("RESOURCE_EXHAUSTED", "DefaultCPUAllocator: can't allocate memory",
                                          "DefaultCPUAllocator: not enough memory"))


@contextmanager
def out_of_memory_in_one_line():
    """Turns memory exhausted outside the passes that can be split into an InputError."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"out of memory ({str(error).splitlines()[0] if str(error) else 'host'}); try a smaller "
                         "batch_images= or num_samples=, or another gpu=") from None


def release_memory(device):
    """Give cached blocks back to the device, after a pass that did not fit."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()


def describe(device):
    """{"type", "name"} of the device for metrics.json."""
    import torch

    if device.type == "cuda":
        return {"type": "cuda", "name": torch.cuda.get_device_name(device)}
    if device.type == "xla":
        import torch_xla.runtime as runtime

        return {"type": "xla", "name": f"XLA:{runtime.device_type()}"}
    return {"type": "cpu", "name": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"}
