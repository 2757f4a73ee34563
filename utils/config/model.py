"""What a model block must hold, and whether the weights that it names can be there. Needs no torch."""

import os
from importlib import util
from pathlib import Path

from utils.config.sections import Model
from utils.errors import InputError, one_line, short
from utils.paths import find
from utils.plain_files import Unreadable, read_json
from utils.weights import (
    GIVEN,
    ORIGINAL_SUFFIXES,
    WEIGHTS,
    Conversion,
    cache_folder,
    cached_snapshot,
    check_properties,
    config_files,
    is_hub_id,
    is_original,
    not_cached,
    read_configs,
    side,
    stored_as,
)

STABLE_DIFFUSION = "utils.priors.stable_diffusion.load_pipeline"

# what each of our loaders takes beside the keys of every prior; one of your own may take anything
OUR_LOADERS = {
    "utils.priors.latent_diffusion.load_pipeline": ("weights", "class_label"),
    STABLE_DIFFUSION: ("prompt", "guidance_scale", "inner_resolution", "network_dtype"),
}


def check_model(model: Model) -> None:
    """Raises InputError if the weights that `model` (the block of that name) names cannot be there, or do not fit it."""
    if model.target not in OUR_LOADERS:
        return
    taken = ("path", "resolution", "timestep_map", "source", *GIVEN, *OUR_LOADERS[model.target])
    for key in sorted(model.model_fields_set - {"target", *taken}):
        raise InputError(f"model.{key}={short(getattr(model, key))}: this prior has no such key; it has {', '.join(taken)}")
    stable = model.target == STABLE_DIFFUSION
    if stable:
        _check_stable_diffusion(model)
    if is_hub_id(model.path):
        if model.weights != "raw":
            raise InputError(f"model.weights={model.weights}: {model.path} has one kind of weights; leave it out")
        folder = cached_snapshot(model.path)
        if folder is not None:
            check_folder(model, folder)
        elif _offline():
            raise InputError(not_cached(model.path, "HF_HUB_OFFLINE is set"))
        return
    place = find(model.path)
    if is_original(place):
        if stable:
            raise _wrong(model, "Stable Diffusion is taken as a diffusers folder or hub id")
        cache = cache_folder(place, model.weights)
        if not place.is_file():
            if not (cache / "conversion.json").is_file():
                raise _wrong(model, f"checkpoint file {place} not found")
            check_folder(model, cache)
        return
    if place.is_file():
        raise InputError(
            f"model.path={model.path}: is a file of a kind that is not read; a checkpoint ends in "
            f"{', '.join(ORIGINAL_SUFFIXES)}, a diffusers model is a folder"
        )
    originals = sorted(file for file in place.glob("*") if is_original(file) and file.is_file())
    if originals and not (place / "unet").is_dir():
        raise InputError(f"model.path={model.path}: is no diffusers folder but holds {originals[0].name}; give that file")
    check_folder(model, place)
    conversion = place / "conversion.json"
    try:
        made_of = read_json(conversion, Conversion) if conversion.is_file() else Conversion()
    except (OSError, Unreadable) as error:
        raise _wrong(model, f"damaged, {conversion}: {one_line(error)}") from None
    if model.weights != made_of.weights:
        raise InputError(
            f"model.weights={model.weights}: {place} holds the {made_of.weights} weights; "
            "give model.path the original file, or convert it with tools/convert_ldm.py"
        )


def check_folder(model: Model, folder: Path) -> None:
    """A diffusers folder: its parts, their weights, and the resolution that they imply."""
    stable = model.target == STABLE_DIFFUSION
    files = list(config_files(folder).values())
    files += [folder / "text_encoder/config.json", folder / "tokenizer/tokenizer_config.json"] if stable else []
    parts = [file.parent for file in files if file.name == "config.json"]
    for file in files:
        if not file.is_file():
            raise _wrong(model, f"checkpoint file {file} not found")
    for part in parts:
        if not any(file for pattern in WEIGHTS for file in part.glob(pattern)):
            raise _wrong(model, f"no weights (*.safetensors, *.bin) in {part}")
    try:
        configs = read_configs(folder)
    except (OSError, Unreadable) as error:
        raise _wrong(model, f"damaged, {one_line(error)}") from None
    unet, vae = configs["unet"], configs["autoencoder"]
    conditional = unet.get("_class_name") == "UNet2DConditionModel"
    if not stable and conditional and not (folder / "class_embedding.safetensors").is_file():
        raise InputError(
            f"model.path={model.path}: its UNet wants a prompt or a class; "
            "use model=stable-diffusion-v1.5 or model=stable-diffusion-v2.1 for Stable Diffusion"
        )
    if stable and not conditional:
        raise InputError(
            f"model.path={model.path}: its UNet takes no prompt, so it is no Stable Diffusion; "
            "use model=ffhq256ldm with this path"
        )
    for key, config in (("block_out_channels", vae), ("block_out_channels", unet), ("sample_size", unet)):
        if key not in config:
            raise _wrong(model, f"a config.json in {folder} is damaged (it has no {key})")
    check_properties(folder, configs, {key: getattr(model, key) for key in GIVEN})
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    multiple = factor * 2 ** (len(unet["block_out_channels"]) - 1)
    try:
        size = side(unet)
        for part in parts:
            stored_as(part)
    except ValueError as error:
        raise InputError(f"model.path={model.path}: {error}") from None
    if not stable and model.resolution % multiple:
        trained = f"was trained at {size * factor} pixels and " if size else ""
        raise InputError(
            f"model.resolution={model.resolution}: the prior in {folder} {trained}halves a side so often that only "
            f"multiples of {multiple} can be drawn"
        )
    if stable and model.inner_resolution % multiple:
        raise InputError(f"model.inner_resolution={model.inner_resolution}: the prior takes multiples of {multiple}")


def _check_stable_diffusion(model: Model) -> None:
    for key in ("prompt", "guidance_scale", "inner_resolution"):
        if getattr(model, key) is None:
            raise InputError(f"model.{key}: missing; Stable Diffusion needs it (see configs/model)")
    if util.find_spec("transformers") is None:
        raise InputError("model: Stable Diffusion needs the package transformers; install it with pip install -e '.[sd]'")


def _wrong(model: Model, reason: str) -> InputError:
    return InputError(f"model.path={model.path}: {reason}; get it from: {model.source}")


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
