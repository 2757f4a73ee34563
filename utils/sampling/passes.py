"""Decoder and denoiser passes of bounded size, and what happens when the device runs out of memory."""

import logging
import math
from collections.abc import Callable
from typing import Any

import torch

from utils import device as devices
from utils.errors import InputError

log = logging.getLogger("latentdaps")


class Passes:
    """Runs work on at most `max_particles` particles at a time; None: on all at once.

    When the device is out of memory, passes are halved until they fit, and stay so. Results of other pass sizes are
    equal up to rounding. A pass is a view of consecutive particles: nothing is selected, dropped or reordered.
    """

    def __init__(self, max_particles: int | None = None) -> None:
        self.max_particles = max_particles

    def __call__(self, work: Callable[..., Any], *tensors: torch.Tensor, together: int = 1) -> Any:
        """work(*tensors) with every tensor cut along its first axis P, 0-d tensors handed on whole.

        together: consecutive particles that must stay in one pass, because they interact.
        `work` returns one tensor or a tuple of tensors with P first; so does this. Raises InputError if the
        smallest pass does not fit.
        """
        particles, halved = len(tensors[0]), False
        while True:
            size = max(together, min(particles, self.max_particles or particles) // together * together)
            try:
                result = self._run(work, tensors, particles, size, together)
            except Exception as error:
                if not devices.is_out_of_memory(error):
                    raise
            else:
                if halved:
                    log.warning(
                        "out of memory: passes of %d particles from here on (max_particles_per_pass=%d avoids the attempt)",
                        size,
                        size,
                    )
                return result
            # outside the except block: the error holds the activations of the pass that failed
            if size == together:
                count = "one particle" if size == 1 else f"{size} particles"
                raise InputError(
                    f"max_particles_per_pass={self.max_particles}: the device is out of memory with {count} "
                    "in a pass; try gradient_checkpointing=true (not on XLA), a smaller model= or another gpu="
                )
            devices.release_memory(tensors[0].device)
            self.max_particles, halved = math.ceil(size / 2), True

    @staticmethod
    def _run(work: Callable[..., Any], tensors: tuple[torch.Tensor, ...], particles: int, size: int, together: int) -> Any:
        if size == particles:
            return work(*tensors)
        # passes of nearly equal size need less memory than full ones with a small rest
        groups = torch.arange(particles // together).tensor_split(math.ceil(particles / size))
        sizes = [len(group) * together for group in groups]
        cut = [[t] * len(sizes) if t.ndim == 0 else t.split(sizes) for t in tensors]
        results = [work(*parts) for parts in zip(*cut)]
        if isinstance(results[0], tuple):
            return tuple(torch.cat(parts) for parts in zip(*results))
        return torch.cat(results)
