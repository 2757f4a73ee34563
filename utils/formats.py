"""Arrays of numbers in the files of instruments: NumPy, HDF5 and CXI, MATLAB, TIFF stacks. One file is open at a time."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from utils.errors import InputError, one_line, short

if TYPE_CHECKING:
    import h5py
    import tifffile

CXI_DATA, CXI_MASK = "entry_1/data_1/data", "entry_1/data_1/mask"  # Maia, the Coherent X-ray Imaging Data Bank, 2012
LISTED = 8  # of the datasets that a file has instead
HDF5 = (".h5", ".hdf5", ".nxs", ".cxi")
MATLAB = ".mat"
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
MATLAB_TYPES = {"double": "f8", "single": "f4", "logical": "?", **dict(zip(INTEGERS, INTEGERS))}
DEEPEST = 16  # links that lead on to links; HDF5's own limit
MOST = 2**27  # numbers in one array, where the task does not say how many it measures
WIDEST = 16  # bytes of a number


class NoSuchDataset(ValueError):
    """A file without the named dataset; says which ones it has."""


class TooLarge(ValueError):
    """A file whose array has more numbers than are to be read; found before any of them is."""

    def __init__(self, shape: Sequence[int], most: int) -> None:
        super().__init__(f"has shape {tuple(shape)}; at most {most} numbers are read")
        self.shape = tuple(shape)


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
    Raises NoSuchDataset, TooLarge, and ValueError, in one line, for a file that cannot be read.
    """
    try:
        linked(path, dataset, folders)
        with READERS[path.suffix.lower()](path, dataset) as array:
            yield array
    except (NoSuchDataset, TooLarge, InputError):
        raise
    except Exception as error:  # of a damaged file each library raises kinds of its own, struct.error and zlib.error among them
        raise ValueError(one_line(error)) from None


def taken(array: Stored, frame: int | None, most: int = MOST) -> np.ndarray:
    """All of an array, or its part number `frame` along the first axis, in memory.

    most: numbers; a file may ask for any amount of memory, however small it is itself. Raises TooLarge.
    """
    _check_size(array.shape if frame is None else array.shape[1:], array.dtype, most)
    return np.array(array[... if frame is None else frame])


def read_array(path: Path, dataset: str, folders: Sequence[Path] = (), most: int = MOST) -> np.ndarray:
    """The whole array of a file; as `stored` and `taken` say."""
    with stored(path, dataset, folders) as array:
        return taken(array, None, most)


def linked(path: Path, dataset: str, folders: Sequence[Path] = ()) -> list[Path]:
    """The other files that a dataset is read from, by external links and virtual datasets; none but of HDF5.

    folders: where they may lie, beside the folder of `path`. Raises ValueError for one elsewhere or that is not there, and for
    external raw storage: it takes any file of the machine for numbers, and so would put it into records.
    """
    if not _is_hdf5(path):
        return []
    allowed = [folder.resolve() for folder in (path.parent, *folders)]
    waiting, seen, outside = [(path, dataset, 0)], set(), set()
    while waiting:
        place, name, depth = waiting.pop()
        if (place, name) in seen:
            continue
        if depth > DEEPEST:
            raise ValueError(f"{short(name)} is a link to links, more than {DEEPEST} in a row")
        seen.add((place, name))
        with _opened_hdf5(place) as file:
            found = list(_leads_to(file, name))
            if depth and not found and name not in file:  # HDF5 would fill in zeros
                raise ValueError(f"its data lie in {short(str(place))}, which has no dataset {short(name)}")
        for target, inner in found:
            other = place if target == "." else place.parent / target
            if not any(other.resolve().is_relative_to(folder) for folder in allowed):
                outside.add(short(str(other)))
            elif not other.is_file():  # HDF5 would look elsewhere, or fill in zeros
                raise ValueError(f"its data lie in {short(str(other))}, which is no file here")
            else:
                waiting.append((other, inner, depth + 1))
    if outside:
        raise ValueError(
            f"its data lie outside the data folder, in {', '.join(sorted(outside))}; if they are yours, name their folder in "
            "data.linked_folders"
        )
    return sorted({place for place, _ in seen} - {path})


def _is_hdf5(path: Path) -> bool:
    """By its name, and of MATLAB's files by what they hold: those of version 7.3 are HDF5."""
    if path.suffix.lower() != MATLAB:
        return path.suffix.lower() in HDF5
    import h5py

    return bool(h5py.is_hdf5(path))


