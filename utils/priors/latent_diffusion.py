"""Latent diffusion models stored as diffusers folders: the shipped priors and converted public checkpoints."""
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DModel, VQModel
from torch.utils.checkpoint import checkpoint

from utils.priors.base import LatentPrior
from utils.schedule import TimestepMap

AUTOENCODERS = {"AutoencoderKL": AutoencoderKL, "VQModel": VQModel}


def load_pipeline(path, device, timestep_map="trained", dtype=torch.float32, **_):
    """A prior from a folder in LDMPipeline layout: vqvae/ (or vae/), unet/, scheduler/.

    path: the folder; timestep_map: "trained" or "official" (utils.schedule.TimestepMap);
    dtype: what is computed in, however the weights are stored.
    """
    path = Path(path)
    loading = {"torch_dtype": dtype, "low_cpu_mem_usage": False}
    folder = "vqvae" if (path / "vqvae").is_dir() else "vae"
    autoencoder_class = AUTOENCODERS[AutoencoderKL.load_config(path / folder)["_class_name"]]
    autoencoder = autoencoder_class.from_pretrained(path / folder, **loading)
    unet = UNet2DModel.from_pretrained(path / "unet", **loading)
    scheduler = DDIMScheduler.from_pretrained(path / "scheduler")
    return LatentDiffusionPrior(autoencoder, unet, scheduler, timestep_map).to(device)


class LatentDiffusionPrior(LatentPrior):
    """Wraps a diffusers autoencoder, UNet and scheduler as a denoiser in sigma.

    With x_t = z / sqrt(1 + sigma^2) and t = t(sigma), the network predicts epsilon or v:
    epsilon: D(z, sigma) = z - sigma epsilon(x_t, t)           (DAPS, cores/latent_diffusion.py)
    v:       D(z, sigma) = x_t / sqrt(1 + sigma^2) - sigma / sqrt(1 + sigma^2) v(x_t, t)
    """

    def __init__(self, autoencoder, unet, scheduler, timestep_map):
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.unet = unet.eval().requires_grad_(False)
        self.prediction_type = scheduler.config.prediction_type
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(f"prediction_type={self.prediction_type}: epsilon and v_prediction are supported")
        self.timestep_map = TimestepMap(timestep_map, scheduler.alphas_cumprod)
        self.scaling_factor = autoencoder.config.scaling_factor
        self.latent_shape = (unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
        self.resolution = unet.config.sample_size * 2 ** (len(autoencoder.config.block_out_channels) - 1)
        self.dtype = unet.dtype

    def to(self, device):
        self.autoencoder, self.unet = self.autoencoder.to(device), self.unet.to(device)
        self.device = torch.device(device)
        return self

    def encode(self, x):
        encoded = self.autoencoder.encode(x)
        latent = encoded.latents if isinstance(self.autoencoder, VQModel) else encoded.latent_dist.mean
        return latent * self.scaling_factor

    def decode(self, z):
        return self.autoencoder.decode(z / self.scaling_factor).sample

    def denoise(self, z, sigma):
        sigma = sigma.expand(len(z))
        column = sigma.view(-1, 1, 1, 1)
        scale = (1 + column.square()).rsqrt()
        output = self.unet(z * scale, self.timestep_map(sigma)).sample
        if self.prediction_type == "epsilon":
            return z - column * output
        return z * scale.square() - column * scale * output

    def checkpoint_decoder(self):
        # set on the decoder itself: diffusers offers its method for AutoencoderKL only, though VQModel shares the decoder
        self.autoencoder.decoder._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        self.autoencoder.decoder.gradient_checkpointing = True

    def resident_bytes(self):
        return sum(p.numel() * p.element_size() for m in (self.autoencoder, self.unet) for p in m.parameters())
