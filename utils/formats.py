"""Arrays of numbers in the files of instruments: NumPy, HDF5 and CXI, TIFF stacks. One file is open at a time."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from utils.errors import one_line

CXI_DATA, CXI_MASK = "entry_1/data_1/data", "entry_1/data_1/mask"  # Maia, the Coherent X-ray Imaging Data Bank, 2012
LISTED = 8  # of the datasets that a file has instead


class NoSuchDataset(ValueError):
    """A file without the named dataset; says which ones it has."""


def read_array(path: Path, dataset: str) -> np.ndarray:
    """The array of a file, of any shape and type.

    dataset: path within an HDF5 or CXI file, name within a .npz of several arrays; no meaning for the others.
    Raises NoSuchDataset, and ValueError, in one line, for a file that cannot be read.
    """
    try:
        return READERS[path.suffix.lower()](path, dataset)
    except NoSuchDataset:
        raise
    except Exception as error:  # of a damaged file each library raises kinds of its own, struct.error and zlib.error among them
        raise ValueError(one_line(error)) from None


def _numpy(path: Path, dataset: str) -> np.ndarray:
    with open(path, "rb") as file:
        array = np.load(file, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("is an archive of several arrays; a name that ends in .npz is read as one")
        return array


def _archive(path: Path, dataset: str) -> np.ndarray:
    if not zipfile.is_zipfile(path):
        raise ValueError("is no .npz archive, or not a whole one")
    with np.load(path, allow_pickle=False) as archive:
        if dataset not in archive.files and len(archive.files) == 1:
            return archive[archive.files[0]]
        if dataset not in archive.files:
            raise NoSuchDataset(_missing(archive.files))
        return archive[dataset]


def _hdf5(path: Path, dataset: str) -> np.ndarray:
    import h5py

    with h5py.File(path, "r") as file:
        node = file[dataset] if dataset in file else None
        if isinstance(node, h5py.Dataset):
            return np.asarray(node[()])
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        raise NoSuchDataset(_missing(names))


def _tiff(path: Path, dataset: str) -> np.ndarray:
    import logging

    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs what it raises, and repairs without a word in the result
    with tifffile.TiffFile(path) as file:
        shapes = {series.shape for series in file.series}  # pages written one by one are series of their own
        if len(shapes) != 1:
            raise ValueError(f"holds pictures of the shapes {sorted(shapes)}; save one stack a file")
        size = path.stat().st_size
        for page in file.pages:
            places = zip(getattr(page, "dataoffsets", ()), getattr(page, "databytecounts", ()))
            if any(start + count > size for start, count in places):  # each codec would say so in words of its own
                raise ValueError("ends before its last picture does")
        stack = [series.asarray() for series in file.series]
        return np.stack(stack) if len(stack) > 1 else stack[0]


def _missing(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"has {', '.join(names[:LISTED])}{more}" if names else "has no array at all"


READERS: dict[str, Callable[[Path, str], np.ndarray]] = {
    ".npy": _numpy,
    ".npz": _archive,
    **dict.fromkeys((".h5", ".hdf5", ".nxs", ".cxi"), _hdf5),
    **dict.fromkeys((".tif", ".tiff"), _tiff),
}