@contextmanager
def _opened_hdf5(path: Path) -> Iterator[h5py.File]:
    """Raises ValueError for a file that another program is writing."""
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if isinstance(error, BlockingIOError) or "already open for" in str(error):
            raise ValueError(
                f"{short(str(path))} is locked by a program that writes it; wait until that has closed the file, or copy it"
            ) from None
        raise
    with file:
        yield file


def _leads_to(file: h5py.File, dataset: str) -> Iterator[tuple[str, str]]:
    """(file, dataset) that a name in an HDF5 file stands for, "." for the same file; none where the numbers are its own."""
    import h5py

    node: h5py.Group | h5py.Dataset = file
    parts = [part for part in dataset.split("/") if part not in ("", ".")]
    for i, part in enumerate(parts):
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            return
        rest = parts[i + 1 :]
        if isinstance(link, h5py.ExternalLink):
            yield link.filename, "/".join([link.path, *rest])
            return
        if isinstance(link, h5py.SoftLink):
            yield ".", "/".join([*([] if link.path.startswith("/") else parts[:i]), link.path, *rest])
            return
        node = node[part]
    if not isinstance(node, h5py.Dataset):
        return
    if node.external:
        names = ", ".join(sorted({short(name) for name, *_ in node.external}))
        raise ValueError(f"{short('/'.join(parts))} is external raw storage, in {names}; save the numbers in the file itself")
    if node.chunks:
        _check_size(node.chunks, node.dtype, MOST)  # which is read whole, however little of it the dataset has
    for source in node.virtual_sources() if node.is_virtual else ():
        if "%" in source.file_name + source.dset_name:
            raise ValueError(f"{short(dataset)} names its sources by a pattern, {short(source.file_name)}; name each file")
        yield source.file_name, source.dset_name


def _check_size(shape: Sequence[int], dtype: np.dtype, most: int) -> None:
    """Raises TooLarge, and ValueError for values that are no numbers, whose size nothing tells."""
    if dtype.hasobject:
        raise ValueError(f"holds {dtype} values, a pickle or texts of any length, not real numbers")
    if math.prod(shape) > most or math.prod(shape) * dtype.itemsize > most * WIDEST:
        raise TooLarge(shape, most)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array in NumPy's format, from the beginning of its file."""
    version = np.lib.format.read_magic(file)
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in headers:
        raise ValueError(f"is of version {version} of NumPy's format, which has no real numbers")
    shape, _, dtype = headers[version](file)
    _check_size((), dtype, MOST)
    return shape, dtype


