"""How many images are sampled together under batch_images=auto."""

import logging
from collections.abc import Sequence

import torch

from utils import device as devices
from utils.config.settings import Settings
from utils.data import TestItem
from utils.errors import counted
from utils.running.build import Parts, load_batch

log = logging.getLogger("latentdaps")

CPU_PIXELS = 16 * 64 * 64  # of all pictures of a pass: measured up to there (docs/research/measured/speed.md)
MARGIN = 0.8  # of the free memory: what a batch needs beyond its passes, and fragmentation


def images_per_batch(parts: Parts, settings: Settings, images: Sequence[TestItem]) -> int:
    """batch_images as a number. auto: on CUDA what fits into the free memory, on the CPU as many as a pass of CPU_PIXELS holds.

    On XLA 1: it spreads single images over its cores.
    """
    if settings.batch_images != "auto":
        return settings.batch_images
    free = devices.free_memory_bytes(parts.device)
    if free is None:
        count = 1
        if not devices.compiles_each_graph(parts.device):
            count = max(1, min(len(images), CPU_PIXELS // (parts.census.most * settings.data.resolution**2)))
        log.info("batch_images=auto: %s a batch", counted(count, "image"))
        return count
    one = devices.memory_of(parts.device, lambda: one_inner_iteration(parts, settings, images[0]))
    count = images_that_fit(free, one, len(images))
    log.info("batch_images=auto: %d images a batch (%.0f MB free, %.0f MB for one image)", count, free / 2**20, one / 2**20)
    return count


def images_that_fit(free: int, one: int, most: int) -> int:
    """Images whose passes, of `one` byte count each, fit into `free` bytes with a margin; between 1 and `most`."""
    return max(1, min(most, int(MARGIN * free / one)))


def one_inner_iteration(parts: Parts, settings: Settings, image: TestItem) -> None:
    """The pass that needs most memory, for the particles of one image at arbitrary latents, when it has most."""
    particles, _ = load_batch(parts, settings, [image])
    particles = particles.select(torch.arange(parts.census.most) % len(particles))
    parts.sampler.heaviest_pass(particles.at(parts.noise.draw(particles, "initial")))
