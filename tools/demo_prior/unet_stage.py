"""Trains the denoiser of a prior on the latents of its images; the network predicts v."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DModel

from tools.demo_prior.networks import (
    autocast,
    build_scheduler,
    build_unet,
    load_network,
    save_network,
    start_residual_branches_at_zero,
)
from tools.demo_prior.settings import Training
from tools.demo_prior.training import Trainer, after_first, save_sheet
from tools.demo_prior.training_images import cached_array, drawn_images
from tools.demo_prior.views import FolderImages, to_model
from utils.errors import InputError
from utils.evaluation.scores import rotated
from utils.paths import find
from utils.running.ranks import Rank


@torch.no_grad()
def latent_moments(autoencoder: AutoencoderKL, images: torch.Tensor, cfg: Training) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of every image's latent, two (N, C, h, w) tensors; images (N, 3, H, W) uint8."""
    means, stds = [], []
    for chunk in images.split(250):
        with autocast(cfg):
            posterior = autoencoder.encode(to_model(chunk).to(cfg.device)).latent_dist
        means.append(posterior.mean.float())
        stds.append(posterior.std.float())
    return torch.cat(means), torch.cat(stds)


def latents_of_family(cfg: Training, autoencoder: AutoencoderKL, family: str) -> tuple[torch.Tensor, torch.Tensor]:
    """As latent_moments, of the training images of one family, of which the last are rotated: two (N, C, h, w)."""
    images = torch.from_numpy(drawn_images(family, cfg.train_images, cfg.work))
    upright = len(images) - round(cfg.unet.rotated_fraction[family] * len(images))
    return latent_moments(autoencoder, torch.cat([images[:upright], rotated(images[upright:])]), cfg)


def latents_of_folder(cfg: Training, autoencoder: AutoencoderKL) -> torch.Tensor:
    """As latent_moments, of every view of every image, (2, N, C, h, w) in half precision, for there may be many. Kept."""

    def encoded() -> np.ndarray:
        moments = [latent_moments(autoencoder, view, cfg) for view in images.views()]
        return np.stack([torch.cat([part.half() for part in parts]).cpu().numpy() for parts in zip(*moments)])

    images, side = FolderImages(cfg), cfg.data.resolution // 2 ** (len(cfg.autoencoder.channels) - 1)
    views = (1 + cfg.data.flip) * (1 + cfg.data.rotate)
    shape = (2, views * len(images.images), cfg.autoencoder.latent_channels, side, side)
    weights = b"".join(parameter.cpu().numpy().tobytes() for parameter in autoencoder.parameters())
    name = f"latents_{hashlib.sha256(weights).hexdigest()[:12]}_{'flip' * cfg.data.flip}{'rotate' * cfg.data.rotate}.npy"
    return torch.from_numpy(cached_array(Path(cfg.work) / name, encoded, shape, np.float16)).to(cfg.device)  # (2, N, C, h, w)


def load_autoencoder(cfg: Training) -> AutoencoderKL:
    """The one that this training has made. Raises InputError."""
    return load_network(AutoencoderKL, Path(cfg.work) / "autoencoder", "make it with stages=[autoencoder]")


def started_from(cfg: Training) -> UNet2DModel:
    """The UNet of unet.start_from. Raises InputError where it is none for this autoencoder."""
    assert cfg.unet.start_from is not None
    folder = find(cfg.unet.start_from)
    model = load_network(UNet2DModel, folder, "unet.start_from names the folder unet/ of a trained prior")
    if (channels := model.config.in_channels) != cfg.autoencoder.latent_channels:
        raise InputError(
            f"unet.start_from={cfg.unet.start_from}: takes latents of {channels} channels, and "
            f"autoencoder.latent_channels={cfg.autoencoder.latent_channels}; name another, or null"
        )
    return model


def train_unet(cfg: Training, family: str, rank: Rank) -> None:
    settings, device = cfg.unet, cfg.device
    torch.manual_seed(cfg.seed)
    autoencoder = load_autoencoder(cfg).eval().requires_grad_(False).to(device)
    if not rank.first:  # rank 0 writes them, the others read them
        after_first(rank, "latents kept")
    means, stds = latents_of_folder(cfg, autoencoder) if cfg.data.root else latents_of_family(cfg, autoencoder, family)
    if rank.first:
        rank.announce("latents kept")
    scheduler = build_scheduler()
    signal = scheduler.alphas_cumprod.sqrt().to(device)
    noise_level = (1 - scheduler.alphas_cumprod).sqrt().to(device)
    if settings.start_from:
        model = started_from(cfg).float().train().to(device)
    else:
        model = build_unet(cfg).to(device)
        start_residual_branches_at_zero(model)
        torch.nn.init.zeros_(model.conv_out.weight)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.lr, betas=(0.9, 0.99), weight_decay=1e-3)

    def loss_of(generator: torch.Generator) -> torch.Tensor:
        index = torch.randint(len(means), (settings.batch,), generator=generator)
        shape = (settings.batch, *means.shape[1:])
        z0 = means[index] + stds[index] * torch.randn(shape, generator=generator).to(device)
        noise = torch.randn(shape, generator=generator).to(device)
        # one timestep from each of `batch` equal intervals: less variance than independent draws
        u = (torch.arange(settings.batch) + torch.rand(1, generator=generator)) / settings.batch
        t = (u * 1000).long().clamp(max=999).to(device)
        a, s = signal[t].view(-1, 1, 1, 1), noise_level[t].view(-1, 1, 1, 1)
        with autocast(cfg):
            v = model(a * z0 + s * noise, t).sample
        return (v.float() - (a * noise - s * z0)).square().mean()

    @torch.no_grad()
    def on_save(averaged: UNet2DModel) -> str:
        generator = torch.Generator().manual_seed(1)
        z = torch.randn(20, *means.shape[1:], generator=generator).to(device)
        scheduler.set_timesteps(30)
        for t in scheduler.timesteps:
            z = scheduler.step(averaged(z, t).sample, t, z).prev_sample
        save_sheet(autoencoder.decode(z).sample, Path(cfg.work) / f"{family}.png")
        return f"latent std of 20 samples {z.std():.3f}"

    model = Trainer(family, cfg, model, [optimiser], settings, on_save, rank).run(loss_of)
    if rank.first:
        save_network(model, Path(cfg.work) / f"unet_{family}")
