"""Train the shipped latent diffusion priors from nothing: one autoencoder, one UNet per image family.

    python tools/train_prior.py                                  # every stage, one after the other
    python tools/train_prior.py stages=[faces] unet.steps=20000  # one stage; a killed run resumes where it stopped

Stages: autoencoder, faces, scenes, export. Two UNet stages may run side by side in two processes.
The result are diffusers folders (LDMPipeline layout) that the sampler loads like any public checkpoint.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("USE_TORCH_XLA", "0")  # diffusers would start the XLA runtime at import
import hydra
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, LDMPipeline, UNet2DModel

from tools.demo_prior.make_demo_data import FAMILIES, SEEDS, SIDE, demo_images
from tools.demo_prior.muon import Muon
from tools.demo_prior.training import Trainer, psnr, save_sheet
from utils.command_line import run
from utils.config.compose import call
from utils.paths import PROJECT

LATENT_CHANNELS = 4
LATENT_SIDE = SIDE // 4
LOADING = {"low_cpu_mem_usage": False}  # the low-memory way needs a package that nothing else here needs


def training_images(cfg, family):
    """The training split of one family, (train_images, 3, SIDE, SIDE) uint8, drawn once and kept in `work`."""
    path = Path(cfg.work) / f"{family}_{cfg.train_images}.npy"
    if not path.exists():
        drawn = demo_images(family, SEEDS["train"], cfg.train_images).transpose(0, 3, 1, 2)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, drawn)
        partial.rename(path)
    return torch.from_numpy(np.load(path))


def to_model(images):
    """uint8 -> float in [-1, 1]."""
    return images.float() / 127.5 - 1


def rotated(images):
    return torch.flip(images, (-1, -2))


def build_autoencoder(settings):
    blocks = len(settings.channels)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        sample_size=SIDE,
        block_out_channels=tuple(settings.channels),
        layers_per_block=settings.layers_per_block,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        norm_num_groups=settings.norm_num_groups,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def build_unet(settings):
    blocks = len(settings.channels)
    return UNet2DModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=tuple(settings.channels),
        layers_per_block=settings.layers_per_block,
        down_block_types=("DownBlock2D",) * (blocks - 1) + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (blocks - 1),
        attention_head_dim=32,
        norm_num_groups=settings.norm_num_groups,
    )


def build_scheduler():
    """The noise schedule of the public LDM checkpoints; the network predicts v."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.0015,
        beta_end=0.0195,
        clip_sample=False,
        set_alpha_to_one=False,
        prediction_type="v_prediction",
    )


def start_residual_branches_at_zero(model):
    for name, parameter in model.named_parameters():
        if "conv2." in name or "to_out." in name:
            torch.nn.init.zeros_(parameter)


def gradient_distance(a, b):
    """Mean absolute difference of image gradients on three scales."""
    total = 0.0
    for scale in range(3):
        if scale:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        for dim in (-1, -2):
            total = total + (a.diff(dim=dim) - b.diff(dim=dim)).abs().mean()
    return total


def train_autoencoder(cfg):
    settings, device = cfg.autoencoder, cfg.device
    torch.manual_seed(cfg.seed)
    images = torch.cat([training_images(cfg, family) for family in FAMILIES])
    held_out = to_model(
        torch.from_numpy(np.concatenate([demo_images(f, SEEDS["val"], 32) for f in FAMILIES])).permute(0, 3, 1, 2)
    ).to(device)
    model = build_autoencoder(settings).to(device)
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

    def loss_of(generator):
        batch = to_model(images[torch.randint(len(images), (settings.batch,), generator=generator)])
        half = settings.batch // 2
        x = torch.cat([batch[:half], rotated(batch[half:])]).to(device)
        with torch.autocast(device, dtype=torch.bfloat16):
            posterior = model.encode(x).latent_dist
            mean, logvar = posterior.mean.float(), posterior.logvar.float()
            noise = torch.randn(mean.shape, generator=generator).to(device)
            y = model.decode(mean + noise * (logvar / 2).exp()).sample
        y = y.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return (
            (y - x).abs().mean()
            + 2 * (y - x).square().mean()
            + settings.gradient_weight * gradient_distance(y, x)
            + settings.kl_weight * kl
        )

    @torch.no_grad()
    def on_save(averaged):
        words = []
        for label, x in (("upright", held_out), ("rotated", rotated(held_out))):
            y = averaged.decode(averaged.encode(x).latent_dist.mean).sample
            values = psnr(y, x)
            words.append(f"{label} faces {values[:32].mean():.2f} scenes {values[32:].mean():.2f} min {values.min():.2f} dB")
        save_sheet(
            torch.cat([held_out[:10], y.flip(-1, -2)[:10], held_out[32:42], y.flip(-1, -2)[32:42]]),
            Path(cfg.work) / "autoencoder.png",
        )
        return ", ".join(words)

    model = Trainer("autoencoder", cfg, model, optimisers, settings, on_save).run(loss_of)
    standardise_latents(model, to_model(torch.cat([images[:1500], images[-1500:]])).to(device))
    model.cpu().save_pretrained(Path(cfg.work) / "autoencoder")


