"""Small worlds for the tests: a tiny random prior, tiny images, an analytic prior; nothing outside the checkout."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # ranks get one thread each, and sums in other orders are other bits
os.environ.setdefault("PJRT_DEVICE", "CPU")
os.environ.setdefault("KINETO_LOG_LEVEL", "5")

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from utils.paths import PROJECT


@pytest.fixture(autouse=True)
def deterministic_arithmetic():
    """What a run sets up for itself, so that a test does not depend on the tests before it."""
    import torch

    torch.set_flush_denormal(True)


@pytest.fixture(scope="session")
def composed():
    """composed(*overrides) -> the config that posterior_sample.py would get."""

    def make(*overrides):
        with initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
            return compose("default", overrides=["gpu=-1", *overrides])

    return make


@pytest.fixture(scope="session")
def tiny_prior(tmp_path_factory):
    """Folder of a random latent diffusion pipeline: 16x16 images, latents 4x8x8."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, LDMPipeline, UNet2DModel

    torch.manual_seed(0)
    autoencoder = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        mid_block_add_attention=False,
        sample_size=16,
        scaling_factor=1.0,
    )
    unet = UNet2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        norm_num_groups=4,
    )
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.0015, beta_end=0.0195, prediction_type="v_prediction")
    folder = tmp_path_factory.mktemp("tiny_prior")
    LDMPipeline(vqvae=autoencoder, unet=unet, scheduler=scheduler).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def network_prior(tiny_prior):
    """The tiny random pipeline, loaded on the CPU."""
    import torch

    from utils.priors.latent_diffusion import load_pipeline

    return load_pipeline(tiny_prior, torch.device("cpu"))


@pytest.fixture(scope="session")
def tiny_images(tmp_path_factory):
    """Folder of 12 random smooth 16x16 images."""
    folder = tmp_path_factory.mktemp("tiny_images")
    rng = np.random.default_rng(0)
    for i in range(12):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((16, 16), Image.BICUBIC).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture
def tiny(tiny_prior, tiny_images, tmp_path):
    """Overrides of a run that takes a second: the tiny prior and images, 3 annealing steps of 2 inner iterations."""
    return [
        f"model.path={tiny_prior}",
        "model.resolution=16",
        f"data.root={tiny_images}",
        "data.resolution=16",
        "data.end_id=2",
        f"save_dir={tmp_path}/results",
        "name=run",
        "sampler.annealing_scheduler_config.num_steps=3",
        "task.demo_langevin.mcmc_sampler_config.num_steps=2",
    ]


@pytest.fixture
def run(composed, tiny, tmp_path):
    """run(*overrides) -> (folder, metrics) of a tiny run in this process."""
    import json

    import posterior_sample

    def start(*overrides):
        cfg = composed(*tiny, *overrides)
        posterior_sample.run(cfg)
        folder = tmp_path / "results" / cfg.name
        return folder, json.loads((folder / "metrics.json").read_text())

    return start
