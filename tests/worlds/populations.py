"""Sequential populations of tiny runs: one particle at a time, certificates that never and always pass, and what to compare."""

import torch

from tests.worlds import runs
from utils.priors.latent_diffusion import LatentDiffusionPrior
from utils.records.files import read_record

IMAGES = 4
ONE_BY_ONE = ("population=sequential", "sequential.start=1", "sequential.add=1")
NEVER, ALWAYS = "sequential.thresholds={deviation:-1e9}", "sequential.thresholds={deviation:1e9}"
SINGLE = "max_particles_per_pass=1"  # passes of one size, so that bits can be compared


def place(folder, prior):
    """A folder for runs of IMAGES images with up to three particles each."""
    return runs.Place(folder, prior, images=IMAGES, particles=3, overrides=(f"data.end_id={IMAGES}", SINGLE))


def latents(folder, image=0):
    return read_record(folder / "records" / f"{image:05d}.npz")[1]["z"]


def records(folder):
    return [read_record(folder / "records" / f"{image:05d}.npz")[0] for image in range(IMAGES)]


def counted(patch):
    """Decoder passes with a gradient and denoiser calls, of single particles, from now on."""
    calls = {"decode": 0, "denoise": 0, "encode": 0}

    def counting(name):
        method = getattr(LatentDiffusionPrior, name)

        def call(self, z, *arguments):
            if name != "decode" or (torch.is_grad_enabled() and z.requires_grad):
                calls[name] += len(z)
            return method(self, z, *arguments)

        patch.setattr(LatentDiffusionPrior, name, call)

    for name in calls:
        counting(name)
    return calls
