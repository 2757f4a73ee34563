"""Posterior sampling with LatentDAPS: compose the config, build the parts, sample the images, write the results.

python posterior_sample.py                                   # phase retrieval on shipped images, shipped prior
python posterior_sample.py data=demo-scenes model=demo-scenes num_samples=2 data.end_id=3 name=scenes
torchrun --nproc-per-node=4 posterior_sample.py ...          # the same run on four devices
python posterior_sample.py -m hydra/launcher=submitit_slurm 'shard=0/8,1/8,2/8,3/8,4/8,5/8,6/8,7/8' ...
"""

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from utils import device as devices
from utils.command_line import lasting_streams
from utils.config.check import check
from utils.config.compose import call
from utils.config.settings import Settings
from utils.data import PUT_BACK, TestItem, few, names_in_set, select_images
from utils.errors import InputError
from utils.figures import draw_run
from utils.priors import library
from utils.records.files import record_path
from utils.records.folder import RunFolder
from utils.running import console
from utils.running.cores import on_all_cores
from utils.running.interrupts import signals_interrupt, uninterrupted
from utils.running.ranks import Rank
from utils.running.workers import sample_in_workers, workers_of

# configs/hydra/launcher/ is complete in itself and needs no schema
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against")

ALONE = Rank()


@hydra.main(version_base="1.3", config_path="configs", config_name="default")
def main(cfg: DictConfig) -> None:
    multirun = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        rank = Rank.of_this_process()
        console.setup_logging(quiet=not rank.first)
        if multirun and rank.count > 1:  # a job that fails on one rank alone would leave the others waiting
            raise InputError("torchrun runs no sweep (-m); start torchrun once per job, or sweep without it over shard=k/n")
        if not multirun:
            library.serve_one_run()
        with signals_interrupt():
            run(cfg, rank)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        if multirun:  # Hydra goes on with the other jobs and fails at the end
            raise
        sys.exit(2)


def run(cfg: DictConfig, rank: Rank = ALONE) -> None:
    """One run from config to figures. Everything up to `sample` needs no torch, so wrong input ends within a second."""
    settings = rank.settings(check(cfg))
    images = select_images(settings)
    with RunFolder.open(settings, rank) as folder:
        with folder.writing():
            console.log_to(folder.log_path(settings))
        for note in settings.composition.notes:
            console.log.warning("%s", note)

        metrics = None
        try:
            names = names_in_set(settings)
            pending = folder.pending(images, names)
            folder.remember(names, settings.data.end_id or len(names))
            if len(pending) < len(images):
                console.log.info("%d of %d images are done already", len(images) - len(pending), len(images))
            if pending:
                sample_all(settings, pending, folder, rank)
            rank.wait_for_all("sampling done")
        finally:  # after Ctrl-C or an error too: what is done counts
            if rank.first:
                with uninterrupted():
                    metrics = folder.aggregate()
        if rank.first:
            show(metrics, folder, settings)
        if left := [image.path.name for image in pending if not record_path(folder.path, image.id).exists()]:
            done = f"{len(images) - len(left)} of {len(images)} images are done"
            raise InputError(f"data.root: {few(left)} went away or changed while the run was at work ({done}); {PUT_BACK}")


def sample_all(settings: Settings, images: Sequence[TestItem], folder: RunFolder, rank: Rank) -> None:
    """In this process, in several, or on the cores of a TPU."""
    workers = workers_of(settings, len(images), rank)
    if workers > 1:
        sample_in_workers(settings, images, folder, workers)
        return
    from utils.running.sampling import sample  # torch comes late

    with devices.out_of_memory_in_one_line():
        on_all_cores(sample, settings, images, folder)


def show(metrics: dict[str, Any] | None, folder: RunFolder, settings: Settings) -> None:
    """The closing table, and figures."""
    if metrics is None:
        console.log.warning("shard=%s holds no image of this selection", settings.shard)
        return
    console.print_results(metrics, folder.path)
    if draw_run(folder.path):
        print(f"pictures: {folder.path / 'grid_results.png'} and {folder.path / 'trace.png'}")
    if sys.stdout is not None:
        sys.stdout.flush()  # while the log can still say that it could not be written


def lost(stream: str, error: OSError) -> None:
    """A closed pipe or terminal, or a full disk, ends no run."""
    console.log.warning("%s cannot be written (%s); the run goes on, and writes into its folder", stream, error.strerror)


if __name__ == "__main__":
    with lasting_streams(lost):
        try:
            call(main)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            if Rank.of_this_process().first:
                print("interrupted: finished images are kept, the same command continues", file=sys.stderr)
            sys.exit(130)
