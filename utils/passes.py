"""Decoder and denoiser passes of bounded size, and what happens when the device runs out of memory."""
import logging
import math

import torch

from utils import device as devices
from utils.config import InputError

log = logging.getLogger("latentdaps")


class Passes:
    """Runs work on at most `max_particles` particles at a time; None: on all at once.

    When the device is out of memory, passes are halved until they fit, and stay so. Results of other pass sizes are
    equal up to rounding. A pass is a view of consecutive particles: nothing is selected, dropped or reordered.
    """

    def __init__(self, max_particles=None):
        self.max_particles = max_particles

    def __call__(self, work, *tensors):
        """work(*tensors) with every tensor cut along its first axis P, 0-d tensors handed on whole.

        `work` returns one tensor or a tuple of tensors with P first; so does this. Raises InputError if one
        particle alone does not fit.
        """
        return self._retried(tensors[0], lambda size: self._run(work, tensors, size))

    def pull_back(self, decode, on_image, z, *tensors, together=False):
        """J^T g, the images decode(z) and `rest`, where J is the decoder's Jacobian at z and
        g, rest = on_image(images, *tensors) a direction on the images.

        together: on_image must see the images of all particles. Divided passes then decode twice: once for the
        images, once for J^T.
        """
        def whole(z, *tensors):
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                image = decode(z)
                direction, rest = on_image(image.detach(), *tensors)
                gradient, = torch.autograd.grad(image, z, direction)
            return gradient, image.detach(), rest

        def in_two_rounds(size):
            if size == len(z):
                return whole(z, *tensors)
            with torch.no_grad():
                image = self._run(decode, (z,), size)
            direction, rest = on_image(image, *tensors)
            gradient = self._run(pulled, (z, direction), size)
            return gradient, image.detach(), rest

        def pulled(z, direction):
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                return torch.autograd.grad(decode(z), z, direction)[0]

        return self._retried(z, in_two_rounds) if together else self(whole, z, *tensors)

    def _retried(self, like, attempt):
        """attempt(pass size), again with half the size as long as memory is short; `like` has one row per particle."""
        particles, halved = len(like), False
        while True:
            size = min(particles, self.max_particles or particles)
            try:
                result = attempt(size)
            except Exception as error:
                if not devices.is_out_of_memory(error):
                    raise
            else:
                if halved:
                    log.warning("out of memory: passes of %d particles from here on (max_particles_per_pass=%d avoids "
                                "the attempt)", size, size)
                return result
            # outside the except block: the error holds the activations of the pass that failed
            if size == 1:
                raise InputError(f"max_particles_per_pass={self.max_particles}: the device is out of memory with one "
                                 "particle in a pass; try gradient_checkpointing=true, a smaller model= or another gpu=")
            devices.release_memory(like.device)
            self.max_particles, halved = math.ceil(size / 2), True

    @staticmethod
    def _run(work, tensors, size):
        particles = len(tensors[0])
        if size == particles:
            return work(*tensors)
        # passes of nearly equal size need less memory than full ones with a small rest
        sizes = [len(part) for part in torch.arange(particles).tensor_split(math.ceil(particles / size))]
        cut = [[t] * len(sizes) if t.ndim == 0 else t.split(sizes) for t in tensors]
        results = [work(*parts) for parts in zip(*cut)]
        if isinstance(results[0], tuple):
            return tuple(torch.cat(parts) for parts in zip(*results))
        return torch.cat(results)


class SplitPrior:
    """A prior whose decoder and denoiser run in bounded passes.

    Under a gradient decode() runs whole, since its activations live until the backward pass; pull_back() is the
    bounded way to differentiate.
    """

    def __init__(self, prior, passes):
        self._prior, self._passes = prior, passes

    def __getattr__(self, name):
        return getattr(self._prior, name)

    def decode(self, z):
        if torch.is_grad_enabled() and z.requires_grad:
            return self._prior.decode(z)
        return self._passes(self._prior.decode, z)

    def pull_back(self, on_image, z, *tensors, together=False):
        """Passes.pull_back through this decoder."""
        return self._passes.pull_back(self._prior.decode, on_image, z, *tensors, together=together)

    def denoise(self, z, sigma):
        return self._passes(self._prior.denoise, z, sigma)