@torch.no_grad()
def standardise_latents(model, images):
    """Fold a per-channel affine map into the 1x1 quant convolutions: latents get zero mean and unit variance,
    so that scaling_factor is 1."""
    images = torch.cat([images[::2], rotated(images[1::2])])
    latents = torch.cat([model.encode(chunk).latent_dist.mean for chunk in images.split(250)])
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    encode, decode, c = model.quant_conv, model.post_quant_conv, LATENT_CHANNELS
    decode.bias += (decode.weight[:, :, 0, 0] * mean).sum(1)
    decode.weight *= std.view(1, -1, 1, 1)
    encode.weight[:c] /= std.view(-1, 1, 1, 1)
    encode.bias[:c] = (encode.bias[:c] - mean) / std
    encode.bias[c:] -= 2 * std.log()  # the second half of the channels is the log-variance


@torch.no_grad()
def latent_moments(autoencoder, images, rotated_fraction, device):
    """Mean and standard deviation of every image's latent, two (N, C, h, w) tensors; the last images are rotated."""
    turned = round(rotated_fraction * len(images))
    means, stds = [], []
    for start in range(0, len(images), 250):
        chunk = images[start : start + 250]
        keep = torch.arange(start, start + len(chunk)) < len(images) - turned
        x = to_model(torch.where(keep[:, None, None, None], chunk, rotated(chunk))).to(device)
        with torch.autocast(device, dtype=torch.bfloat16):
            posterior = autoencoder.encode(x).latent_dist
        means.append(posterior.mean.float())
        stds.append(posterior.std.float())
    return torch.cat(means), torch.cat(stds)


def train_unet(cfg, family):
    settings, device = cfg.unet, cfg.device
    torch.manual_seed(cfg.seed)
    autoencoder = (
        AutoencoderKL.from_pretrained(Path(cfg.work) / "autoencoder", **LOADING).eval().requires_grad_(False).to(device)
    )
    means, stds = latent_moments(autoencoder, training_images(cfg, family), settings.rotated_fraction[family], device)
    scheduler = build_scheduler()
    signal = scheduler.alphas_cumprod.sqrt().to(device)
    noise_level = (1 - scheduler.alphas_cumprod).sqrt().to(device)
    if settings.start_from:
        model = UNet2DModel.from_pretrained(Path(settings.start_from), **LOADING).float().train().to(device)
    else:
        model = build_unet(settings).to(device)
        start_residual_branches_at_zero(model)
        torch.nn.init.zeros_(model.conv_out.weight)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.lr, betas=(0.9, 0.99), weight_decay=1e-3)

    def loss_of(generator):
        index = torch.randint(len(means), (settings.batch,), generator=generator)
        shape = (settings.batch, *means.shape[1:])
        z0 = means[index] + stds[index] * torch.randn(shape, generator=generator).to(device)
        noise = torch.randn(shape, generator=generator).to(device)
        # one timestep from each of `batch` equal intervals: less variance than independent draws
        u = (torch.arange(settings.batch) + torch.rand(1, generator=generator)) / settings.batch
        t = (u * 1000).long().clamp(max=999).to(device)
        a, s = signal[t].view(-1, 1, 1, 1), noise_level[t].view(-1, 1, 1, 1)
        with torch.autocast(device, dtype=torch.bfloat16):
            v = model(a * z0 + s * noise, t).sample
        return (v.float() - (a * noise - s * z0)).square().mean()

    @torch.no_grad()
    def on_save(averaged):
        generator = torch.Generator().manual_seed(1)
        z = torch.randn(20, LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE, generator=generator).to(device)
        scheduler.set_timesteps(30)
        for t in scheduler.timesteps:
            z = scheduler.step(averaged(z, t).sample, t, z).prev_sample
        save_sheet(autoencoder.decode(z).sample, Path(cfg.work) / f"{family}.png")
        return f"latent std of 20 samples {z.std():.3f}"

    model = Trainer(family, cfg, model, [optimiser], settings, on_save).run(loss_of)
    model.cpu().save_pretrained(Path(cfg.work) / f"unet_{family}")


def export(cfg):
    """Write the finished priors as pipelines: UNet stored in half precision, autoencoder in single."""
    for family in FAMILIES:
        pipeline = LDMPipeline(
            vqvae=AutoencoderKL.from_pretrained(Path(cfg.work) / "autoencoder", **LOADING),
            unet=UNet2DModel.from_pretrained(Path(cfg.work) / f"unet_{family}", **LOADING).half(),
            scheduler=build_scheduler(),
        )
        folder = Path(cfg.out) / f"demo-{family}"
        pipeline.save_pretrained(folder)
        size_mb = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6
        print(f"{folder}: {size_mb:.2f} MB")


@hydra.main(version_base="1.3", config_path=str(PROJECT / "configs"), config_name="train_prior")
def main(cfg):
    torch.set_num_threads(cfg.threads)
    torch.set_flush_denormal(True)
    Path(cfg.work).mkdir(parents=True, exist_ok=True)
    for stage in cfg.stages:
        if stage == "autoencoder":
            train_autoencoder(cfg)
        elif stage in FAMILIES:
            train_unet(cfg, stage)
        elif stage == "export":
            export(cfg)
        else:
            sys.exit(f"stages={stage}: choose from autoencoder, {', '.join(FAMILIES)}, export")


if __name__ == "__main__":
    run(lambda: call(main))
