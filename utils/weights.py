"""Where a prior's weights come from: a diffusers folder, an original checkpoint file, or a hub id. Needs no torch."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, FiniteFloat

from utils.errors import InputError, short
from utils.paths import find
from utils.plain_files import Object, Unreadable, read_json, shaped

ORIGINAL_SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors")
SUFFIXES = (*ORIGINAL_SUFFIXES, ".bin")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
LOCAL_FOLDERS = ("checkpoints", "results")  # a path below these is never taken for a hub id
PATTERNS = ["unet/*", "vae/*", "vqvae/*", "scheduler/*", "text_encoder/*", "tokenizer/*", "model_index.json"]
UNNEEDED = ["*.fp16.*", "*non_ema*", "*.msgpack", "*.onnx*"]  # half-precision, training and other copies of the same weights

# what shapes do not tell of a checkpoint, by the part whose config says it; a default of the library is right for some only
PROPERTIES = {
    "autoencoder": ("scaling_factor",),
    "unet": ("attention_head_dim", "norm_num_groups"),
    "scheduler": ("prediction_type", "num_train_timesteps", "beta_schedule", "beta_start", "beta_end"),
}

# those that a model's block may say for a folder that does not
GIVEN = {
    "scaling_factor": "a number: 1 where latents are not scaled, 0.18215 for Stable Diffusion 1 and 2",
    "prediction_type": "epsilon or v_prediction",
}
WEIGHTS = ("*.safetensors", "*.bin")
Size = Annotated[int, Field(ge=1, le=2**16)]


class Network(BaseModel):
    """What is read of the config of an autoencoder or UNet; where a key is missing, those who need it say so."""

    class_name: str | None = Field(None, alias="_class_name")
    block_out_channels: list[Size] = Field([1], min_length=1, max_length=12)
    layers_per_block: Size | list[Size] = 1
    in_channels: Size = 1
    out_channels: Size = 1
    latent_channels: Size = 1
    norm_num_groups: Size | None = None
    sample_size: Size | list[Size] | None = None
    attention_head_dim: Size | list[Size] | None = None
    cross_attention_dim: Size | list[Size] | None = None
    time_embedding_dim: Size | None = None
    norm_eps: FiniteFloat | None = None
    freq_shift: FiniteFloat | None = None
    mid_block_scale_factor: FiniteFloat | None = None
    scaling_factor: Annotated[FiniteFloat, Field(gt=0)] | None = None

    def least_weights(self) -> int:
        """How many numbers its weights are at least: each layer of a block has a convolution of 3 x 3 over its channels."""
        layers = self.layers_per_block if isinstance(self.layers_per_block, list) else [self.layers_per_block]
        convolutions = sum(9 * channels**2 for channels in self.block_out_channels) * min(layers)
        return convolutions + (self.time_embedding_dim or 0) ** 2


class Scheduler(BaseModel):
    """The same of a scheduler."""

    prediction_type: str | None = None
    num_train_timesteps: Annotated[int, Field(ge=1, le=10**5)] | None = None
    beta_schedule: str | None = None
    beta_start: Annotated[float, Field(gt=0, lt=1)] | None = None
    beta_end: Annotated[float, Field(gt=0, lt=1)] | None = None


class Conversion(BaseModel):
    """What is read of conversion.json, by which a converted checkpoint tells where it comes from."""

    weights: Literal["raw", "ema"] = "raw"


def read_configs(folder: Path) -> dict[str, Object]:
    """{part: content of its config} of a diffusers folder.

    Raises Unreadable naming the file, also where a config promises networks far larger than their weights; OSError.
    """
    configs = {}
    for part, file in config_files(folder).items():
        try:
            configs[part] = read_json(file)
            typed = shaped(configs[part], Scheduler if part == "scheduler" else Network)
        except Unreadable as error:
            raise Unreadable(f"{file}: {error}") from None
        held = sum(weights.stat().st_size for pattern in WEIGHTS for weights in file.parent.glob(pattern))
        if part != "scheduler" and typed.least_weights() > held:
            raise Unreadable(f"{file}: its networks are far larger than the weights beside it, of {held} bytes")
    return configs


# model.safetensors, model.fp16.bin, and model.ema-00001-of-00002.bin of several, as older versions write it too
SHARD = r"(-\d{5}-of-\d{5})?"
WEIGHTS_NAME = re.compile(rf"[^.]+?{SHARD}(\.(?P<variant>[\w-]+?))?{SHARD}\.(?P<kind>safetensors|bin)")


def stored_as(folder: Path) -> dict[str, Any]:
    """How the weights in `folder` are stored, as arguments of diffusers' and transformers' `from_pretrained`.

    variant: None for those without a word in their names, else the word, such as fp16 or ema; use_safetensors: whether they
    are, else pickles. Raises ValueError where there are several and none without a word.
    """
    names = [WEIGHTS_NAME.fullmatch(file.name) for pattern in WEIGHTS for file in folder.glob(pattern)]
    stored = {(name["variant"], name["kind"]) for name in names if name}
    variants = sorted({variant for variant, _ in stored if variant})
    if len(variants) > 1 and all(variant for variant, _ in stored):
        raise ValueError(f"{folder} holds the variants {' and '.join(variants)}; keep the files of one")
    variant = variants[0] if variants and all(variant for variant, _ in stored) else None
    return {"variant": variant, "use_safetensors": (variant, "safetensors") in stored}


def side(config: Mapping[str, Any]) -> int | None:
    """A UNet's sample_size: a number, a pair or null in what diffusers writes. Raises ValueError if it is no square."""
    size = config.get("sample_size")
    if isinstance(size, (list, tuple)) and len(size) == 2 and size[0] == size[1]:
        size = size[0]
    if not isinstance(size, int | None):
        raise ValueError(f"draws latents of sample_size={short(size)}; only squares are supported")
    return size


