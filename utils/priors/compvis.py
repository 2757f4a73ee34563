"""The public latent diffusion checkpoints of CompVis as diffusers modules.

Source: Rombach et al., arXiv 2112.10752; CompVis/latent-diffusion, model zoo (ffhq256, celeba256, cin256-v2) with the
VQ-f4 first stage. The structure is read off the shapes of the weights; what shapes do not tell is fixed here:
self-attention of the unconditional models has 32 channels per head, that of cin256-v2 one head; 32 norm groups;
betas sqrt-linear from 0.0015 to 0.0195.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import DDIMScheduler, ModelMixin, SchedulerMixin, UNet2DConditionModel, UNet2DModel, VQModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors.torch import save_file

from utils.checkpoint_file import read_averaged, read_state_dict
from utils.data import few
from utils.errors import InputError
from utils.files import write_atomically, write_folder
from utils.plain_files import Unreadable, read_json
from utils.weights import cache_folder

log = logging.getLogger("latentdaps")

UNet = UNet2DModel | UNet2DConditionModel
Network = TypeVar("Network", bound=torch.nn.Module)

UNET, VQ, EMA, CLASSES = "model.diffusion_model.", "first_stage_model.", "model_ema.", "cond_stage_model.embedding.weight"
HEAD_CHANNELS, NORM_GROUPS = 32, 32
# what a checkpoint holds beside the networks: the noise schedule, the first stage's training loss, EMA counters
NOT_NETWORK = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_",
    "log_one_minus",
    "posterior_",
    "lvlb_weights",
    "logvar",
    "scale_factor",
    VQ + "loss.",
    EMA,
)
FFHQ_UNET = dict(block_out_channels=(224, 448, 672, 896), layers_per_block=2, attention=(False, True, True, True))
IMAGENET_UNET = dict(
    block_out_channels=(192, 384, 576, 960), layers_per_block=2, attention=(False, True, True, True), context=512
)
VQ_F4 = dict(block_out_channels=(128, 256, 512), layers_per_block=2, latent_channels=3, num_vq_embeddings=8192, vq_embed_dim=3)


def build_unet(
    block_out_channels: Sequence[int],
    layers_per_block: int,
    attention: Sequence[bool],
    context: int | None = None,
    sample_size: int = 64,
    channels: int = 3,
) -> UNet:
    """The UNet of `attention` levels; `context` is the width of the cross-attention, None for an unconditional one."""
    kind, depth = ("Attn", "CrossAttn")[context is not None], len(block_out_channels)
    common = dict(
        sample_size=sample_size,
        in_channels=channels,
        out_channels=channels,
        flip_sin_to_cos=True,
        freq_shift=0,
        block_out_channels=tuple(block_out_channels),
        layers_per_block=layers_per_block,
        norm_num_groups=NORM_GROUPS,
        norm_eps=1e-5,
        down_block_types=tuple(f"{kind}DownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple(f"{kind}UpBlock2D" if attention[depth - 1 - i] else "UpBlock2D" for i in range(depth)),
    )
    if context is None:
        return UNet2DModel(attention_head_dim=HEAD_CHANNELS, **common)
    return UNet2DConditionModel(attention_head_dim=1, cross_attention_dim=context, **common)  # 1 means one head


def build_vq(
    block_out_channels: Sequence[int],
    layers_per_block: int,
    latent_channels: int,
    num_vq_embeddings: int,
    vq_embed_dim: int,
    sample_size: int = 256,
    scaling_factor: float = 1.0,
) -> VQModel:
    """The first stage; VQ-f4 has three levels, hence a factor of 4."""
    depth = len(block_out_channels)
    return VQModel(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
        block_out_channels=tuple(block_out_channels),
        layers_per_block=layers_per_block,
        latent_channels=latent_channels,
        sample_size=sample_size,
        num_vq_embeddings=num_vq_embeddings,
        vq_embed_dim=vq_embed_dim,
        norm_num_groups=NORM_GROUPS,
        scaling_factor=scaling_factor,
    )


def build_scheduler(prediction_type: str = "epsilon") -> DDIMScheduler:
    """The noise schedule that the networks were trained on; the public ones predict epsilon."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.0015,
        beta_end=0.0195,
        clip_sample=False,
        set_alpha_to_one=False,
        prediction_type=prediction_type,
    )


