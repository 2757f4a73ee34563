"""Posterior sampling with LatentDAPS: compose the config, build the parts, sample the images, write the results.

    python posterior_sample.py                                   # phase retrieval on shipped images, shipped prior
    python posterior_sample.py data=demo-scenes model=demo-scenes num_samples=2 data.end_id=3 name=scenes
"""
import subprocess
import sys
from importlib import metadata as packages

import hydra
from hydra.core.hydra_config import HydraConfig

from utils import console
from utils.cores import on_all_cores
from utils.config import PROJECT, InputError, check
from utils.data import select_images
from utils.run_folder import RunFolder

PACKAGES = ("torch", "diffusers", "numpy", "hydra-core", "piq")


@hydra.main(version_base="1.3", config_path="configs", config_name="default")
def main(cfg):
    console.setup_logging()
    try:
        run(cfg)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run(cfg):
    """One run from config to figures. Everything up to `sample` needs no torch, so wrong input ends within a second."""
    settings = check(cfg)
    images = select_images(settings)
    folder = RunFolder.open(cfg, settings)
    console.log_to(folder.path / "run.log")

    pending = [image for image in images if not folder.is_done(image)]
    if len(pending) < len(images):
        console.log.info("%d of %d images are done already", len(images) - len(pending), len(images))
    if pending:
        on_all_cores(sample, cfg, settings, pending, folder)

    metrics = folder.aggregate(run_metadata(settings))
    if metrics is None:
        console.log.warning("shard=%s holds no image of this selection", settings.shard)
        return
    from utils import figures

    figures.draw_all(folder.path)
    console.print_results(metrics, folder.path)
    print(f"pictures: {folder.path / 'grid_results.png'} and {folder.path / 'trace.png'}")


def sample(cfg, settings, images, folder):
    """Sample the images batch by batch and write each one's record as soon as it is done."""
    from utils import device as devices
    from utils.build import build, load_batch
    from utils.evaluation import Evaluator
    from utils.metrics import Trace
    from utils.profiler import Profiler

    parts = build(cfg, settings)
    evaluator = Evaluator(parts.operator, settings.success, settings.particles, parts.clock, parts.events)
    with console.progress_bar(len(images), parts.clock.num_steps) as advance:
        for start in range(0, len(images), settings.batch_images):
            batch = images[start:start + settings.batch_images]
            particles, truth = load_batch(parts, settings, batch)  # truth: (N, 3, H, W)
            truths = {image.id: x.to(parts.device) for x, image in zip(truth, batch)}
            trace = Trace(truths, on_progress=lambda best_db: advance(len(batch), best_db))
            profiler = Profiler(parts.device)
            result = parts.sampler.sample(particles, profiler, on_step=trace)
            for x, image in zip(truth, batch):
                record, arrays = evaluator.record(image, x, result, trace, profiler, len(batch))
                folder.write({**record, "device": devices.describe(parts.device)}, arrays)
                report(record)


def report(record):
    """One log line per image."""
    modes = record["modes"]
    values = modes["psnr_aligned"] if modes else record["scores"]["psnr"]
    best = max((v for v in values if v is not None), default=float("nan"))
    labels = " ".join(label or "-" for label in modes["label"]) if modes else ""
    console.log.info("image %d: %s best PSNR %.2f dB, %.1f s", record["image_id"], labels, best, record["time"]["image_s"])
    for index, diverged in zip(record["particles"], record["diverged"]):
        if diverged:
            console.log.warning("image %d: particle %d became non-finite; its scores are null", record["image_id"], index)


def run_metadata(settings):
    """What metrics.json says about the run as a whole."""
    commit = subprocess.run(["git", "-C", str(PROJECT), "rev-parse", "HEAD"], capture_output=True, text=True)
    return {"name": settings.name, "seed": settings.seed, "num_samples": settings.num_samples,
            "overrides": list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else [],
            "git_commit": commit.stdout.strip() if commit.returncode == 0 else None,
            "versions": {name: packages.version(name) for name in PACKAGES}}


if __name__ == "__main__":
    main()
