"""How close sampling comes to the speed of its decoder. Takes the overrides of posterior_sample.py.

    python tools/benchmark.py                       # configured prior and device, one batch
    python tools/benchmark.py batch_images=4 data.end_id=4 precision=bf16 compile=true
    python tools/benchmark.py --parts               # and where the time goes
    python tools/benchmark.py --full-size /tmp/random_imagenet   # the ImageNet model's structure, num_samples x precision
    python tools/benchmark.py --ranks 2 data.end_id=4   # images per second of 2 torchrun ranks against one
    python tools/benchmark.py --default gpu=-1 sampler=fast   # wall time of ten images: the default against settings by hand

Prints the bare time of one decoder forward + backward pass at the batch of the run, the number of passes, the
sampling time, and the overhead: sampling time / (passes x bare time). Both are measured alternately in one process,
so that a busy machine slows both alike; --parts does the same with the operator and the denoiser. Compiling happens
before the clock starts. --full-size writes random weights into the folder if it is absent (1.8 GB), and samples one
image for two annealing steps of four inner iterations; num_samples= and precision= choose among its runs. With --ranks
every process has one thread, and starting up does not count. With --default whole commands are timed, on the machine as it is
and beside twice as many busy processes as it has cores; the last row is the default over the best of the others.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from utils import device as devices
from utils.command_line import Parser, run
from utils.config.check import check
from utils.config.compose import compose
from utils.data import select_images
from utils.errors import InputError
from utils.paths import PROJECT
from utils.running.console import setup_logging

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from utils.priors.base import LatentPrior
    from utils.sampling.outcome import StepInfo


Figures = Mapping[str, str | float | None]  # {name: value}
Timings = Mapping[str, tuple[float, float, float]]  # {part: (ms per call, calls, share of the time)}

CALLS_PER_STEP = 4
DECODER, OPERATOR, DENOISER = "decoder forward + backward", "operator + gradient", "denoiser"
FULL_SIZE = (
    "model=imagenet256ldm",
    "data.resolution=256",
    "task_group=ldm",
    "data.end_id=1",
    "sampler.annealing_scheduler_config.num_steps=2",
    "task.ldm.mcmc_sampler_config.num_steps=4",
)


def main() -> None:
    parser = Parser(prog="benchmark.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as of posterior_sample.py")
    parser.add_argument("--parts", action="store_true", help="also where the time goes")
    parser.add_argument("--full-size", type=Path, metavar="FOLDER", help="of the model with random weights")
    parser.add_argument("--ranks", type=int, help="of torchrun, against one")
    parser.add_argument("--default", action="store_true", help="whole commands: the default against settings by hand")
    args = parser.parse_intermixed_args()  # overrides may stand on both sides of the options
    setup_logging()
    if args.ranks is not None:
        show(compare_ranks(args.ranks, args.overrides))
    elif args.default:
        show(*default_against_others(args.overrides))
    elif args.full_size is not None:
        show(*full_size(args.full_size, args.overrides))
    else:
        figures, rows = benchmark(compose(args.overrides), args.parts)
        show(figures)
        if args.parts:
            show_parts(rows)


def benchmark(cfg: DictConfig, parts_too: bool = False) -> tuple[Figures, Timings]:
    """Sample one batch of a composed config: the figures, and with parts_too where the time went."""
    settings = check(cfg)
    images = select_images(settings)
    from utils.evaluation.trace import Trace
    from utils.running.batching import images_per_batch
    from utils.running.build import build, load_batch
    from utils.sampling.profiler import Profiler

    parts = build(settings)
    particles, truth = load_batch(parts, settings, images[: images_per_batch(parts, settings, images)])
    trace = Trace(None if truth is None else {image.id: x.to(parts.device) for x, image in zip(truth, images)})
    pieces = Pieces(parts.prior, particles.z, lambda x: parts.operator.loss(x, particles.y))
    timed = (DECODER, OPERATOR, DENOISER) if parts_too else (DECODER,)
    for name in (DECODER, DENOISER):  # warm-up, and compiling
        pieces.run(name, 3)
    seconds, bench_s = {name: [] for name in timed}, []

    def on_step(info: StepInfo) -> None:
        trace(info)
        started = devices.clock(parts.device)
        for name in timed:
            seconds[name] += pieces.run(name, CALLS_PER_STEP)
        bench_s.append(devices.clock(parts.device) - started)

    profiler = Profiler(parts.device)
    parts.sampler.sample(particles, profiler, on_step)
    phases = profiler.phases.values()
    passes = sum(p.decoder_forward_backward for p in phases)
    sampling_s = sum(p.time_s for p in phases) - sum(bench_s)
    bare_pass_s = statistics.fmean(seconds[DECODER])
    peaks = [p.peak_mb for p in phases if p.peak_mb is not None]
    figures = {
        "device": devices.describe(parts.device)["name"],
        "precision": settings.precision,
        "compiled": settings.compile,
        "particles in the batch": len(particles),
        "bare decoder forward + backward (ms)": 1e3 * bare_pass_s,
        "decoder passes of the run": passes,
        "sampling time (s)": sampling_s,
        "passes per second": passes / sampling_s,
        "overhead": sampling_s / (passes * bare_pass_s),
        "decoder TFLOP/s": pieces.decoder_flops() / bare_pass_s / 1e12,
        "peak memory (MB)": max(peaks) if peaks else None,
    }
    calls = {DECODER: passes, OPERATOR: passes, DENOISER: sum(p.denoiser_calls for p in phases)}
    rows = {
        name: (1e3 * statistics.fmean(seconds[name]), calls[name], statistics.fmean(seconds[name]) * calls[name] / sampling_s)
        for name in timed
    }
    remaining_share = 1 - sum(share for _, _, share in rows.values())
    return figures, {**rows, "everything else": (1e3 * remaining_share * sampling_s / passes, passes, remaining_share)}


class Pieces:
    """What sampling is made of, each alone, at the batch of the run."""

    def __init__(
        self, prior: LatentPrior, like: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> None:
        """like: latents (P, C, h, w); loss: of images (P, 3, H, W), (P,), None where the operator is not asked for."""
        import torch

        self.prior, self.loss, self.z = prior, loss, torch.zeros_like(like)
        with torch.no_grad():
            self.image = prior.decode(self.z)
        self.sigma = torch.ones((), dtype=self.z.dtype, device=self.z.device)
        self.work = {DECODER: self.decoder, OPERATOR: self.operator, DENOISER: self.denoiser}

    def decoder(self) -> None:
        import torch

        z = self.z.detach().requires_grad_()
        image = self.prior.decode(z)
        torch.autograd.grad(image, z, torch.ones_like(image))

    def operator(self) -> None:
        import torch

        image = self.image.detach().requires_grad_()
        torch.autograd.grad(self.loss(image).sum(), image)

    def denoiser(self) -> None:
        import torch

        with torch.no_grad():
            self.prior.denoise(self.z, self.sigma)

    def run(self, name: str, count: int) -> list[float]:
        """Seconds of each of `count` calls."""
        import torch

        seconds = []
        with torch.enable_grad():  # the sampler's callback runs without
            for _ in range(count):
                started = devices.clock(self.z.device)
                self.work[name]()
                seconds.append(devices.clock(self.z.device) - started)
        return seconds

    def decoder_flops(self) -> int:
        """Floating-point operations of one decoder forward + backward pass: products and convolutions."""
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
            self.decoder()
        return counter.get_total_flops()


def full_size(folder: Path, overrides: Sequence[str]) -> list[Figures]:
    """The figures of each num_samples and precision, or of those in `overrides`, on the ImageNet structure with random
    weights in `folder`."""

    def config(*more: str) -> DictConfig:
        return compose([*FULL_SIZE, f"model.path={folder.resolve()}", *overrides, *more])

    if not folder.exists():
        write_random_model(folder)
    settings = check(config())
    device = devices.get_device(settings.use_tpu, settings.gpu)
    chosen = dict(override.split("=", 1) for override in overrides if "=" in override)
    precisions = ("fp32", "tf32", "bf16") if devices.has_tf32(device) else ("fp32", "bf16")
    figures = []
    for precision in [chosen["precision"]] if "precision" in chosen else precisions:
        for count in [chosen["num_samples"]] if "num_samples" in chosen else (1, 2, 4):
            figures.append(benchmark(config(f"precision={precision}", f"num_samples={count}"))[0])
            devices.release_memory(device)
    return figures


def write_random_model(folder: Path) -> None:
    """cin256-v2 in diffusers' layout with random weights: speed and memory are those of the real one."""
    import torch

    from utils.priors import compvis

    torch.manual_seed(0)
    parts = {
        "unet": compvis.build_unet(**compvis.IMAGENET_UNET),
        "vqvae": compvis.build_vq(**compvis.VQ_F4),
        "scheduler": compvis.build_scheduler(),
    }
    compvis.write(parts, torch.zeros(1001, compvis.IMAGENET_UNET["context"]), folder, {"weights": "raw", "random": True})


