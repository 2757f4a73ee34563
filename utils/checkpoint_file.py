"""Reads checkpoint files of others: tensors only, and never code.

A checkpoint is a pickle, and a pickle can run anything. torch's `weights_only` loader runs nothing but what is on a
list; this file is that list. Classes of the tools that wrote the file are on it as empty stand-ins, so none of them
need be installed. A .safetensors file holds tensors only.
"""

import re
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from utils.errors import InputError

# classes that public checkpoints mention in their training state and settings, which nobody reads
STAND_INS = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.Metadata",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.nodes.AnyNode",
    "omegaconf.nodes.BooleanNode",
    "omegaconf.nodes.FloatNode",
    "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.StringNode",
    "argparse.Namespace",
    "typing.Any",
)
PLAIN = (dict, list, tuple, int, float, bool, str, defaultdict)  # calling them builds data

# under which names a file's state dicts lie, the outer one first
RAW, AVERAGED = ("state_dict", "model", "model_state_dict", "params"), ("model_ema", "ema", "ema_state_dict", "params_ema")
# what wrappers of a module (DataParallel, torch.compile) and savers put before every name
PREFIXES = ("module.", "_orig_mod.", "model_ema.", "ema.", "model.")
UNET = "model.diffusion_model."  # of latent-diffusion: there `model.` is part of the name

BEGINNINGS = {
    b"<": "is a web page, not a checkpoint; download the file itself",
    b"version https://git-lfs": "is a Git LFS pointer, not the checkpoint itself; run `git lfs pull`",
}


class Ignored(dict):
    """Stands for an allowed class whose content is not needed; building one runs no foreign code."""

    def __setstate__(self, state: Any) -> None:
        pass


def _allowed() -> list[Any]:
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]  # pickles of NumPy name it
    numpy_types = [np.dtype, type(np.dtype("float64")), type(np.dtype("float32")), type(np.dtype("int64"))]
    return [
        *((type(name.rpartition(".")[2], (Ignored,), {}), name) for name in STAND_INS),
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        *numpy_types,
        *PLAIN,
    ]


def read_state_dict(path: str | Path, key: str = "model.path") -> dict[str, torch.Tensor]:
    """{name: tensor} of a .ckpt, .pt, .pth or .safetensors file, on the CPU, memory-mapped where the format allows it.

    Of a file with several state dicts the raw weights are taken, the averaged ones where there are no others; what
    wraps every name (such as `module.`) is taken off. key: the config key that named the file, for messages.
    Raises InputError for a file that is absent, truncated, no checkpoint, or that contains code.
    """
    path = Path(path)
    content = _content(path, key)
    tensors = _tensors(content, (*RAW, *AVERAGED))
    if not tensors:
        raise InputError(f"{key}={path}: holds no named tensors; give a checkpoint with a state_dict")
    return tensors


def read_averaged(path: str | Path) -> dict[str, torch.Tensor]:
    """{name: tensor} of the averaged weights that a file holds as a state dict of their own; empty if it has none."""
    content = _content(Path(path), "model.path")
    return _tensors(content, AVERAGED) if isinstance(content, dict) and any(name in content for name in AVERAGED) else {}


def _content(path: Path, key: str) -> Any:
    if not path.is_file():
        raise InputError(f"{key}={path}: no such checkpoint file")
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_allowed()):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # zip, pickle, end-of-file and storage errors differ by where the file is cut
        raise InputError(f"{key}={path}: {_reason(path, error)}") from None


def _tensors(content: Any, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """{name: tensor} of the first state dict under one of `names`, however deep, else of the content itself."""
    if not isinstance(content, dict):
        return {}
    for name in names:
        tensors = _tensors(content[name], names) if isinstance(content.get(name), dict) else {}
        if tensors:
            return tensors
    return _without_wrappers({k: v for k, v in content.items() if torch.is_tensor(v)})


def _without_wrappers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for prefix in PREFIXES:
        if state and all(name.startswith(prefix) and not name.startswith(UNET) for name in state):
            return _without_wrappers({name[len(prefix) :]: tensor for name, tensor in state.items()})
    return state


def _reason(path: Path, error: Exception) -> str:
    with open(path, "rb") as file:
        start = file.read(64).lstrip().lower()
    for beginning, reason in BEGINNINGS.items():
        if start.startswith(beginning):
            return reason
    foreign = _foreign(path, error)
    if foreign:
        return (
            f"asks for code ({', '.join(foreign[:3])}), which was not run: only tensors are read; where the file was made, "
            "save its state_dict alone, as .safetensors or with torch.save"
        )
    return (
        f"cannot be read as a checkpoint, it is truncated or of another kind ({type(error).__name__}); "
        "compare its size with the original and download it again"
    )


def _foreign(path: Path, error: Exception) -> list[str]:
    """Names of the classes and functions that the pickle asks for and that are not on the list."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # no zip file, or not even the list of names can be read
        names = re.findall(r"GLOBAL ([\w.]+) was not an allowed global", str(error))
    entries = (entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}" for entry in _allowed())
    allowed = set(entries)
    return sorted(name for name in names if name not in allowed and not name.startswith("numpy.dtype"))
