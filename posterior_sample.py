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

try:
    import latentdaps  # noqa: F401  # it tells where a module of somebody else stands in the way of ours
except ImportError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
from utils import device as devices
from utils.command_line import lasting_streams
from utils.config.check import check
from utils.config.compose import call
from utils.config.settings import Settings
from utils.data import PUT_BACK, TestItem, select_images, whole_set
from utils.errors import InputError, counted, few, visible
from utils.figures import draw_run
from utils.paths import PROJECT
from utils.priors import library
from utils.records.files import record_path
from utils.records.folder import RunFolder
from utils.running import console
from utils.running.cores import on_all_cores
from utils.running.interrupts import signals_interrupt, uninterrupted
from utils.running.ranks import Rank
from utils.running.sweep import Sweep
from utils.running.watching import Watch
from utils.running.workers import sample_in_workers, workers_of

# configs/hydra/launcher/ is complete in itself and needs no schema
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against")

ALONE = Rank()
SWEEP = Sweep()


@hydra.main(version_base="1.3", config_path=str(PROJECT / "configs"), config_name="default")
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
            if multirun:
                SWEEP.job(cfg, lambda cfg, jobs: run(cfg, rank, jobs))
            else:
                run(cfg, rank)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        if not multirun:
            sys.exit(2)
        SWEEP.refuse(error)  # the other jobs go on


def run(cfg: DictConfig, rank: Rank = ALONE, jobs: tuple[int, int] | None = None) -> dict[str, Any] | None:
    """One run from config to figures, and its metrics; jobs: (number, of how many) in a sweep.

    Everything up to `sample` needs no torch, so wrong input ends within a second.
    """
    settings = rank.settings(check(cfg))
    images = select_images(settings)
    watch = Watch(settings, rank, jobs)
    with RunFolder.open(settings, rank, images) as folder, watch:
        with folder.writing():
            console.log_to(folder.log_path(settings))
        for note in settings.composition.notes:
            console.log.warning("%s", note)

        metrics = None
        try:
            names = [item.name for item in whole_set(settings)]  # an image's id is its place here
            pending = folder.pending(images, names)
            folder.remember(names, settings.data.end_id or len(names))
            if len(pending) < len(images):
                console.log.info("done already: %d of %s", len(images) - len(pending), counted(len(images), "image"))
            if pending:
                watch.begin(pending)
                sample_all(settings, pending, folder, rank, watch)
            rank.wait_for_all("sampling done")
        except KeyboardInterrupt:
            if not any(record_path(folder.path, image.id).exists() for image in images):
                raise KeyboardInterrupt("no image was finished yet, the same command begins with the first one") from None
            raise
        finally:  # after Ctrl-C or an error too: what is done counts
            if rank.first:
                with uninterrupted():
                    watch.metrics = metrics = folder.aggregate()
        if rank.first:
            show(metrics, folder, settings)
        if left := [image.path.name for image in pending if not record_path(folder.path, image.id).exists()]:
            done = f"done: {len(images) - len(left)} of {counted(len(images), 'image')}"
            raise InputError(f"data.root: {few(left)} went away or changed while the run was at work ({done}); {PUT_BACK}")
        return metrics


def sample_all(settings: Settings, images: Sequence[TestItem], folder: RunFolder, rank: Rank, watch: Watch) -> None:
    """In this process, in several, or on the cores of a TPU."""
    workers = workers_of(settings, len(images), rank)
    if workers > 1:
        sample_in_workers(settings, images, folder, workers, watch)
        return
    from utils.running.sampling import sample  # torch comes late

    with devices.out_of_memory_in_one_line():
        on_all_cores(sample, settings, images, folder, watch)


def show(metrics: dict[str, Any] | None, folder: RunFolder, settings: Settings) -> None:
    """The closing table, and figures."""
    if metrics is None:
        console.log.warning("shard=%s holds no image of this selection", settings.shard)
        return
    console.print_results(metrics, folder.path)
    if draw_run(folder.path):
        print(visible(f"pictures: {folder.path / 'grid_results.png'} and {folder.path / 'trace.png'}"))
    if sys.stdout is not None:
        sys.stdout.flush()  # while the log can still say that it could not be written


def lost(stream: str, error: OSError) -> None:
    """A closed pipe or terminal, or a full disk, ends no run. Of --help and the like nobody wants to know."""
    if console.log.handlers:
        console.log.warning("%s cannot be written (%s); the run goes on, and writes into its folder", stream, error.strerror)


def start() -> None:
    """The program as the command line starts it, from any folder: results go where it is started."""
    with lasting_streams(lost):
        try:
            call(main)
        except InputError as error:
            if not SWEEP.refused:
                print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt as interrupt:
            if Rank.of_this_process().first:
                consequence = str(interrupt) or "finished images are kept, the same command continues"
                print(f"interrupted: {consequence}", file=sys.stderr)
            sys.exit(130)
        finally:
            SWEEP.close()
        if SWEEP.refused:
            sys.exit(2)


if __name__ == "__main__":
    start()
