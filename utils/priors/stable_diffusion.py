"""Stable Diffusion as a latent prior with a fixed prompt and classifier-free guidance.

With the network's outputs u without and c with the prompt, the guided output is u + guidance_scale (c - u)
(Ho and Salimans, arXiv 2207.12598). The network works at an inner resolution; images are resized to the target one.
Source: DAPS, model/__init__.py, StableDiffusionModel.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler

from utils.errors import InputError, one_line
from utils.priors.compvis import UNet
from utils.priors.latent_diffusion import Autoencoder, LatentDiffusionPrior, load_parts, load_whole
from utils.priors.timesteps import ContinuousBetas
from utils.weights import is_hub_id, snapshot


def load_pipeline(
    path: str | Path,
    device: torch.device | str,
    prompt: str,
    guidance_scale: float,
    inner_resolution: int,
    resolution: int = 256,
    network_dtype: str = "float32",
    timestep_map: str = "trained",
    scaling_factor: float | None = None,
    prediction_type: str | None = None,
) -> "StableDiffusionPrior":
    """A prior from a StableDiffusionPipeline folder or hub id: vae/, unet/, scheduler/, text_encoder/, tokenizer/.

    prompt: text; guidance_scale: >= 0, 1 is the prompt alone; inner_resolution, resolution: pixels.
    scaling_factor, prediction_type: of a folder that does not say them (utils.priors.latent_diffusion.load_parts).
    network_dtype: what decoder and denoiser compute in. The prompt is embedded here, once, and the text encoder is
    dropped. Raises InputError.
    """
    path = snapshot(path, ignore=["*.bin"]) if is_hub_id(path) else Path(path)  # pickles of the same weights
    autoencoder, unet, scheduler = load_parts(path, scaling_factor=scaling_factor, prediction_type=prediction_type)
    context = embed_prompts(path, ["", prompt])  # (2, L, D)
    if context.shape[-1] != unet.config.cross_attention_dim:
        raise InputError(
            f"model.path={path}: its text encoder gives {context.shape[-1]} numbers per token, its UNet "
            f"takes {unet.config.cross_attention_dim}; the folder mixes two models"
        )
    prior = StableDiffusionPrior(
        autoencoder, unet, scheduler, timestep_map, context, guidance_scale, inner_resolution, resolution
    )
    if network_dtype != "float32":
        prior.compute_in(getattr(torch, network_dtype))
    return prior.to(device)


def embed_prompts(path: Path, prompts: Sequence[str]) -> torch.Tensor:
    """(len(prompts), L, D) hidden states of the text encoder, padded to the tokenizer's length."""
    from transformers import CLIPTextModel, CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(path / "tokenizer", local_files_only=True)
        encoder = load_whole(CLIPTextModel, path / "text_encoder", torch_dtype=torch.float32).eval()
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(
            f"model.path={path}: text encoder or tokenizer cannot be loaded "
            f"({type(error).__name__}: {one_line(error)}); copy the folder again from its source"
        ) from None
    tokens = tokenizer(
        prompts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        return encoder(tokens.input_ids)[0].float()


class StableDiffusionPrior(LatentDiffusionPrior):
    """Latents are (P, 4, inner / 8, inner / 8).

    context: (2, L, D), the empty prompt and the prompt
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        unet: UNet,
        scheduler: DDIMScheduler,
        timestep_map: str,
        context: torch.Tensor,
        guidance_scale: float,
        inner_resolution: int,
        resolution: int,
    ) -> None:
        super().__init__(autoencoder, unet, scheduler, timestep_map, context)
        self.guidance_scale, self.inner_resolution, self.resolution = guidance_scale, inner_resolution, resolution
        side = inner_resolution // 2 ** (len(autoencoder.config.block_out_channels) - 1)
        self.latent_shape = (unet.config.in_channels, side, side)

    official_timesteps = staticmethod(ContinuousBetas)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return super().encode(F.interpolate(x, size=self.inner_resolution, mode="bilinear"))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return F.interpolate(super().decode(z), size=self.resolution, mode="bilinear")  # from (P, 3, inner, inner)

    def predict(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        without, with_prompt = (c[None].expand(len(x), -1, -1) for c in self.context)
        if self.guidance_scale == 1:
            return self.conditional(x, t, with_prompt)
        # both halves in one pass
        unguided, guided = self.conditional(torch.cat([x, x]), torch.cat([t, t]), torch.cat([without, with_prompt])).chunk(2)
        return unguided + self.guidance_scale * (guided - unguided)