def unet_structure(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """`build_unet`'s arguments, read off the weights (names without prefix)."""
    channels, attention, blocks, i = [], [], [], 1
    while f"input_blocks.{i}.0.in_layers.2.weight" in state or f"input_blocks.{i}.0.op.weight" in state:
        if f"input_blocks.{i}.0.op.weight" not in state:
            if i == 1 or f"input_blocks.{i - 1}.0.op.weight" in state:
                channels.append(state[f"input_blocks.{i}.0.out_layers.3.weight"].shape[0])
                attention.append(f"input_blocks.{i}.1.norm.weight" in state)
                blocks.append(0)
            blocks[-1] += 1
        i += 1
    context = next((v.shape[1] for k, v in state.items() if k.endswith("attn2.to_k.weight")), None)
    return dict(
        block_out_channels=tuple(channels),
        layers_per_block=blocks[0],
        attention=tuple(attention),
        context=context,
        channels=state["input_blocks.0.0.weight"].shape[1],
    )


def vq_structure(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """`build_vq`'s arguments, read off the weights (names without prefix)."""
    levels = [k for k in range(16) if f"encoder.down.{k}.block.0.conv1.weight" in state]
    embeddings, dim = state["quantize.embedding.weight"].shape
    return dict(
        block_out_channels=tuple(state[f"encoder.down.{k}.block.0.conv1.weight"].shape[0] for k in levels),
        layers_per_block=sum(f"encoder.down.0.block.{i}.conv1.weight" in state for i in range(16)),
        latent_channels=state["encoder.conv_out.weight"].shape[0],
        num_vq_embeddings=embeddings,
        vq_embed_dim=dim,
    )


def convert_unet(state: Mapping[str, torch.Tensor], source: str | Path, sample_size: int) -> UNet:
    """A loaded UNet from original names (without prefix) and tensors."""
    structure = unet_structure(state)
    with torch.device("meta"):
        unet = build_unet(**structure, sample_size=sample_size)
    converted = convert_ldm_unet_checkpoint({UNET + k: v for k, v in state.items()}, unet.config)
    _check_all_used(state, converted, UNET, source)
    if structure["context"] is None:
        converted = dict(pair for name, tensor in converted.items() for pair in _self_attention(name, tensor))
    return _load(unet, converted, "UNet", source)


def _self_attention(name: str, tensor: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """One tensor of the original attention block under its new names.

    The original splits the 3 C outputs of `qkv` by head first, so each head's rows are its own q, k, v.
    """
    if ".attentions." not in name:
        return [(name, tensor)]
    stem, part = name.rsplit(".", 2)[0], ".".join(name.rsplit(".", 2)[1:])
    kind, leaf = part.split(".")
    if kind == "norm":
        return [(f"{stem}.group_norm.{leaf}", tensor)]
    if kind == "proj_out":
        return [(f"{stem}.to_out.0.{leaf}", tensor.reshape(tensor.shape[:2]) if tensor.ndim > 1 else tensor)]
    channels = tensor.shape[0] // 3
    heads = channels // HEAD_CHANNELS
    split = tensor.reshape(heads, 3, HEAD_CHANNELS, *tensor.shape[1:2])  # (heads, q k v, rows, columns)
    return [
        (f"{stem}.to_{letter}.{leaf}", split[:, i].reshape(channels, *tensor.shape[1:2]).contiguous())
        for i, letter in enumerate("qkv")
    ]


def convert_vq(state: Mapping[str, torch.Tensor], source: str | Path, sample_size: int, scaling_factor: float = 1.0) -> VQModel:
    """A loaded VQ first stage from original names (without prefix) and tensors."""
    if "quantize.embedding.weight" not in state:
        raise InputError(
            f"{source}: its first stage has no codebook, so it is no VQ model (Stable Diffusion?); use a diffusers folder of it"
        )
    with torch.device("meta"):
        vq = build_vq(**vq_structure(state), sample_size=sample_size, scaling_factor=scaling_factor)
    converted = convert_ldm_vae_checkpoint({VQ + k: v for k, v in state.items()}, vq.config)
    converted["quantize.embedding.weight"] = state["quantize.embedding.weight"]  # diffusers converts no codebook
    _check_all_used(state, converted, VQ, source)
    return _load(vq, converted, "VQ first stage", source)


def _check_all_used(
    state: Mapping[str, torch.Tensor], converted: Mapping[str, torch.Tensor], prefix: str, source: str | Path
) -> None:
    """diffusers drops names that it does not know; here they are an error."""
    used = {tensor.data_ptr() for tensor in converted.values()}
    left = sorted(prefix + name for name, tensor in state.items() if tensor.data_ptr() not in used)
    if left:
        raise InputError(f"{source}: unexpected keys, the checkpoint is of another family: {few(left)}")


def _load(module: Network, state: Mapping[str, torch.Tensor], network: str, source: str | Path) -> Network:
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
    misshaped = {k for k in wanted.keys() & state.keys() if wanted[k] != state[k].shape}
    check_keys(source, network, wanted.keys() - state.keys(), state.keys() - wanted.keys(), misshaped)
    module.load_state_dict({name: tensor.float().clone() for name, tensor in state.items()}, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def check_keys(
    source: str | Path, network: str, missing: Iterable[str], unexpected: Iterable[str], misshaped: Iterable[str]
) -> None:
    """Raises InputError if the weights of a network are not exactly its own; network: its name, for the message."""
    for problem, names in (("missing", missing), ("unexpected", unexpected), ("wrongly shaped", misshaped)):
        if keys := sorted(names):
            raise InputError(
                f"{source}: {problem} keys in the {network}, the checkpoint is damaged or of another family: {few(keys)}; "
                "get it again from its source"
            )


def convert(checkpoint: str | Path, out: str | Path, weights: str = "raw", resolution: int = 256) -> Path:
    """Write `checkpoint` (the original file) as a diffusers folder `out`; returns its Path.

    out gets vqvae/, unet/, scheduler/, and class_embedding.safetensors for cin256-v2. A file of VQ-f4 alone gives
    vqvae/ only. The folder appears in one step, so an interrupted conversion leaves nothing half done.
    weights: "raw" or "ema"; resolution: of the images. Raises InputError.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    if out.exists() and not (out / "conversion.json").is_file():
        raise InputError(f"{out}: exists and is no earlier conversion; choose another folder")
    state = read_state_dict(checkpoint)
    if "encoder.conv_in.weight" in state:  # the first stage by itself; loss. holds its discriminator
        state = {VQ + name: tensor for name, tensor in state.items()}
    if any(name.startswith("down_blocks.") or ".down_blocks." in name for name in state):
        raise InputError(f"{checkpoint}: is one network of a diffusers folder; give model.path the folder that holds unet/")
    networks = {name: tensor for name, tensor in state.items() if not name.startswith(NOT_NETWORK)}
    unet_state = _under(networks, UNET)
    vq_state = _under(networks, VQ)
    left = sorted(name for name in networks if not name.startswith((UNET, VQ)) and name != CLASSES)
    if not vq_state or left:
        raise InputError(
            f"{checkpoint}: is no latent-diffusion checkpoint of FFHQ, CelebA or cin256-v2: "
            + (f"unexpected keys {few(left)}" if left else f"no key starts with {VQ}")
        )
    parts = {"vqvae": convert_vq(vq_state, checkpoint, resolution, float(state.get("scale_factor", 1.0)))}
    embedding = networks.get(CLASSES)
    if unet_state:
        unet_state = _averaged(unet_state, state, checkpoint) if weights == "ema" else unet_state
        factor = 2 ** (len(parts["vqvae"].config.block_out_channels) - 1)
        parts["unet"] = convert_unet(unet_state, checkpoint, resolution // factor)
        parts["scheduler"] = build_scheduler()
        _check_conditioning(parts["unet"], embedding, checkpoint)
        _check_schedule(parts["scheduler"], state, checkpoint)
    return write(parts, embedding, out, {"source": checkpoint.name, "weights": weights, **stamp(checkpoint)})


def _under(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}


def _averaged(
    unet_state: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], source: str | Path
) -> dict[str, torch.Tensor]:
    """The averaged weights: as the original has them, under names without dots, or a state dict of their own."""
    names = {name: EMA + "diffusion_model" + name.replace(".", "") for name in unet_state}
    missing = sorted(flat for flat in names.values() if flat not in state)
    if not missing:
        return {name: state[flat] for name, flat in names.items()}
    beside = _under(read_averaged(source), UNET)
    if beside.keys() != unet_state.keys():
        raise InputError(f"{source}: model.weights=ema: missing keys {few(missing)}; use model.weights=raw")
    return beside


def _check_conditioning(unet: UNet, embedding: torch.Tensor | None, source: str | Path) -> None:
    conditional = isinstance(unet, UNet2DConditionModel)
    if conditional and (embedding is None or embedding.shape[1] != unet.config.cross_attention_dim):
        raise InputError(
            f"{source}: its UNet is conditional but there is no class embedding of its width; "
            "of the conditional models only cin256-v2 is supported"
        )
    if embedding is not None and not conditional:
        raise InputError(f"{source}: unexpected keys {CLASSES} beside an unconditional UNet")


def _check_schedule(scheduler: DDIMScheduler, state: Mapping[str, torch.Tensor], source: str | Path) -> None:
    stored = state.get("alphas_cumprod")
    if stored is None:
        return
    stored = stored.float()
    # of a file in low precision, also if it was turned back to float32, the schedule is rounded too
    low = next((d for d in (torch.bfloat16, torch.float16) if torch.equal(stored.to(d).float(), stored)), None)
    tolerance = torch.finfo(low).eps if low else 1e-4
    if len(stored) != 1000 or not torch.allclose(stored, scheduler.alphas_cumprod, rtol=0, atol=tolerance):
        raise InputError(f"{source}: was trained on another noise schedule than FFHQ, CelebA and cin256-v2")


def stamp(checkpoint: str | Path) -> dict[str, int]:
    """Size and time of the original file: whether a conversion made earlier is still of the same file."""
    status = Path(checkpoint).stat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def write(
    parts: Mapping[str, ModelMixin | SchedulerMixin],
    embedding: torch.Tensor | None,
    out: Path,
    description: Mapping[str, object],
) -> Path:
    """Save {name: diffusers object}, the class embedding (classes, D) or None, and a description, as the folder `out`."""

    def fill(folder: Path) -> None:
        for name, part in parts.items():
            part.save_pretrained(folder / name)
        if embedding is not None:
            save_file({"weight": embedding.float().clone()}, folder / "class_embedding.safetensors")
        write_atomically(folder / "conversion.json", json.dumps(description, indent=1))

    write_folder(out, fill)
    return out


def converted(checkpoint: str | Path, weights: str = "raw") -> Path:
    """The diffusers folder of an original file, of 256 pixels: a cache beside it, made on first use and for all sizes."""
    folder = cache_folder(checkpoint, weights)
    if (folder / "conversion.json").is_file():
        try:
            made_of = read_json(folder / "conversion.json")
        except (OSError, Unreadable):  # made anew, if the file is there
            made_of = {}
        if not Path(checkpoint).exists() or {k: made_of.get(k) for k in ("bytes", "mtime_ns")} == stamp(checkpoint):
            return folder
    log.info("converting %s to %s, once", checkpoint, folder)
    return convert(checkpoint, folder, weights)
