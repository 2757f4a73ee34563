"""Trains the autoencoder of a prior: distance of pixels and of edges, and a divergence that keeps the latents bounded."""

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from tools.demo_prior.muon import Muon
from tools.demo_prior.networks import (
    autocast,
    build_autoencoder,
    save_network,
    standardise_latents,
    start_residual_branches_at_zero,
)
from tools.demo_prior.settings import Training
from tools.demo_prior.training import Trainer, after_first, save_sheet
from tools.demo_prior.views import DrawnFamilies, FolderImages, to_model
from utils.evaluation.scores import rotated
from utils.metrics.psnr import psnr
from utils.running.ranks import Rank


def gradient_distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of the image gradients of a and b (N, C, H, W) on three scales, 0-d."""
    total = 0.0
    for scale in range(3):
        if scale:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        for dim in (-1, -2):
            total = total + (a.diff(dim=dim) - b.diff(dim=dim)).abs().mean()
    return total


def train_autoencoder(cfg: Training, rank: Rank) -> None:
    settings, device = cfg.autoencoder, cfg.device
    torch.manual_seed(cfg.seed)
    data = FolderImages(cfg) if cfg.data.root else DrawnFamilies(cfg)
    images, held_out = data.images, to_model(data.held_out).to(device)
    model = build_autoencoder(cfg).to(device)
    start_residual_branches_at_zero(model)
    # Muon on the inner convolutions; Adam on the layers that touch pixels or latents, on norms and biases
    outer = ("conv_in", "conv_out", "quant_conv")
    inner = [p for n, p in model.named_parameters() if p.ndim >= 2 and not any(k in n for k in outer)]
    inner_ids = {id(p) for p in inner}
    optimisers = [
        Muon(inner, settings.muon_lr),
        torch.optim.AdamW(
            [p for p in model.parameters() if id(p) not in inner_ids], lr=settings.adam_lr, betas=(0.9, 0.99), weight_decay=1e-4
        ),
    ]

    def loss_of(generator: torch.Generator) -> torch.Tensor:
        batch = to_model(images[torch.randint(len(images), (settings.batch,), generator=generator)])
        x = data.augmented(batch).to(device)
        with autocast(cfg):
            posterior = model.encode(x).latent_dist
            mean, logvar = posterior.mean.float(), posterior.logvar.float()
            noise = torch.randn(mean.shape, generator=generator).to(device)
            y = model.decode(mean + noise * (logvar / 2).exp()).sample
        y = y.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return (
            settings.l1_weight * (y - x).abs().mean()
            + settings.l2_weight * (y - x).square().mean()
            + settings.gradient_weight * gradient_distance(y, x)
            + settings.kl_weight * kl
        )

    @torch.no_grad()
    def on_save(averaged: AutoencoderKL) -> str:
        words = []
        for label, x in (("upright", held_out), ("rotated", rotated(held_out))):
            y = averaged.decode(averaged.encode(x).latent_dist.mean).sample
            values = psnr(y, x)
            means = [f"{name} {values[group].mean():.2f}" for name, group in data.groups.items()]
            words.append(f"{label} {' '.join(means)} min {values.min():.2f} dB")
        pairs = [part[group][:10] for group in data.groups.values() for part in (held_out, rotated(y))]
        save_sheet(torch.cat(pairs), Path(cfg.work) / "autoencoder.png", columns=min(10, len(held_out)))
        return ", ".join(words)

    model = Trainer("autoencoder", cfg, model, optimisers, settings, on_save, rank).run(loss_of)
    standardise_latents(model, data.typical().to(device))
    if rank.first:
        save_network(model, Path(cfg.work) / "autoencoder")
    after_first(rank, "autoencoder saved")
