"""Images spread over the cores of a TPU: each core samples every n-th image and writes its records.

Cores exchange nothing but the run folder, like shards (`shard=k/n`) on several machines.
"""

import threading

from utils import device as devices
from utils.running import console

_ready = threading.Lock()


def on_all_cores(sample, cfg, settings, images, folder, about):
    """sample(cfg, settings, images, folder, about) once, or on each core with its part of `images`.

    about: what every record says about the run; a core's process has no command line to tell it.
    Raises InputError, or utils.device.CoreFailure for an error on one core after the others have finished.
    """
    batches = -(-len(images) // (1 if settings.batch_images == "auto" else settings.batch_images))  # auto is 1 on XLA
    if settings.use_tpu and devices.has_many_cores(settings.num_cores) and batches > 1:
        devices.run_on_cores(sample_share, (sample, cfg, settings, images, folder, about), settings.num_cores)
    else:
        sample(cfg, settings, images, folder, about)


def sample_share(core, cores, sample, cfg, settings, images, folder, about):
    """One core's part: images core, core + cores, ..."""
    with _ready:  # a worker process starts without handlers, and its cores share them
        if not console.log.handlers:
            console.setup_logging()
            console.log_to(folder.log_path(settings))
    share = images[core::cores]
    if share:
        with devices.out_of_memory_in_one_line():
            sample(cfg, settings, share, folder, about)
