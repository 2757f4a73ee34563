"""Tiny random pipelines, built through diffusers itself: one of each layout that the loaders know."""

import json

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    LDMPipeline,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)


def scheduler(prediction_type="epsilon", cls=DDIMScheduler, start=0.0015, end=0.0195):
    return cls(
        num_train_timesteps=1000, beta_schedule="scaled_linear", beta_start=start, beta_end=end, prediction_type=prediction_type
    )


def kl_pipeline():
    """The layout of the shipped priors, whose runs the tests watch: 16-pixel images, latents (4, 8, 8), v-prediction."""
    torch.manual_seed(0)
    autoencoder = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        mid_block_add_attention=False,
        sample_size=16,
        scaling_factor=1.0,
    )
    unet = UNet2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    return LDMPipeline(vqvae=autoencoder, unet=unet, scheduler=scheduler("v_prediction"))


def vq_pipeline(prediction_type="epsilon"):
    """The layout of CompVis/ldm-celebahq-256, for what a codebook and epsilon change: 32-pixel images, latents (3, 8, 8)."""
    torch.manual_seed(0)
    vq = VQModel(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=3,
        sample_size=32,
        num_vq_embeddings=64,
        vq_embed_dim=3,
        norm_num_groups=4,
        scaling_factor=1.0,
    )
    unet = UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=(16, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    return LDMPipeline(vqvae=vq, unet=unet, scheduler=scheduler(prediction_type))


def stable_diffusion_pipeline(folder, prediction_type="epsilon"):
    """vae/, unet/, text_encoder/, tokenizer/, scheduler/ of a tiny Stable Diffusion; `folder` is for the vocabulary."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=0.18215,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=12,
        attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=12,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        eos_token_id=len(words) - 1,
        bos_token_id=len(words) - 2,
        pad_token_id=len(words) - 1,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)
    return StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        scheduler=scheduler(prediction_type, PNDMScheduler, 0.00085, 0.012),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