def config_files(folder: Path) -> dict[str, Path]:
    """{part of a diffusers folder: its config}."""
    autoencoder = "vqvae" if (folder / "vqvae").is_dir() else "vae"
    return {
        "autoencoder": folder / autoencoder / "config.json",
        "unet": folder / "unet/config.json",
        "scheduler": folder / "scheduler/scheduler_config.json",
    }


def check_properties(folder: Path, configs: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]) -> None:
    """Raises InputError if a property of the checkpoint in `folder` is said nowhere, or in two ways.

    configs: {part: content of its config}; given: {key: value or None} of GIVEN, as the model's block has them.
    """
    files = config_files(folder)
    for part, key in ((part, key) for part, keys in PROPERTIES.items() for key in keys):
        in_folder, value = configs[part].get(key), given.get(key)
        if value is not None and in_folder is not None and value != in_folder:
            raise InputError(f"model.{key}={value}: {files[part]} says {in_folder}; say model.{key}=null, or correct that file")
        if key in GIVEN and value is None and in_folder is None:
            raise InputError(
                f"model.path={folder}: {files[part]} has no {key}; write it there or give +model.{key}=, {GIVEN[key]}"
            )
        if key not in GIVEN and key not in configs[part]:
            raise InputError(f"model.path={folder}: {files[part]} has no {key}; write it there, as the prior was trained")


def cache_folder(checkpoint: str | Path, weights: str = "raw") -> Path:
    """Where the conversion of an original file is kept: beside it."""
    return Path(checkpoint).with_suffix(".ema.diffusers" if weights == "ema" else ".diffusers")


def is_original(path: str | Path) -> bool:
    return Path(path).suffix.lower() in ORIGINAL_SUFFIXES


def is_hub_id(path: str | Path) -> bool:
    """owner/name that is no local path. `checkpoints/...` is always local."""
    return (
        HUB_ID.fullmatch(str(path)) is not None
        and str(path).split("/")[0] not in LOCAL_FOLDERS
        and not is_original(path)
        and not find(path).exists()
        and not find(str(path).split("/")[0]).exists()
    )


def beside_checkpoint(path: str, name: str) -> Path | None:
    """Where a file of ours on a checkpoint lies: in its folder, or beside its file; None for a hub id."""
    if is_hub_id(path):
        return None
    place = find(path)
    return place.with_suffix(f".{name}") if is_original(place) else place / name


def locate(path: str | Path) -> str:
    """model.path as the loaders take it: an existing place, or the hub id unchanged."""
    return str(path) if is_hub_id(path) else str(find(path))


def weight_bytes(path: str | Path) -> int | None:
    """The size of the weight files at a place or in the cache of a hub id; None where none are found."""
    place = cached_snapshot(str(path)) if is_hub_id(path) else find(path)
    if place is None:
        return None
    files = [place] if place.is_file() else [*place.glob("*"), *place.glob("*/*")]
    return sum(file.stat().st_size for file in files if file.suffix.lower() in SUFFIXES and file.is_file()) or None


def cached_snapshot(hub_id: str) -> Path | None:
    """The folder of a hub id in the cache (HF_HOME), or None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, local_files_only=True, allow_patterns=PATTERNS))
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None


def snapshot(hub_id: str, ignore: Sequence[str] = ()) -> Path:
    """The folder of a hub id: from the cache, else downloaded into it. Raises InputError without network or access.

    ignore: further file patterns that are not needed.
    """
    from huggingface_hub import snapshot_download

    if (cached := cached_snapshot(hub_id)) is not None:
        return cached
    try:
        return Path(snapshot_download(hub_id, allow_patterns=PATTERNS, ignore_patterns=[*UNNEEDED, *ignore]))
    except Exception as error:  # network, proxy, access and name errors come from three libraries
        raise InputError(not_cached(hub_id, type(error).__name__)) from None


def not_cached(hub_id: str, reason: str) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    return (
        f"model.path={hub_id}: not in the cache {HF_HUB_CACHE} (set by HF_HOME) and not downloadable ({reason}); "
        f"run `hf download {hub_id}` where there is a network and copy the cache here, or give a local folder"
    )
