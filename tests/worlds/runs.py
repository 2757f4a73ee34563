"""Small runs for the tests: a random 16-pixel latent diffusion model, a float64 analytic prior, images, and ways to run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from PIL import Image

from utils.paths import PROJECT

SIDE = 16
TINY = (
    "num_samples=2",
    "gpu=-1",
    f"model.resolution={SIDE}",
    f"data.resolution={SIDE}",
    "sampler.annealing_scheduler_config.num_steps=3",
    "task.demo_langevin.mcmc_sampler_config.num_steps=2",
)
ANALYTIC = "model._target_=tests.worlds.runs.load_analytic"


def save_tiny_pipeline(folder):
    """A random LDMPipeline of 16-pixel images: AutoencoderKL (8, 8) and UNet2DModel, latents (4, 8, 8), v-prediction."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, LDMPipeline, UNet2DModel

    torch.manual_seed(0)
    autoencoder = AutoencoderKL(
        latent_channels=4,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=SIDE,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )
    unet = UNet2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )
    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.0015,
        beta_end=0.0195,
        clip_sample=False,
        set_alpha_to_one=False,
        prediction_type="v_prediction",
    )
    LDMPipeline(vqvae=autoencoder, unet=unet, scheduler=scheduler).save_pretrained(folder)
    return folder


def save_images(folder, count):
    """`count` smooth 16-pixel PNG images."""
    folder.mkdir(parents=True)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    for i in range(count):
        waves = [np.sin(2 * np.pi * ((i % 3 + 1) * x + c * y) + i) for c in range(3)]
        Image.fromarray(np.uint8(np.stack(waves, -1) * 110 + 128)).save(folder / f"{i:05d}.png")
    return folder


def load_analytic(path, device, timestep_map, **_):
    """A float64 Gaussian mixture in 8 dimensions with a linear decoder to 16-pixel images; needs nothing from `path`."""
    import torch

    from utils.priors.analytic import GaussianMixturePrior

    class Prior(GaussianMixturePrior):
        def __init__(self):
            generator = torch.Generator().manual_seed(0)
            means, decoder = (torch.randn(n, 8, generator=generator, dtype=torch.float64) for n in (2, 3 * SIDE * SIDE))
            super().__init__(means, [0.5, 0.7], [0.4, 0.6], 0.2 * decoder, device=device)
            self.resolution = SIDE

        def decode(self, z):
            return super().decode(z).reshape(len(z), 3, SIDE, SIDE)

    return Prior()


def config(overrides):
    """The composed config of posterior_sample.py with some overrides."""
    with initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
        return compose("default", overrides=list(overrides))


def run(*overrides):
    """One run in this process."""
    import posterior_sample

    posterior_sample.run(config(overrides))


def without_pictures(patch):
    """Leave out the figures, which take longer than these runs themselves."""

    from utils.figures import run as run_figures

    patch.setattr(run_figures, "draw_all", lambda folder: [])


def environment(**more):
    """One thread a process, so that results are comparable and the machine is left alone."""
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def command(*overrides, check=True, program=(sys.executable,), **more):
    """The program as a user starts it; the finished process with its output as text."""
    done = subprocess.run(
        [*program, "posterior_sample.py", *overrides],
        cwd=PROJECT,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=3600,
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def metrics_of(folder):
    return json.loads((Path(folder) / "metrics.json").read_text())


def scores(metrics, memory=True):
    """metrics.json without times and what is computed from them, without the run's name and the commit of the program.

    memory=False also leaves out what depends on the pass size.
    """
    kept = {k: v for k, v in metrics.items() if k not in ("time", "cost", *(() if memory else ("vram",)))}
    kept["metadata"] = {
        k: v
        for k, v in metrics["metadata"].items()
        if k not in ("name", "git_commit") and (memory or k not in ("device", "gpu"))
    }
    if kept["optimization"] is not None:
        kept["optimization"] = {k: v for k, v in kept["optimization"].items() if k != "time_s"}
    kept["phases"] = {
        name: {k: v for k, v in phase.items() if k != "time_s"} for name, phase in metrics["time"]["phases"].items()
    }
    return kept


def assert_close(a, b, absolute, path="metrics"):
    """The same structure, texts and integers, and every float within `absolute`."""
    assert type(a) is type(b), f"{path}: {a} and {b}"
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_close(a[key], b[key], absolute, f"{path}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b)):
            assert_close(x, y, absolute, f"{path}[{i}]")
    elif isinstance(a, float):
        assert abs(a - b) <= absolute, f"{path}: {a} and {b}"
    else:
        assert a == b, f"{path}: {a} and {b}"


class Place:
    """A folder with a tiny prior and images; runs go into out/<name>."""

    def __init__(self, folder, images=6):
        self.folder = folder
        self.images = save_images(folder / "images", images)
        self.overrides = [*TINY, f"model.path={save_tiny_pipeline(folder / 'tiny')}", f"data.root={self.images}"]

    def all(self, name, *overrides):
        """The overrides of one run; its folder is `path(name)`."""
        return [*self.overrides, f"save_dir={self.folder / 'out'}", f"name={name}", *overrides]

    def path(self, name):
        return self.folder / "out" / name

    def run(self, name, *overrides):
        run(*self.all(name, *overrides))
        return self.path(name)
