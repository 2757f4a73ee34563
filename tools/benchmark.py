"""How close sampling comes to the speed of its decoder. Takes the overrides of posterior_sample.py.

    python tools/benchmark.py                       # configured prior and device, one batch
    python tools/benchmark.py batch_images=4 data.end_id=4
    python tools/benchmark.py --ranks 2 data.end_id=4   # images per second of 2 torchrun ranks against one

Prints the bare time of one decoder forward + backward pass at the batch of the run, the number of passes, the
sampling time, and the overhead: sampling time / (passes x bare time). Both are measured alternately in one process,
so that a busy machine slows both alike. With --ranks every process has one thread, and starting up does not count.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import hydra  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from utils.config import PROJECT, InputError, check  # noqa: E402
from utils.console import setup_logging  # noqa: E402
from utils.data import select_images  # noqa: E402

BARE_PASSES_PER_STEP = 4


@hydra.main(version_base="1.3", config_path="../configs", config_name="default")
def main(cfg):
    setup_logging()
    try:
        settings = check(cfg)
        images = select_images(settings)[:settings.batch_images]
        show(measure(cfg, settings, images))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def measure(cfg, settings, images):
    """Sample one batch; a dict of the figures."""
    from utils import device as devices
    from utils.build import build, load_batch
    from utils.metrics import Trace
    from utils.profiler import Profiler

    parts = build(cfg, settings)
    particles, truth = load_batch(parts, settings, images)
    trace = Trace({image.id: x.to(parts.device) for x, image in zip(truth, images)})
    bare = BareDecoder(parts, particles)
    bare.run(3)  # warm-up
    bare_s, bench_s = [], []

    def on_step(info):
        trace(info)
        started = devices.clock(parts.device)
        bare_s.extend(bare.run(BARE_PASSES_PER_STEP))
        bench_s.append(devices.clock(parts.device) - started)

    profiler = Profiler(parts.device)
    parts.sampler.sample(particles, profiler, on_step)
    phases = profiler.phases.values()
    passes = sum(p.decoder_forward_backward for p in phases)
    sampling_s = sum(p.time_s for p in phases) - sum(bench_s)
    bare_pass_s = statistics.fmean(bare_s)
    peaks = [p.peak_mb for p in phases if p.peak_mb is not None]
    return {"device": devices.describe(parts.device)["name"], "particles in the batch": len(particles),
            "bare decoder forward + backward (ms)": 1e3 * bare_pass_s, "decoder passes of the run": passes,
            "sampling time (s)": sampling_s, "passes per second": passes / sampling_s,
            "overhead": sampling_s / (passes * bare_pass_s), "peak memory (MB)": max(peaks) if peaks else None}


def compare_ranks(ranks, overrides):
    """Throughput of `ranks` torchrun ranks on one node against one rank; a dict of the figures. Raises InputError."""
    program = str(PROJECT / "posterior_sample.py")
    launchers = {"one": [sys.executable, program],
                 "many": [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", program]}
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, launcher in launchers.items():
            command = [*launcher, "data.end_id=4", *overrides, f"save_dir={folder}", f"name={name}"]
            if subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode:
                raise InputError(f"--ranks {ranks}: this command failed: {' '.join(command)}")
            seconds[name] = json.loads((Path(folder) / name / "metrics.json").read_text())["time"]["per_image_s"]
    one, slowest = sum(seconds["one"]), max(sum(seconds["many"][rank::ranks]) for rank in range(ranks))
    return {"images": len(seconds["one"]), "images per second, one rank": len(seconds["one"]) / one,
            f"images per second, {ranks} ranks": len(seconds["many"]) / slowest, "throughput ratio": one / slowest}


class BareDecoder:
    """Only the decoder: forward and backward in z, nothing else, at the batch of the run."""

    def __init__(self, parts, particles):
        self.parts, self.like = parts, particles.z

    def run(self, count):
        """Seconds of `count` passes."""
        import torch

        from utils import device as devices

        seconds = []
        z = torch.zeros_like(self.like).requires_grad_()
        with torch.enable_grad():
            for _ in range(count):
                started = devices.clock(self.parts.device)
                image = self.parts.prior.decode(z)
                torch.autograd.grad(image, z, torch.ones_like(image))
                seconds.append(devices.clock(self.parts.device) - started)
        return seconds


def show(figures):
    table = Table(title="benchmark", show_header=False)
    for name, value in figures.items():
        table.add_row(name, "not known" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value))
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--ranks", type=int)
    flags, sys.argv[1:] = parser.parse_known_args()
    if flags.ranks is None:
        main()
    else:
        try:
            show(compare_ranks(flags.ranks, sys.argv[1:]))
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
