"""Results as floating-point numbers, for programs that go on from them: .npy, TIFF, and CXI with how they were made.

An image's files lie in `arrays/` of the run folder: the label-free pick, and where particles agree with it their mean and
its standard deviation, each (C, H, W) float32 with 0 as black and 1 as white; C is 1 where the measurement was of the grey.
"""

import datetime
import io
import shlex
from collections.abc import Callable, Mapping
from importlib import metadata as packages
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import tifffile

from utils.files import write_atomically

FOLDER = "arrays"
CXI_VERSION = 160


def write_arrays(
    folder: Path, image: int, results: Mapping[str, np.ndarray], formats: list[str], about: Mapping[str, Any], prior: str
) -> None:
    """results: {"pick", "mean", "std"}, each (C, H, W); about: of the run, as records hold it; prior: its model.path.

    Raises OSError.
    """
    place = folder / FOLDER
    place.mkdir(exist_ok=True)

    def write(name: str, fill: Callable[[BinaryIO], None]) -> None:
        made = io.BytesIO()  # tifffile wants a file with a name, h5py one that can be read
        fill(made)
        write_atomically(place / f"{image:05d}{name}", made.getbuffer())

    if "cxi" in formats:
        write(".cxi", lambda file: fill_cxi(file, results, about, prior))
    for name, values in results.items():
        if "npy" in formats:
            write(f"_{name}.npy", lambda file: np.save(file, values.astype(np.float32)))
        if "tiff" in formats:  # one page a channel: floating-point colours in one page few programs read
            options: dict[str, Any] = {"photometric": "minisblack", "metadata": {"axes": "CYX"}}
            write(f"_{name}.tiff", lambda file: tifffile.imwrite(file, values.astype(np.float32), **options))


def fill_cxi(file: BinaryIO, results: Mapping[str, np.ndarray], about: Mapping[str, Any], prior: str) -> None:
    """CXI 1.6: entry_1/image_1, image_2, ... hold the results, each with the process that made it."""
    commit = about["git_commit"]
    process = {
        "program": "LatentDAPS particles",
        "version": packages.version("latentdaps-particles") + (f" (commit {commit})" if commit else ""),
        "command": shlex.join(["python", "posterior_sample.py", *about["overrides"]]),
        "prior": prior,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seed": str(about["seed"]),
    }
    with h5py.File(file, "w") as cxi:
        cxi["cxi_version"] = CXI_VERSION
        for i, (name, values) in enumerate(results.items(), 1):
            image = cxi.create_group(f"entry_1/image_{i}")
            image["data"] = values.astype(np.float32)
            image["title"], image["data_space"], image["data_type"] = name, "real", "density"
            for key, text in process.items():
                image[f"process_1/{key}"] = text
        cxi["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/image_1/data")