class _Whole:
    """An array that its library reads as a whole, and only when it is asked for."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, load: Callable[[], np.ndarray]) -> None:
        self.shape, self.dtype, self.load = shape, dtype, load

    @cached_property
    def values(self) -> np.ndarray:
        _check_size(self.shape, self.dtype, MOST)
        return self.load()

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]


class _Reversed:
    """A dataset of HDF5 with its axes in the order in which MATLAB shows them."""

    def __init__(self, node: h5py.Dataset) -> None:
        self.node, self.shape, self.dtype = node, node.shape[::-1], node.dtype

    def __getitem__(self, index: Any) -> Any:
        return self.node[()].T if index is ... else self.node[..., index].T


@contextmanager
def _numpy(path: Path, dataset: str) -> Iterator[Stored]:
    if zipfile.is_zipfile(path):
        raise ValueError("is an archive of several arrays; a name that ends in .npz is read as one")
    with open(path, "rb") as file:
        shape, dtype = _header(file)
        file.seek(0)
        if len(shape) < 3:
            yield _Whole(shape, dtype, lambda: np.load(file, allow_pickle=False))
        else:  # of a stack only the frames that are asked for
            yield np.load(path, mmap_mode="r" if math.prod(shape) else None, allow_pickle=False)


@contextmanager
def _archive(path: Path, dataset: str) -> Iterator[Stored]:
    if not zipfile.is_zipfile(path):
        raise ValueError("is no .npz archive, or not a whole one")
    with np.load(path, allow_pickle=False) as archive:
        name = _named(dataset, archive.files)
        with archive.zip.open(f"{name}.npy") as member:
            shape, dtype = _header(member)
        yield _Whole(shape, dtype, lambda: archive[name])


@contextmanager
def _hdf5(path: Path, dataset: str) -> Iterator[Stored]:
    import h5py

    with suppress(ImportError):  # it registers its filters; without it those that HDF5 brings have to do
        import hdf5plugin  # noqa: F401

    with _opened_hdf5(path) as file:
        if path.suffix.lower() == MATLAB:
            dataset = _named(dataset, [name for name, node in file.items() if isinstance(node, h5py.Dataset)])
        node = file[dataset] if dataset in file else None
        if not isinstance(node, h5py.Dataset):
            raise NoSuchDataset(_missing(_arrays_in(file)))
        if node.shape is None:
            raise ValueError(f"{short(dataset)} holds nothing")
        try:
            yield _Reversed(node) if path.suffix.lower() == MATLAB else node
        except OSError:
            if lacking := _lacking_filter(node):
                raise ValueError(f"is compressed by {lacking}; pip install hdf5plugin reads it") from None
            raise


def _arrays_in(file: h5py.File) -> list[str]:
    """The names of the datasets and links in an HDF5 file."""
    import h5py

    names: list[str] = []

    def add(name: str, link: object) -> None:
        if isinstance(link, h5py.ExternalLink):
            names.append(f"{name} (a link to {short(link.filename)})")
        elif isinstance(link, h5py.SoftLink) or isinstance(file.get(name), h5py.Dataset):
            names.append(name)

    file.visititems_links(add)
    return names


def _matlab(path: Path, dataset: str) -> AbstractContextManager[Stored]:
    return _hdf5(path, dataset) if _is_hdf5(path) else _matlab_5(path, dataset)


@contextmanager
def _matlab_5(path: Path, dataset: str) -> Iterator[Stored]:
    """Of the versions before 7.3. Objects and functions in them are not read, and nothing is run."""
    import scipy.io

    arrays = {
        name: (shape, np.dtype(MATLAB_TYPES[kind])) for name, shape, kind in scipy.io.whosmat(path) if kind in MATLAB_TYPES
    }
    name = _named(dataset, list(arrays))
    yield _Whole(*arrays[name], lambda: scipy.io.loadmat(path, variable_names=[name])[name])


def _named(dataset: str, names: list[str]) -> str:
    """The array that a key names, or the only one. Raises NoSuchDataset."""
    if dataset not in names and len(names) != 1:
        raise NoSuchDataset(_missing(names))
    return dataset if dataset in names else names[0]


def _lacking_filter(node: h5py.Dataset) -> str | None:
    """The name of the first HDF5 filter of a dataset that is not there; hdf5plugin brings most that detectors use."""
    import h5py

    properties = node.id.get_create_plist()
    filters = [properties.get_filter(i) for i in range(properties.get_nfilters())]
    return next(
        (
            short(name.decode(errors="replace").partition(";")[0]) or f"filter {code}"
            for code, _, _, name in filters
            if not h5py.h5z.filter_avail(code)
        ),
        None,
    )


@contextmanager
def _tiff(path: Path, dataset: str) -> Iterator[Stored]:
    import logging

    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs what it raises, and repairs without a word in the result
    with tifffile.TiffFile(path) as file:
        shapes = {series.shape for series in file.series}  # pages written one by one are series of their own
        if len(shapes) != 1:
            raise ValueError(f"holds pictures of the shapes {sorted(shapes)}; save one stack a file")
        size = path.stat().st_size
        for page in file.pages:
            _check_size(page.chunks, np.dtype(page.dtype), MOST)
            places = zip(getattr(page, "dataoffsets", ()), getattr(page, "databytecounts", ()))
            if any(start + count > size for start, count in places):  # each codec would say so in words of its own
                raise ValueError("ends before its last picture does")
        try:
            yield _Pages(file)
        except (ImportError, ValueError) as error:
            if isinstance(error, ImportError) or "imagecodecs" in str(error):
                kind = getattr(file.pages[0].compression, "name", "a codec")
                raise ValueError(f"is compressed by {kind}; pip install imagecodecs reads it") from None
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
        if index is not ... and len(first.pages) == len(first):
            return self.file.asarray(series=0, key=index)
        _check_size(self.shape, self.dtype, MOST)
        whole = np.stack([series.asarray() for series in self.series]) if len(self.series) > 1 else first.asarray()
        return whole[index]


def _missing(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"has {', '.join(names[:LISTED])}{more}" if names else "has no array at all"


READERS: dict[str, Callable[[Path, str], AbstractContextManager[Stored]]] = {
    ".npy": _numpy,
    ".npz": _archive,
    **dict.fromkeys(HDF5, _hdf5),
    MATLAB: _matlab,
    **dict.fromkeys((".tif", ".tiff"), _tiff),
}
