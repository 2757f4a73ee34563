"""The networks that tools/train_prior.py trains, their noise schedule, and how they start and end."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DModel
from safetensors import SafetensorError

from tools.demo_prior.settings import HEAD_DIM, Training
from utils import device as devices
from utils.errors import InputError, one_line
from utils.files import write_folder
from utils.priors import compvis
from utils.priors.latent_diffusion import load_whole


def build_autoencoder(cfg: Training) -> AutoencoderKL:
    settings = cfg.autoencoder
    blocks = len(settings.channels)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=settings.latent_channels,
        sample_size=cfg.data.resolution,
        block_out_channels=tuple(settings.channels),
        layers_per_block=settings.layers_per_block,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        norm_num_groups=settings.norm_num_groups,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def build_unet(cfg: Training) -> UNet2DModel:
    settings, channels = cfg.unet, cfg.autoencoder.latent_channels
    blocks = len(settings.channels)
    return UNet2DModel(
        sample_size=cfg.data.resolution // 2 ** (len(cfg.autoencoder.channels) - 1),
        in_channels=channels,
        out_channels=channels,
        block_out_channels=tuple(settings.channels),
        layers_per_block=settings.layers_per_block,
        down_block_types=("DownBlock2D",) * (blocks - 1) + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (blocks - 1),
        attention_head_dim=HEAD_DIM,
        norm_num_groups=settings.norm_num_groups,
    )


def build_scheduler() -> DDIMScheduler:
    """The noise schedule of the public LDM checkpoints; the network predicts v."""
    return compvis.build_scheduler("v_prediction")


def save_network(model: torch.nn.Module, folder: Path) -> None:
    write_folder(folder, model.cpu().save_pretrained)


def load_network(kind: Any, folder: Path, remedy: str) -> Any:
    """The network of class `kind` in `folder`. Raises InputError, which says what to do, for one that is missing or damaged."""
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: there is no network; {remedy}")
    try:
        return load_whole(kind, folder, low_cpu_mem_usage=False)  # the low-memory way needs a package of its own
    except InputError as error:
        raise InputError(str(error).replace(f"model.path={folder.parent}", str(folder.parent))) from None
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        if devices.is_out_of_memory(error):
            raise
        raise InputError(f"{folder}: cannot be loaded ({type(error).__name__}: {one_line(error)}); {remedy}") from None


def start_residual_branches_at_zero(model: torch.nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if "conv2." in name or "to_out." in name:
            torch.nn.init.zeros_(parameter)


@torch.no_grad()
def standardise_latents(model: AutoencoderKL, images: torch.Tensor) -> None:
    """Fold a per-channel affine map into the 1x1 quant convolutions: latents get zero mean and unit variance,
    so that scaling_factor is 1. images: (N, 3, H, W), over which they are taken."""
    latents = torch.cat([model.encode(chunk).latent_dist.mean for chunk in images.split(250)])
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    encode, decode, c = model.quant_conv, model.post_quant_conv, model.config.latent_channels
    decode.bias += (decode.weight[:, :, 0, 0] * mean).sum(1)
    decode.weight *= std.view(1, -1, 1, 1)
    encode.weight[:c] /= std.view(-1, 1, 1, 1)
    encode.bias[:c] = (encode.bias[:c] - mean) / std
    encode.bias[c:] -= 2 * std.log()  # the second half of the channels is the log-variance


def autocast(cfg: Training) -> torch.autocast:
    """The context in which networks run while they train."""
    enabled = devices.has_fast_bf16(cfg.device) if cfg.autocast == "auto" else cfg.autocast
    return torch.autocast(cfg.device, dtype=torch.bfloat16, enabled=enabled)
