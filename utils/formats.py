"""Arrays of numbers in the files of instruments: NumPy, HDF5 and CXI, MATLAB, TIFF stacks. One file is open at a time."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from utils.errors import InputError, Unfit, one_line
from utils.hdf5 import HDF5, MATLAB, MOST, NoSuchDataset, TooLarge, check_size, is_hdf5, linked, named, stored_in_hdf5

if TYPE_CHECKING:
    import tifffile

CXI_DATA, CXI_MASK = "entry_1/data_1/data", "entry_1/data_1/mask"  # Maia, the Coherent X-ray Imaging Data Bank, 2012
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
MATLAB_TYPES = {"double": "f8", "single": "f4", "logical": "?", **dict(zip(INTEGERS, INTEGERS))}


class Stored(Protocol):
    """An array in an open file: nothing of it is read before it is indexed, by a frame's number or by `...`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, index: Any) -> Any: ...


@contextmanager
def stored(path: Path, dataset: str, folders: Sequence[Path] = ()) -> Iterator[Stored]:
    """The array of a file, of any shape and type, while the file is open; `taken` reads of it.

    dataset: path within an HDF5 or CXI file, name within a .npz or .mat of several arrays; no meaning for the others.
    folders: where the file may have its data read from others (`linked`), beside its own folder.
    Raises NoSuchDataset, TooLarge, Unfit, and ValueError, in one line, for a file that cannot be read.
    """
    try:
        linked(path, dataset, folders)
        with READERS[path.suffix.lower()](path, dataset) as array:
            yield array
    except (NoSuchDataset, TooLarge, Unfit, InputError):
        raise
    except Exception as error:  # of a damaged file each library raises kinds of its own, struct.error and zlib.error among them
        raise ValueError(one_line(error)) from None


def taken(array: Stored, frame: int | None, most: int = MOST) -> np.ndarray:
    """All of an array, or its part number `frame` along the first axis, in memory.

    most: numbers; a file may ask for any amount of memory, however small it is itself. Raises TooLarge.
    """
    check_size(array.shape if frame is None else array.shape[1:], array.dtype, most)
    return np.array(array[... if frame is None else frame])


def read_array(path: Path, dataset: str, folders: Sequence[Path] = (), most: int = MOST) -> np.ndarray:
    """The whole array of a file; as `stored` and `taken` say."""
    with stored(path, dataset, folders) as array:
        return taken(array, None, most)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array in NumPy's format, from the beginning of its file."""
    version = np.lib.format.read_magic(file)
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in headers:
        raise ValueError(f"is of version {version} of NumPy's format, which has no real numbers")
    shape, _, dtype = headers[version](file)
    check_size((), dtype, MOST)
    return shape, dtype


class _Whole:
    """An array that its library reads as a whole, and only when it is asked for; or maps, which reads nothing."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, load: Callable[[], np.ndarray], mapped: bool = False) -> None:
        self.shape, self.dtype, self.load, self.mapped = shape, dtype, load, mapped

    @cached_property
    def values(self) -> np.ndarray:
        if not self.mapped:
            check_size(self.shape, self.dtype, MOST)
        return self.load()

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]


@contextmanager
def _numpy(path: Path, dataset: str) -> Iterator[Stored]:
    if zipfile.is_zipfile(path):
        raise ValueError("is an archive of several arrays; a name that ends in .npz is read as one")
    with open(path, "rb") as file:
        shape, dtype = _header(file)
        file.seek(0)
        if len(shape) < 3 or not math.prod(shape):
            yield _Whole(shape, dtype, lambda: np.load(file, allow_pickle=False))
        else:  # of a stack only the frames that are asked for
            yield _Whole(shape, dtype, lambda: np.load(path, mmap_mode="r", allow_pickle=False), mapped=True)


@contextmanager
def _archive(path: Path, dataset: str) -> Iterator[Stored]:
    if not zipfile.is_zipfile(path):
        raise ValueError("is no .npz archive, or not a whole one")
    with np.load(path, allow_pickle=False) as archive:
        name = named(dataset, archive.files)
        with archive.zip.open(f"{name}.npy") as member:
            shape, dtype = _header(member)
        yield _Whole(shape, dtype, lambda: archive[name])


def _matlab(path: Path, dataset: str) -> AbstractContextManager[Stored]:
    return stored_in_hdf5(path, dataset) if is_hdf5(path) else _matlab_5(path, dataset)


@contextmanager
def _matlab_5(path: Path, dataset: str) -> Iterator[Stored]:
    """Of the versions before 7.3. Objects and functions in them are not read, and nothing is run."""
    import scipy.io

    arrays = {
        name: (shape, np.dtype(MATLAB_TYPES[kind])) for name, shape, kind in scipy.io.whosmat(path) if kind in MATLAB_TYPES
    }
    name = named(dataset, list(arrays))
    yield _Whole(*arrays[name], lambda: scipy.io.loadmat(path, variable_names=[name])[name])


@contextmanager
def _tiff(path: Path, dataset: str) -> Iterator[Stored]:
    import logging

    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs what it raises, and repairs without a word in the result
    with tifffile.TiffFile(path) as file:
        shapes = {series.shape for series in file.series}  # pages written one by one are series of their own
        if len(shapes) != 1:
            raise Unfit(f"holds pictures of the shapes {sorted(shapes)}; save one stack a file")
        size = path.stat().st_size
        for page in file.pages:
            check_size(page.chunks, np.dtype(page.dtype), MOST)
            places = zip(getattr(page, "dataoffsets", ()), getattr(page, "databytecounts", ()))
            if any(start + count > size for start, count in places):  # each codec would say so in words of its own
                raise ValueError("ends before its last picture does")
        try:
            yield _Pages(file)
        except (ImportError, ValueError) as error:
            if isinstance(error, ImportError) or "imagecodecs" in str(error):
                kind = getattr(file.pages[0].compression, "name", "a codec")
                raise Unfit(f"is compressed by {kind}; pip install imagecodecs reads it") from None
            raise


class _Pages:
    """The pictures of a TIFF file, one after the other; a single one as itself."""

    def __init__(self, file: tifffile.TiffFile) -> None:
        self.file, self.series = file, file.series
        count, first = len(self.series), self.series[0]
        self.shape: tuple[int, ...] = (count, *first.shape) if count > 1 else first.shape
        self.dtype = np.dtype(first.dtype)

    def __getitem__(self, index: Any) -> Any:
        first = self.series[0]
        if index is not ... and len(self.series) > 1:
            return self.series[index].asarray()
        if index is not ... and len(first.pages) % self.shape[0] == 0:  # else a page holds several, as planes of colour
            each = len(first.pages) // self.shape[0]
            pages = range(index * each, (index + 1) * each)
            return self.file.asarray(series=0, key=pages).reshape(self.shape[1:])
        check_size(self.shape, self.dtype, MOST)
        whole = np.stack([series.asarray() for series in self.series]) if len(self.series) > 1 else first.asarray()
        return whole[index]


READERS: dict[str, Callable[[Path, str], AbstractContextManager[Stored]]] = {
    ".npy": _numpy,
    ".npz": _archive,
    **dict.fromkeys(HDF5, stored_in_hdf5),
    MATLAB: _matlab,
    **dict.fromkeys((".tif", ".tiff"), _tiff),
}
