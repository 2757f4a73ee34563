"""A run that solves its image at several sizes, as the settings of each size."""

from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from utils.config.section import refusal
from utils.config.sections import Model
from utils.config.settings import Settings
from utils.errors import InputError, one_line
from utils.mechanisms import registry
from utils.paths import PROJECT
from utils.plain_files import Unreadable, read_yaml

MODELS = PROJECT / "configs" / "model"


def at_each_level(settings: Settings) -> Settings:
    """The settings of the last level, each with those of the level below it (`below`); as they are without levels.

    The first level has the mechanisms. At each, the noise of a sample is that of the whole divided by the pixel's size, and the
    chain's rate and tau follow it (`Settings.chain`). Raises InputError.
    """
    levels = registry.levels(settings)
    if not settings.anneals:  # the one level that another algorithm may have is that of its own prior
        return settings
    below: Settings | None = None
    for i, level in enumerate(levels):
        update = ({} if i == 0 else registry.all_off()) | registry.of_level(settings)
        node = dict(settings.composition.nodes["model"]) if level.model is None else model_node(level.model)
        node["resolution"] = level.resolution
        sampler: dict[str, Any] = {"chain": settings.sampler.chain.model_copy(update=dict(level.chain))}
        if i < len(levels) - 1:  # only what is handed out is denoised once more
            diffusion = settings.sampler.diffusion_scheduler_config
            sampler["diffusion_scheduler_config"] = diffusion.model_copy(update={"final_sigma": 0.0})
        update |= {"model": Model.model_validate(node), "sampler": settings.sampler.model_copy(update=sampler)}
        composition = replace(settings.composition, nodes={**settings.composition.nodes, "model": node}, below=below)
        below = settings.model_copy(update=update).composed(composition)
    return below or settings


def model_node(name: str) -> dict[str, Any]:
    """configs/model/NAME.yaml. Raises InputError."""
    file = MODELS / f"{name}.yaml"
    if "/" in name or not file.is_file():
        raise InputError(
            f"model {name}: no such file {file}; there are {', '.join(sorted(f.stem for f in MODELS.glob('*.yaml')))}"
        )
    try:
        node = read_yaml(file)
    except (OSError, Unreadable) as error:
        raise InputError(f"model {name}: {file} cannot be read ({one_line(error)})") from None
    if node.get("path") == "???":
        raise InputError(f"model {name}: {file} names no path; copy the file, give it one, and name the copy")
    try:
        Model.model_validate(node)
    except ValidationError as error:
        raise refusal(error, node, f"{file}: model") from None
    return node
