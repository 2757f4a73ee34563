"""Where a prior's weights come from: a diffusers folder, an original checkpoint file, or a hub id. Needs no torch."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.errors import InputError
from utils.paths import find

ORIGINAL_SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors")

SUFFIXES = (*ORIGINAL_SUFFIXES, ".bin")

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

LOCAL_FOLDERS = ("checkpoints", "results")  # a path below these is never taken for a hub id

PATTERNS = ["unet/*", "vae/*", "vqvae/*", "scheduler/*", "text_encoder/*", "tokenizer/*", "model_index.json"]

# half-precision, training and other copies of the same weights
UNNEEDED = ["*.fp16.*", "*non_ema*", "*.msgpack", "*.onnx*"]

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
    for part, keys in PROPERTIES.items():
        for key in keys:
            said, value = configs[part].get(key), given.get(key)
            if value is not None and said is not None and value != said:
                raise InputError(f"model.{key}={value}: {files[part]} says {said}; say model.{key}=null, or correct that file")
            if key in GIVEN and value is None and said is None:
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


def locate(path: str | Path) -> str:
    """model.path as the loaders take it: an existing place, or the hub id unchanged."""
    return str(path) if is_hub_id(path) else str(find(path))


def weight_bytes(path: str | Path) -> int | None:
    """The size of the weight files at a place or in the cache of a hub id; None where none are found."""
    place = cached_snapshot(str(path)) if is_hub_id(path) else find(path)
    if place is None:
        return None
    found = [place] if place.is_file() else [*place.glob("*"), *place.glob("*/*")]
    return sum(file.stat().st_size for file in found if file.suffix.lower() in SUFFIXES and file.is_file()) or None


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
    cached = cached_snapshot(hub_id)
    if cached is not None:
        return cached
    from huggingface_hub import snapshot_download

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