def compare_ranks(ranks: int, overrides: Sequence[str]) -> Figures:
    """Throughput of `ranks` torchrun ranks on one node against one rank; a dict of the figures. Raises InputError."""
    program = str(PROJECT / "posterior_sample.py")
    launchers = {
        "one": [sys.executable, program],
        "many": [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", program],
    }
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, launcher in launchers.items():
            command = [*launcher, "data.end_id=4", *overrides, f"save_dir={folder}", f"name={name}"]
            if subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode:
                raise InputError(f"--ranks {ranks}: this command failed: {' '.join(command)}")
            seconds[name] = json.loads((Path(folder) / name / "metrics.json").read_text("utf-8"))["time"]["per_image_s"]
    one, slowest = sum(seconds["one"]), max(sum(seconds["many"][rank::ranks]) for rank in range(ranks))
    return {
        "images": len(seconds["one"]),
        "images per second, one rank": len(seconds["one"]) / one,
        f"images per second, {ranks} ranks": len(seconds["many"]) / slowest,
        "throughput ratio": one / slowest,
    }


def default_against_others(overrides: Sequence[str]) -> list[Figures]:
    """Seconds of a whole run of ten images with `workers` and `threads` left alone and set by hand, once without other work
    and once beside twice as many busy processes as there are cores. Raises InputError."""
    cores = devices.usable_cores()
    by_hand: dict[str, tuple[list[str], dict[str, str]]] = {
        "one process, one thread": (["workers=1"], {"OMP_NUM_THREADS": "1"}),
        f"one process, {cores} threads": (["workers=1"], {"OMP_NUM_THREADS": str(cores)}),
        f"one process, {cores} passive threads": (["workers=1"], {"OMP_NUM_THREADS": str(cores), "OMP_WAIT_POLICY": "PASSIVE"}),
        f"{cores} processes, one thread": ([f"workers={cores}"], {"OMP_NUM_THREADS": "1"}),
    }
    columns = []
    for busy in (0, 2 * cores):
        with busy_processes(busy):
            seconds = {"default": timed_run(overrides, {})}
            seconds |= {name: timed_run([*overrides, *more], environment) for name, (more, environment) in by_hand.items()}
        best = min(seconds[name] for name in by_hand)
        columns.append({"busy processes beside": str(busy), **seconds, "default / best by hand": seconds["default"] / best})
    return columns


def timed_run(overrides: Sequence[str], environment: Mapping[str, str]) -> float:
    """Seconds of one command of ten images, start and end included. Raises InputError."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "MKL_"))}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(PROJECT / "posterior_sample.py"), "data.end_id=10", *overrides, f"save_dir={folder}"]
        started = time.perf_counter()
        done = subprocess.run(command, env={**inherited, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if done.returncode:
            raise InputError(f"--default: this command failed: {' '.join(command)}: {done.stderr.decode()[-300:]}")
        return time.perf_counter() - started


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Processes that compute all the time."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def show(*columns: Figures) -> None:
    """One column for each dict of figures."""
    table = Table(title="benchmark", show_header=False)
    for name in columns[0]:
        table.add_row(name, *(in_words(column[name]) for column in columns))
    Console(markup=False).print(table)


def in_words(value: str | float | None) -> str:
    if value is None:
        return "not known"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def show_parts(rows: Timings) -> None:
    table = Table("part", "ms per call", "calls", "share of the sampling time", title="where the time goes")
    for name, (milliseconds, calls, share) in rows.items():
        table.add_row(name, f"{milliseconds:.2f}", f"{calls:g}", f"{100 * share:.1f} %")
    Console(markup=False).print(table)


if __name__ == "__main__":
    run(main)
