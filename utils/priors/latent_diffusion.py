"""Latent diffusion models stored as diffusers folders: the shipped priors and converted public checkpoints."""

import inspect
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import AutoencoderKL, DDIMScheduler, ModelMixin, UNet2DConditionModel, UNet2DModel, VQModel
from diffusers.configuration_utils import FrozenDict
from safetensors.torch import load_file
from torch.utils.checkpoint import checkpoint

from utils.errors import InputError, one_line
from utils.kernels import replace_upsampling
from utils.priors import compvis
from utils.priors.base import LatentPrior
from utils.priors.timesteps import TimestepMap, linear_beta_timesteps
from utils.weights import check_properties, config_files, is_hub_id, is_original, read_configs, side, snapshot, stored_as

log = logging.getLogger("latentdaps")
Autoencoder = AutoencoderKL | VQModel
AUTOENCODERS = {"AutoencoderKL": AutoencoderKL, "VQModel": VQModel}
UNETS = {"UNet2DModel": UNet2DModel, "UNet2DConditionModel": UNet2DConditionModel}


def load_pipeline(
    path: str | Path,
    device: torch.device | str,
    timestep_map: str = "trained",
    weights: str = "raw",
    class_label: int | None = None,
    resolution: int | None = None,
    dtype: torch.dtype = torch.float32,
    scaling_factor: float | None = None,
    prediction_type: str | None = None,
) -> "LatentDiffusionPrior":
    """A prior from a folder in LDMPipeline layout: vqvae/ (or vae/), unet/, scheduler/.

    path: the folder, a hub id, or an original latent-diffusion checkpoint, which is converted once beside itself;
    timestep_map: "trained" or "official" (utils.priors.timesteps); weights: "raw" or "ema", of an original file;
    resolution: of the images, None to take the prior's own (256 for an original file). Another one than it was trained at is
    drawn by the same convolutions, and the log says so;
    dtype: of latents, images and networks, however the weights are stored (see also LatentDiffusionPrior.compute_in);
    scaling_factor, prediction_type: of a folder whose configs do not say them, None to take what they say (see load_parts);
    class_label: class of a class-conditional model (1000 in cin256-v2 means none), null for an unconditional one.
    Raises InputError.
    """
    if is_original(path):
        path = compvis.converted(path, weights)
    path = snapshot(path) if is_hub_id(path) else Path(path)
    autoencoder, unet, scheduler = load_parts(path, dtype, scaling_factor, prediction_type)
    conditional = isinstance(unet, UNet2DConditionModel)
    if conditional != (label_given := class_label is not None):
        raise InputError(
            f"model.path={path}: is {'a class-conditional' if conditional else 'an unconditional'} model "
            f"and model.class_label is {'' if label_given else 'not '}given; "
            f"use model={'imagenet256ldm' if conditional else 'ffhq256ldm'}"
        )
    context = class_context(path, class_label) if conditional else None  # (1, 1, D)
    factor = 2 ** (len(autoencoder.config.block_out_channels) - 1)
    if (size := side(unet.config)) is None and resolution is None:
        raise InputError(f"model.path={path}: its unet/config.json says no sample_size; say model.resolution")
    trained = size and size * factor
    if size is not None:
        unet.register_to_config(sample_size=size)
    if resolution and resolution != trained:
        multiple = factor * 2 ** (len(unet.config.block_out_channels) - 1)
        if resolution % multiple:
            raise InputError(f"model.resolution={resolution}: the prior in {path} draws only multiples of {multiple} pixels")
        message = (
            f"the prior in {path} {f'was trained at {trained} pixels' if trained else 'does not say at which it was trained'}"
        )
        log.info("model.resolution=%d: %s", resolution, message)
        unet.register_to_config(sample_size=resolution // factor)
    return LatentDiffusionPrior(autoencoder, unet, scheduler, timestep_map, context).to(device)


def load_parts(
    path: Path, dtype: torch.dtype = torch.float32, scaling_factor: float | None = None, prediction_type: str | None = None
) -> tuple[Autoencoder, compvis.UNet, DDIMScheduler]:
    """(autoencoder, unet, scheduler) of a diffusers folder.

    scaling_factor: latents are what the encoder gives, times it; prediction_type: "epsilon" or "v_prediction"; None for what
    the folder says. Raises InputError if a file is damaged, or folder and arguments leave a property open or disagree.
    """
    files, loading = config_files(path), {"torch_dtype": dtype, "low_cpu_mem_usage": False}
    given = {"scaling_factor": scaling_factor, "prediction_type": prediction_type}
    try:
        configs = read_configs(path)
        check_properties(path, configs, given)
        side(configs["unet"])
        autoencoder, unet = (
            load_whole(_class_of(files[part].parent.name, configs[part], classes), files[part].parent, **loading)
            for part, classes in (("autoencoder", AUTOENCODERS), ("unet", UNETS))
        )
        if scaling_factor is not None:
            autoencoder.register_to_config(scaling_factor=scaling_factor)
        # from_pretrained imports all schedulers, to tell their keys from those that nobody knows
        taken = configs["scheduler"].keys() & inspect.signature(DDIMScheduler).parameters.keys()
        scheduler = DDIMScheduler(**{key: configs["scheduler"][key] for key in taken})
        if prediction_type is not None:
            scheduler.register_to_config(prediction_type=prediction_type)
        return autoencoder, unet, scheduler
    except (InputError, MemoryError):
        raise
    except Exception as error:  # of a config that does not fit, the library raises whatever its constructors come upon
        raise InputError(
            f"model.path={path}: cannot be loaded ({type(error).__name__}: {one_line(error)}); "
            "copy the folder again from its source"
        ) from None


def load_whole(kind: Any, folder: Path, **loading: Any) -> Any:
    """The network in `folder`, a part of a prior's folder, of class `kind`, which is of diffusers or of transformers.

    loading: further arguments of its `from_pretrained`. Raises InputError if tensors are missing, unexpected or misshaped:
    the libraries draw what is missing at random and leave out what they do not know.
    """
    logging.getLogger(kind.from_pretrained.__module__).setLevel(logging.ERROR)  # its table of such tensors is our one line
    network, loading_info = kind.from_pretrained(
        folder,
        **stored_as(folder),
        local_files_only=True,
        ignore_mismatched_sizes=True,  # into the list, instead of an error of several lines
        output_loading_info=True,
        **loading,
    )
    misshaped = [name for name, *_ in loading_info["mismatched_keys"]]
    source = f"model.path={folder.parent}"
    compvis.check_keys(source, folder.name, loading_info["missing_keys"], loading_info["unexpected_keys"], misshaped)
    return network


def _class_of(part: str, config: Mapping[str, Any], classes: Mapping[str, type[ModelMixin]]) -> type[ModelMixin]:
    name = config.get("_class_name")
    if name not in classes:
        raise ValueError(f"{part} is a {name}; supported: {', '.join(classes)}")
    return classes[name]


def class_context(path: Path, label: int) -> torch.Tensor:
    """(1, 1, D) embedding of class `label`. Raises InputError.

    Source: the class embedder of CompVis/latent-diffusion, a table of 1001 rows for cin256-v2.
    """
    tensors = load_file(path / "class_embedding.safetensors")
    foreign = tensors.keys() - {"weight"}
    compvis.check_keys(f"model.path={path}", "class embedding", {"weight"} - tensors.keys(), foreign, ())
    table = tensors["weight"]  # (classes, D)
    if not 0 <= label < len(table):
        raise InputError(f"model.class_label={label}: the model has classes 0 to {len(table) - 1}")
    return table[label].view(1, 1, -1)


class LatentDiffusionPrior(LatentPrior):
    """Wraps a diffusers autoencoder, UNet and scheduler as a denoiser in sigma.

    With x_t = z / sqrt(1 + sigma^2) and t = t(sigma), the network predicts epsilon or v:
    epsilon: D(z, sigma) = z - sigma epsilon(x_t, t)           (DAPS, model/precond.py)
    v:       D(z, sigma) = x_t / sqrt(1 + sigma^2) - sigma / sqrt(1 + sigma^2) v(x_t, t)

    context: (1, L, D) what a conditional UNet attends to, None for an unconditional one
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        unet: compvis.UNet,
        scheduler: DDIMScheduler,
        timestep_map: str,
        context: torch.Tensor | None = None,
    ) -> None:
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.unet = unet.eval().requires_grad_(False)
        replace_upsampling(self.autoencoder.decoder)
        self.scheduler_config, self.prediction_type = scheduler.config, scheduler.config.prediction_type
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise InputError(
                f"model.path: its scheduler has prediction_type={self.prediction_type}; epsilon and v_prediction are supported"
            )
        self.context = context
        official = self.official_timesteps(scheduler.config) if timestep_map == "official" else None
        self.timestep_map = TimestepMap(timestep_map, scheduler.alphas_cumprod, official)
        self.scaling_factor = autoencoder.config.scaling_factor
        self.latent_shape = (unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
        self.resolution = unet.config.sample_size * 2 ** (len(autoencoder.config.block_out_channels) - 1)
        self.dtype = self.network_dtype = unet.dtype

    @staticmethod
    def official_timesteps(scheduler_config: FrozenDict) -> Callable[[torch.Tensor], torch.Tensor]:
        """sigma -> timestep as DAPS has it for this family."""
        return linear_beta_timesteps

    def to(self, device: torch.device | str) -> Self:
        self.autoencoder, self.unet = self.autoencoder.to(device), self.unet.to(device)
        self.context = self.context.to(device) if self.context is not None else None
        self.device = torch.device(device)
        return self

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        encoded = self.autoencoder.encode(x)
        latent = encoded.latents if isinstance(self.autoencoder, VQModel) else encoded.latent_dist.mean
        return latent * self.scaling_factor

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.autoencoder.decode(z / self.scaling_factor).sample

    def denoise(self, z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        sigma = sigma.expand(len(z))
        column = sigma.view(-1, 1, 1, 1)
        scale = (1 + column.square()).rsqrt()
        output = self.predict(z * scale, self.timestep_map(sigma))
        if self.prediction_type == "epsilon":
            return z - column * output
        return z * scale.square() - column * scale * output

    def compute_in(self, dtype: torch.dtype) -> None:
        self.network_dtype = dtype
        torch.nn.Module.to(self.unet, dtype)  # diffusers' own warns of modules to keep in float32, of which it names none
        self.context = self.context.to(dtype) if self.context is not None else None
        # the border lies at the decoder's own input: a codebook entry chosen in low precision would be another entry
        decoder = self.autoencoder.decoder.to(dtype)
        decoder.register_forward_pre_hook(lambda module, arguments: (arguments[0].to(dtype), *arguments[1:]))
        decoder.register_forward_hook(lambda module, arguments, image: image.to(self.dtype))

    def checkpoint_decoder(self) -> None:
        # set on the decoder itself: diffusers offers its method for AutoencoderKL only, though VQModel shares the decoder
        self.autoencoder.decoder._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        self.autoencoder.decoder.gradient_checkpointing = True

    def predict(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The network's output for x (P, C, h, w) at timesteps t (P,), which keep their precision."""
        if self.context is None:
            return self.unet(x.to(self.network_dtype), t).sample.to(self.dtype)
        return self.conditional(x, t, self.context.expand(len(x), -1, -1))

    def conditional(self, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """`predict` under context (P, L, D)."""
        return self.unet(x.to(self.network_dtype), t, encoder_hidden_states=context).sample.to(self.dtype)

    def resident_bytes(self) -> int:
        return sum(p.numel() * p.element_size() for m in (self.autoencoder, self.unet) for p in m.parameters())
