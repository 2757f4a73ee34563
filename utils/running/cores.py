"""Images spread over the cores of a TPU: each core samples every n-th image and writes its records.

Cores exchange nothing but the run folder, like shards (`shard=k/n`) on several machines.
"""

import threading
from collections.abc import Callable, Sequence

from utils import device as devices
from utils.config.settings import Settings
from utils.data import TestItem
from utils.records.folder import RunFolder
from utils.running import console
from utils.running.watching import Watch

Sample = Callable[..., None]

_ready = threading.Lock()


def on_all_cores(sample: Sample, settings: Settings, images: Sequence[TestItem], folder: RunFolder, watch: Watch) -> None:
    """sample(settings, images, folder, watch=watch) once; or on each core with its part of `images`, unwatched.

    Raises InputError, or utils.device.CoreFailure for an error on one core after the others have finished.
    """
    batches = -(-len(images) // (1 if settings.batch_images == "auto" else settings.batch_images))  # auto is 1 on XLA
    if settings.use_tpu and devices.has_many_cores(settings.num_cores) and batches > 1:
        devices.run_on_cores(sample_share, (sample, settings, images, folder), settings.num_cores)
    else:
        sample(settings, images, folder, watch=watch)


def sample_share(
    core: int, cores: int, sample: Sample, settings: Settings, images: Sequence[TestItem], folder: RunFolder
) -> None:
    """One core's part: images core, core + cores, ..."""
    with _ready:  # a worker process starts without handlers, and its cores share them
        if not console.log.handlers:
            console.setup_logging()
            console.log_to(folder.log_path(settings))
    share = images[core::cores]
    if share:
        with devices.out_of_memory_in_one_line():
            sample(settings, share, folder)
