"""Every CUDA, XLA and CPU branch of the project; no other file asks what the device is.

XLA means TPU through torch_xla. With PJRT_DEVICE=CPU the same compiler runs on the host, for tests.
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import platform
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from utils.errors import InputError, counted, one_line

if TYPE_CHECKING:
    import torch

log = logging.getLogger("latentdaps")

_peak_at_reset: dict[torch.device, int | None] = {}  # {XLA device: its peak when the memory section began}
# XLA's seconds of compiling that are in a record already, and torch.compile's that are not yet
_compile, _compile_lock = {"xla_s": 0.0, "torch_s": 0.0, "watched": False, "started": 0.0}, threading.Lock()
XLA_PACKAGE = "torch_xla"
_hidden: set[str] = set()  # packages that are installed, and not to be imported
MALLOPT = {-1: 1 << 30, -3: 32 << 20}  # glibc: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD (its largest), in bytes
CGROUP = Path("/sys/fs/cgroup")  # the limits of a container
TPU_INSTALL = "pip install 'torch==2.9.*' 'torch_xla[tpu]==2.9.*'"


def silence_unused_xla() -> None:
    """Keep diffusers from importing an installed torch_xla, which takes seconds and announces a runtime nobody asked for."""
    os.environ.setdefault("PJRT_DEVICE", "CPU")
    if XLA_PACKAGE not in sys.modules:
        sys.modules[XLA_PACKAGE] = None  # type: ignore[assignment]  # an import fails as if it were not there
        _hidden.add(XLA_PACKAGE)


def get_device(use_tpu: bool = False, gpu: int = 0, local_rank: int = 0) -> torch.device:
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
        raise InputError(
            f"gpu={gpu}: no CUDA device {gpu + local_rank}{rank}; this machine has devices 0 to {torch.cuda.device_count() - 1}"
        )
    return torch.device("cuda", gpu + local_rank)


def gpu_of(device: torch.device) -> int:
    """The value of `gpu` that means this device: its CUDA number, -1 for any other."""
    return (device.index or 0) if device.type == "cuda" else -1


def require(kind: str) -> None:
    """Raises InputError where a training asks for `kind`, "cuda" or "cpu", and there is none."""
    import torch

    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError("device=cuda: no CUDA device found; use device=cpu")


def is_cpu(use_tpu: bool, gpu: int) -> bool:
    """Whether `get_device` will give the CPU. Imports torch only where a CUDA driver is."""
    if use_tpu or gpu < 0:
        return not use_tpu
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return True
    import torch

    return not torch.cuda.is_available()


def usable_cores() -> int:
    """Cores that this process may use: those it is bound to, and in a container not more than its quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _said(CGROUP / "cpu.max").partition(" ")
    return max(1, min(cores, int(quota) // int(period))) if quota.isdecimal() and period.isdecimal() else cores


def usable_memory() -> float:
    """Bytes of host memory that are free, and in a container not more than its limit leaves; infinite where nobody says."""
    lines = _said(Path("/proc/meminfo")).splitlines()
    free = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    limit, used = _said(CGROUP / "memory.max"), _said(CGROUP / "memory.current")
    if limit.isdecimal() and used.isdecimal():
        lines = _said(CGROUP / "memory.stat").splitlines()
        of_files = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        free.append(int(limit) - int(used) + of_files)  # the kernel gives up what it keeps of files
    return max(0.0, float(min(free, default=math.inf)))


def _said(file: Path) -> str:
    """What a file of the kernel says; nothing where it is missing, as on other systems."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def exchange_gradients(device: str, local_rank: int) -> None:
    """Join the processes of torchrun that train one network: NCCL between GPUs, one for each local rank; gloo on the CPU.

    device: "cuda" or "cpu", which from here on means this rank's own; local_rank: its number on its own machine.
    """
    import torch

    if device == "cuda":
        torch.cuda.set_device(get_device(local_rank=local_rank))
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")


def _import_xla() -> ModuleType:
    """torch_xla with a TPU as its device, unless PJRT_DEVICE names another. Raises InputError."""
    if XLA_PACKAGE in _hidden:  # of a run without it that came before
        _hidden.remove(XLA_PACKAGE)
        del sys.modules[XLA_PACKAGE]
    os.environ.setdefault("PJRT_DEVICE", "TPU")  # left to itself torch_xla would take the CPU where it finds no TPU
    try:
        import torch_xla
        import torch_xla.runtime  # noqa: F401
    except (ImportError, OSError) as error:
        reason = (
            "is not installed" if isinstance(error, ModuleNotFoundError) else f"does not fit this torch ({one_line(error)})"
        )
        raise InputError(f"use_tpu=true: torch_xla {reason}; install it with {TPU_INSTALL}") from None
    return torch_xla


def _xla_device() -> torch.device:
    torch_xla = _import_xla()
    try:
        device = torch_xla.device()
    except (RuntimeError, OSError) as error:
        raise _no_tpu(error) from None
    kind = torch_xla.runtime.device_type()
    if kind != "TPU":
        log.warning("use_tpu=true runs XLA on %s (PJRT_DEVICE=%s), not on a TPU", kind, os.environ["PJRT_DEVICE"])
    return device


def _no_tpu(error: Exception) -> InputError:
    """The line for a device that could not be opened."""
    if "in use" in str(error) or "busy" in str(error).lower():
        return InputError(f"use_tpu=true: another process uses the TPU ({one_line(error)}); end that process first")
    return InputError(
        f"use_tpu=true: no TPU found ({one_line(error)}); on a TPU VM install it with {TPU_INSTALL}, "
        "or set PJRT_DEVICE=CPU to run XLA on the CPU"
    )


class CoreFailure(Exception):
    """An error of the program on one core, with its traceback as text."""


def has_many_cores(limit: int | None = None) -> bool:
    """Whether XLA may find several cores here, without opening them: a process that has cannot start workers.

    limit: num_cores. Raises InputError if XLA on the CPU has fewer; a TPU is asked when it is open (`run_on_cores`).
    """
    _import_xla()
    if os.environ["PJRT_DEVICE"] != "CPU":
        return limit != 1
    count = int(os.environ.get("CPU_NUM_DEVICES", 1))
    _check_cores(limit, count)
    return min(limit or count, count) > 1


def _check_cores(limit: int | None, count: int) -> None:
    if limit and limit > count:
        raise InputError(f"num_cores={limit}: XLA has {count} cores here; num_cores=null takes all")


def run_on_cores(work: Callable[..., None], args: tuple[object, ...], limit: int | None = None) -> None:
    """work(core, cores, *args) on each of this machine's XLA cores, core = 0 .. cores - 1, without collectives.

    limit: num_cores, None for all. Cores are threads, on a TPU of two per process, so `work` and `args` are pickled.
    Raises InputError, or CoreFailure for any other error on a core.
    """
    torch_xla = _import_xla()
    try:
        torch_xla.launch(_on_core, args=(work, args, limit))
    except (InputError, CoreFailure):
        raise
    except Exception as error:  # the kinds differ: no chip, no libtpu, a worker that died while it opened the TPU
        raise _no_tpu(error) from None


def _on_core(core: int, work: Callable[..., None], args: tuple[object, ...], limit: int | None) -> None:
    runtime = _import_xla().runtime
    count = runtime.world_size()
    _check_cores(limit, count)
    cores = min(limit or count, count)
    if core >= cores:
        return
    try:
        work(core, cores, *args)
    except InputError:
        raise
    except Exception:
        raise CoreFailure(f"core {core}:\n{traceback.format_exc()}") from None


def setup_device(device: torch.device, tf32: bool = False, threads: int | None = None) -> None:
    """Reproducible arithmetic: deterministic cuDNN, no TF32, full float32 products on a TPU, denormals flushed on the CPU.

    CUDA's fused attention and reflection padding may still add gradients in another order each time (PyTorch
    documentation, torch.use_deterministic_algorithms).

    tf32: CUDA's matrix products and convolutions of float32 numbers, in operators too, may round to 10 bits; not its FFT.
    threads: of this process's work on the CPU; None leaves them as they are. Raises InputError where there is no TF32.
    """
    import torch

    if tf32 and device.type != "cuda":
        raise InputError(
            f"precision=tf32: only CUDA devices have it, and this run is on the {device.type}; use precision=fp32 or bf16"
        )
    torch.set_flush_denormal(True)
    if threads is not None:
        torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cuda.matmul.allow_tf32 = tf32
    elif device.type == "cpu":
        _keep_freed_memory()
    elif device.type == "xla":
        from torch_xla import backends

        # Backward passes run in the calling thread (the setting is this thread's own). A worker thread would let go of
        # its last gradient some time later, and whatever lives at a mark_step is an output of the graph: another graph.
        torch.autograd.set_multithreading_enabled(False)
        if backends.get_mat_mul_precision() != "highest":  # a TPU multiplies in bfloat16 by default
            logging.getLogger("torch_xla.backends").setLevel(logging.ERROR)  # it warns of setting it twice at the first
            backends.set_mat_mul_precision("highest")


def _keep_freed_memory() -> None:
    """Each pass frees its activations; glibc would give them back to the system, and the next pass fault them in anew.

    Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for parameter, value in MALLOPT.items():
        mallopt(parameter, value)


def mark_step(device: torch.device) -> None:
    """Close a sampling step: on XLA the lazily recorded graph runs now; elsewhere nothing happens."""
    if device.type == "xla":
        import torch_xla

        torch_xla.sync()


def one_graph(device: torch.device, possible: bool) -> bool:
    """Whether a part that has faded to zero stays in the computation where `possible`.

    On XLA leaving it out would be another graph to compile, which takes longer than adding zeros.
    """
    return possible and device.type == "xla"


def spectrum_magnitude(x: torch.Tensor, field: tuple[int, int], offset: tuple[float, float] = (0.0, 0.0)) -> torch.Tensor:
    """|FFT| of x (P, C, H, W) with zeros around it, centred, orthonormal, (P, C, *field); offset: of the frequencies, samples.

    XLA has no FFT of its own here (it would run on the host) and no gradient of a complex magnitude.
    """
    from utils import kernels

    form = kernels.spectrum_by_products if x.device.type == "xla" else kernels.spectrum_by_fft
    return form(x, field, offset)


def compiles_each_graph(device: torch.device) -> bool:
    """Whether work that nothing repeats, such as a check, would take a compilation first."""
    return device.type == "xla"


def batch_may_shrink(device: torch.device) -> bool:
    """Whether dropping finished particles saves work; on XLA each new batch size costs a compilation."""
    return device.type != "xla"


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all work that was given to it: call it before reading the clock."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "xla":
        import torch_xla

        torch_xla.sync(wait=True)


def clock(device: torch.device) -> float:
    """Seconds, read after the device has finished."""
    synchronize(device)
    return time.perf_counter()


def reset_peak_memory(device: torch.device) -> None:
    """Start a new section for `peak_memory_mb`."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "xla":
        _peak_at_reset[device] = _xla_peak_bytes(device)


def peak_memory_mb(device: torch.device) -> float | None:
    """Peak memory in MB since the last reset; None where the runtime does not count it (see `probe_peak_mb`).

    A TPU's peak cannot be reset, so there a section's is known only if it is a new high of the process.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if device.type == "xla":
        peak = _xla_peak_bytes(device)
        return peak / 2**20 if peak is not None and peak > _peak_at_reset.get(device, 0) else None
    return None


def _xla_peak_bytes(device: torch.device) -> int | None:
    import torch_xla.core.xla_model as xm

    try:
        return xm.get_memory_info(device)["peak_bytes_used"]
    except (RuntimeError, KeyError):  # XLA on the CPU keeps no such figures
        return None


def has_tf32(device: torch.device) -> bool:
    """Whether precision=tf32 means anything here."""
    return device.type == "cuda"


def has_fast_bf16(device: torch.device | str) -> bool:
    """Whether networks compute faster in bfloat16 than in float32: TPUs, GPUs and CPUs with units for it; others emulate it."""
    import torch

    if torch.device(device).type == "xla":
        return True
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()  # no public names in torch 2.9


def free_memory_bytes(device: torch.device) -> int | None:
    """Memory that a batch may still take, torch's own unused blocks included; None where the runtime does not say."""
    import torch

    if device.type != "cuda":
        return None
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached


def memory_of(device: torch.device, work: Callable[[], object]) -> int:
    """Bytes that `work()` needs at its peak beyond what is in use already. CUDA only."""
    import torch

    before = torch.cuda.memory_allocated(device)
    reset_peak_memory(device)
    work()
    synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def watch_compile() -> None:
    """From here on the time that torch.compile takes is counted."""
    from torch._dynamo.callback import callback_handler

    with _compile_lock:
        if _compile["watched"]:
            return
        _compile["watched"] = True
    callback_handler.register_start_callback(lambda *_: _compile.__setitem__("started", time.perf_counter()))
    callback_handler.register_end_callback(_compiled)


def _compiled(*_: object) -> None:
    with _compile_lock:
        _compile["torch_s"] += time.perf_counter() - _compile["started"]


def take_compile_s(device: torch.device) -> float | None:
    """Seconds that XLA or torch.compile has taken in this process and that no earlier call has returned.

    None where nothing is compiled. Cores that are threads of one process share the count: their sum is right, who gets
    a second is not told.
    """
    with _compile_lock:
        seconds = []
        if device.type == "xla":
            import torch_xla.debug.metrics as counters

            total = (counters.metric_data("CompileTime") or (0, 0.0))[1] / 1e9
            seconds.append(max(0.0, total - _compile["xla_s"]))
            _compile["xla_s"] = total
        if _compile["watched"]:
            seconds.append(_compile["torch_s"])
            _compile["torch_s"] = 0.0
    return sum(seconds) if seconds else None


def probe_peak_mb(device: torch.device, work: Callable[[], object], resident_bytes: int) -> float | None:
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
    return (resident_bytes + peak) / 2**20


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that device or host memory is exhausted."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # XLA and the CPU allocator raise RuntimeError
    return isinstance(error, RuntimeError) and any(
        words in str(error)
        for words in (
            "RESOURCE_EXHAUSTED",
            "DefaultCPUAllocator: can't allocate memory",
            "DefaultCPUAllocator: not enough memory",
        )
    )


@contextmanager
def out_of_memory_in_one_line(smaller: str = "batch_images= or num_samples=, or another gpu=") -> Iterator[None]:
    """Turns memory exhausted outside the passes that can be split into an InputError; smaller: the keys that it names."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"out of memory ({one_line(error)}); try a smaller {smaller}") from None


def release_memory(device: torch.device) -> None:
    """Give cached blocks back to the device, after a pass that did not fit."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()


def describe(device: torch.device) -> dict[str, str | int]:
    """{"type", "name"} of the device for metrics.json; on XLA also "core", its number, and torch_xla's version."""
    import torch

    if device.type == "cuda":
        return {"type": "cuda", "name": torch.cuda.get_device_name(device)}
    if device.type == "xla":
        import torch_xla
        import torch_xla.runtime as runtime

        return {
            "type": "xla",
            "name": f"XLA:{runtime.device_type()}",
            "core": runtime.global_ordinal(),
            "torch_xla": torch_xla.__version__,
        }
    return {
        "type": "cpu",
        "name": f"{platform.processor() or platform.machine()}, {counted(torch.get_num_threads(), 'thread')}",
    }
