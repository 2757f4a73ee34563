"""Reads checkpoint files of others: tensors only, and never code.

A checkpoint is a pickle, and a pickle can run anything. torch's `weights_only` loader runs nothing but what is on a
list; this file is that list. Lightning's classes are on it as empty stand-ins, so Lightning need not be installed.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.errors import InputError

# classes that the public checkpoints of latent-diffusion mention in their training state, which nobody reads
LIGHTNING = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
)


class Ignored(dict):
    """Stands for an allowed class whose content is not needed; building one runs no foreign code."""

    def __setstate__(self, state: Any) -> None:
        pass


def _allowed() -> list[Any]:
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]  # pickles of NumPy name it
    numpy_types = [np.dtype, type(np.dtype("float64")), type(np.dtype("float32")), type(np.dtype("int64"))]
    return [
        *((type(name.rpartition(".")[2], (Ignored,), {}), name) for name in LIGHTNING),
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        *numpy_types,
    ]


def read_state_dict(path: str | Path, key: str = "model.path") -> dict[str, torch.Tensor]:
    """{name: tensor} of a .ckpt/.pt/.pth file, on the CPU, memory-mapped where the format allows it.

    A Lightning checkpoint's "state_dict" is taken. key: the config key that named the file, for messages.
    Raises InputError for a file that is absent, truncated, no checkpoint, or that contains code.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{key}={path}: no such checkpoint file")
    try:
        with torch.serialization.safe_globals(_allowed()):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # zip, pickle, end-of-file and storage errors differ by where the file is cut
        raise InputError(f"{key}={path}: {_reason(path, error)}") from None
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    tensors = {k: v for k, v in state.items() if torch.is_tensor(v)} if isinstance(state, dict) else {}
    if not tensors:
        raise InputError(f"{key}={path}: holds no named tensors; give a checkpoint with a state_dict")
    return tensors


def _reason(path: Path, error: Exception) -> str:
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not even the list of names can be read
        foreign = []
    known = {name for entry in _allowed() if isinstance(entry, tuple) for name in [entry[1]]}
    foreign = sorted(name for name in foreign if name not in known and not name.startswith("numpy.dtype"))
    if foreign:
        return f"asks for code ({', '.join(foreign[:3])}), which was not run; get the checkpoint from its original source"
    return (
        f"cannot be read as a checkpoint, it is truncated or of another kind ({type(error).__name__}); "
        "compare its size with the original and download it again"
    )
