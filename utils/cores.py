"""Images spread over the cores of a TPU: each core samples every n-th image and writes its records.

Cores exchange nothing but the run folder, like shards (`shard=k/n`) on several machines.
"""
import threading

from utils import console
from utils import device as devices

_ready = threading.Lock()


def on_all_cores(sample, cfg, settings, images, folder):
    """sample(cfg, settings, images, folder) once, or on each core with its part of `images`.

    Raises InputError, or utils.device.CoreFailure for an error on one core after the others have finished.
    """
    batches = -(-len(images) // settings.batch_images)
    if settings.use_tpu and devices.has_many_cores(settings.num_cores) and batches > 1:
        devices.run_on_cores(sample_share, (sample, cfg, settings, images, folder), settings.num_cores)
    else:
        sample(cfg, settings, images, folder)


def sample_share(core, cores, sample, cfg, settings, images, folder):
    """One core's part: images core, core + cores, ..."""
    with _ready:  # a worker process starts without handlers, and its cores share them
        if not console.log.handlers:
            console.setup_logging()
            console.log_to(folder.path / "run.log")
    share = images[core::cores]
    if share:
        sample(cfg, settings, share, folder)
