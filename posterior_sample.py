"""Posterior sampling with LatentDAPS: compose the config, build the parts, sample the images, write the results.

python posterior_sample.py                                   # phase retrieval on shipped images, shipped prior
python posterior_sample.py data=demo-scenes model=demo-scenes num_samples=2 data.end_id=3 name=scenes
torchrun --nproc-per-node=4 posterior_sample.py ...          # the same run on four devices
python posterior_sample.py -m hydra/launcher=submitit_slurm 'shard=0/8,1/8,2/8,3/8,4/8,5/8,6/8,7/8' ...
"""

import sys
import warnings

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from utils import device as devices
from utils.config.check import check
from utils.config.compose import call
from utils.data import names_in_set, select_images
from utils.errors import InputError
from utils.records.folder import RunFolder
from utils.running import console
from utils.running.cores import on_all_cores
from utils.running.interrupts import sigterm_interrupts, uninterrupted
from utils.running.ranks import Rank

# configs/hydra/launcher/ is complete in itself and needs no schema
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against")

ALONE = Rank()


@hydra.main(version_base="1.3", config_path="configs", config_name="default")
def main(cfg):
    rank = Rank.of_this_process()
    console.setup_logging(quiet=not rank.first)
    multirun = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        if multirun and rank.count > 1:  # a job that fails on one rank alone would leave the others waiting
            raise InputError("torchrun runs no sweep (-m); start torchrun once per job, or sweep without it over shard=k/n")
        with sigterm_interrupts():
            run(cfg, rank)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        if multirun:  # Hydra goes on with the other jobs and fails at the end
            raise
        sys.exit(2)


def run(cfg, rank=ALONE):
    """One run from config to figures. Everything up to `sample` needs no torch, so wrong input ends within a second."""
    settings = rank.settings(check(cfg))
    images = select_images(settings)
    folder = RunFolder.open(settings, rank)
    with folder.writing():
        console.log_to(folder.log_path(settings))
    for note in settings.composition.notes:
        console.log.warning("%s", note)

    metrics = None
    try:
        pending = folder.pending(images, names_in_set(settings))
        if len(pending) < len(images):
            console.log.info("%d of %d images are done already", len(images) - len(pending), len(images))
        if pending:
            with devices.out_of_memory_in_one_line():
                on_all_cores(sample, settings, pending, folder)
        rank.wait_for_all("sampling done")
    finally:  # after Ctrl-C or an error too: what is done counts
        if rank.first:
            with uninterrupted():
                metrics = folder.aggregate()
    if rank.first:
        show(metrics, folder, settings)


def sample(settings, images, folder):
    """Sample the images batch by batch and write each one's record as soon as it is done."""
    from utils.evaluation.certificate import Certificate
    from utils.evaluation.evaluator import Evaluator
    from utils.evaluation.trace import Trace
    from utils.running.batching import images_per_batch
    from utils.running.build import build, check_measurements, load_batch
    from utils.running.chain_check import check_chain
    from utils.sampling.prior_score import PriorScore
    from utils.sampling.rounds import sample_in_rounds

    parts = build(settings)
    if settings.data.kind == "measurement":
        check_measurements(parts, images)
    rule, mechanisms, s = settings.selection.rule, parts.sampler.mechanisms, settings.sequential
    evaluator = Evaluator(parts.operator, settings.success, settings.particles, parts.clock, mechanisms, rule, s.thresholds)
    certificate = None
    if settings.population == "sequential":
        certificate = Certificate(parts.operator, PriorScore(parts.sampler.prior, parts.noise, s.sigmas), s.thresholds)
    check_chain(parts, settings, images[0])
    per_batch = images_per_batch(parts, settings, images)
    device = devices.describe(parts.device)
    if settings.batch_images == "auto":
        device["batch_images"] = per_batch
    with console.progress_bar(len(images), parts.clock.num_steps) as bar:
        for start in range(0, len(images), per_batch):
            batch = images[start : start + per_batch]
            particles, truth = load_batch(parts, settings, batch)  # truth: (N, 3, H, W), None for measurements
            truths = [None] * len(batch) if truth is None else truth
            on_device = None if truth is None else {image.id: x.to(parts.device) for x, image in zip(truth, batch)}
            trace = Trace(on_device, bar.advance, parts.operator)
            found = sample_in_rounds(
                parts.sampler, particles, settings.rounds, certificate, trace, bar.begin, parts.sampler.events.stop_index
            )
            finished = [
                evaluator.record(image, x, found.result, trace, found.profilers[image.id], 1, found.history[image.id])
                for x, image in zip(truths, batch)
            ]
            for record, arrays in finished:  # written together: a kill seldom falls inside a batch
                folder.add(record, arrays, device)
                report(record)


def report(record):
    """One log line per image."""
    modes = record["modes"]
    known = [v for v in (modes["psnr_aligned"] if modes else record["scores"]["psnr"]) if v is not None]
    losses = [v for v in record["loss"] if v is not None]
    best = f"best PSNR {max(known):.2f} dB" if known else f"lowest loss {min(losses):.4g}" if losses else "no finite particle"
    labels = " ".join(label or "-" for label in modes["label"]) if modes else ""
    console.log.info("image %d: %s %s, %.1f s", record["image_id"], labels, best, record["time"]["image_s"])
    for index, diverged in zip(record["particles"], record["diverged"]):
        if diverged:
            console.log.warning("image %d: particle %d became non-finite; its scores are null", record["image_id"], index)


def show(metrics, folder, settings):
    """Figures and the closing table."""
    if metrics is None:
        console.log.warning("shard=%s holds no image of this selection", settings.shard)
        return
    from utils.figures import run as run_figures

    with folder.writing():
        run_figures.draw_all(folder.path)
    console.print_results(metrics, folder.path)
    print(f"pictures: {folder.path / 'grid_results.png'} and {folder.path / 'trace.png'}")


if __name__ == "__main__":
    try:
        call(main)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        if Rank.of_this_process().first:
            print("interrupted: finished images are kept, the same command continues", file=sys.stderr)
        sys.exit(130)
