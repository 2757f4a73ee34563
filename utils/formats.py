"""Arrays of numbers in the files of instruments: NumPy, HDF5 and CXI, TIFF stacks. One file is open at a time."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from utils.errors import one_line, short

if TYPE_CHECKING:
    import h5py

CXI_DATA, CXI_MASK = "entry_1/data_1/data", "entry_1/data_1/mask"  # Maia, the Coherent X-ray Imaging Data Bank, 2012
LISTED = 8  # of the datasets that a file has instead
HDF5 = (".h5", ".hdf5", ".nxs", ".cxi")
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


def read_array(path: Path, dataset: str, folders: Sequence[Path] = (), most: int = MOST) -> np.ndarray:
    """The array of a file, of any shape and type.

    dataset: path within an HDF5 or CXI file, name within a .npz of several arrays; no meaning for the others.
    folders: where the file may have its data read from others (`linked`), beside its own folder.
    most: numbers; a file may ask for any amount of memory, however small it is itself.
    Raises NoSuchDataset, TooLarge, and ValueError, in one line, for a file that cannot be read.
    """
    try:
        linked(path, dataset, folders)
        return READERS[path.suffix.lower()](path, dataset, most)
    except (NoSuchDataset, TooLarge):
        raise
    except Exception as error:  # of a damaged file each library raises kinds of its own, struct.error and zlib.error among them
        raise ValueError(one_line(error)) from None


def linked(path: Path, dataset: str, folders: Sequence[Path] = ()) -> list[Path]:
    """The other files that a dataset is read from, by external links and virtual datasets; none but of HDF5.

    folders: where they may lie, beside the folder of `path`. Raises ValueError for one elsewhere or that is not there, and for
    external raw storage: it takes any file of the machine for numbers, and so would put it into records.
    """
    if path.suffix.lower() not in HDF5:
        return []
    import h5py

    allowed = [folder.resolve() for folder in (path.parent, *folders)]
    waiting, seen, outside = [(path, dataset, 0)], set(), set()
    while waiting:
        place, name, depth = waiting.pop()
        if (place, name) in seen:
            continue
        if depth > DEEPEST:
            raise ValueError(f"{short(name)} is a link to links, more than {DEEPEST} in a row")
        seen.add((place, name))
        with h5py.File(place, "r") as file:
            found = list(_leads_to(file, name))
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


def _check_header(file: IO[bytes], most: int) -> None:
    """As _check_size, of an array in NumPy's format, from the beginning of its file."""
    version = np.lib.format.read_magic(file)
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in headers:
        raise ValueError(f"is of version {version} of NumPy's format, which has no real numbers")
    shape, _, dtype = headers[version](file)
    _check_size(shape, dtype, most)


def _numpy(path: Path, dataset: str, most: int) -> np.ndarray:
    if zipfile.is_zipfile(path):
        raise ValueError("is an archive of several arrays; a name that ends in .npz is read as one")
    with open(path, "rb") as file:
        _check_header(file, most)
        file.seek(0)
        return np.load(file, allow_pickle=False)


def _archive(path: Path, dataset: str, most: int) -> np.ndarray:
    if not zipfile.is_zipfile(path):
        raise ValueError("is no .npz archive, or not a whole one")
    with np.load(path, allow_pickle=False) as archive:
        if dataset not in archive.files and len(archive.files) != 1:
            raise NoSuchDataset(_missing(archive.files))
        name = dataset if dataset in archive.files else archive.files[0]
        with archive.zip.open(f"{name}.npy") as member:
            _check_header(member, most)
        return archive[name]


def _hdf5(path: Path, dataset: str, most: int) -> np.ndarray:
    import h5py

    with suppress(ImportError):  # it registers its filters; without it those that HDF5 brings have to do
        import hdf5plugin  # noqa: F401

    with h5py.File(path, "r") as file:
        node = file[dataset] if dataset in file else None
        if isinstance(node, h5py.Dataset):
            if node.shape is None:
                raise ValueError(f"{short(dataset)} holds nothing")
            _check_size(node.shape, node.dtype, most)
            try:
                return np.asarray(node[()])
            except OSError:
                if lacking := _lacking_filter(node):
                    raise ValueError(f"is compressed by {lacking}; pip install hdf5plugin reads it") from None
                raise
        names: list[str] = []

        def arrays(name: str, link: object) -> None:
            if isinstance(link, h5py.ExternalLink):
                names.append(f"{name} (a link to {short(link.filename)})")
            elif isinstance(link, h5py.SoftLink) or isinstance(file.get(name), h5py.Dataset):
                names.append(name)

        file.visititems_links(arrays)
        raise NoSuchDataset(_missing(names))


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


def _tiff(path: Path, dataset: str, most: int) -> np.ndarray:
    import logging

    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs what it raises, and repairs without a word in the result
    with tifffile.TiffFile(path) as file:
        shapes = {series.shape for series in file.series}  # pages written one by one are series of their own
        if len(shapes) != 1:
            raise ValueError(f"holds pictures of the shapes {sorted(shapes)}; save one stack a file")
        size = path.stat().st_size
        count = len(file.series)
        for series in file.series:
            _check_size((*[count] * (count > 1), *series.shape), series.dtype, most)
        for page in file.pages:
            _check_size(page.chunks, page.dtype, MOST)
            places = zip(getattr(page, "dataoffsets", ()), getattr(page, "databytecounts", ()))
            if any(start + count > size for start, count in places):  # each codec would say so in words of its own
                raise ValueError("ends before its last picture does")
        try:
            stack = [series.asarray() for series in file.series]
        except (ImportError, ValueError) as error:
            if isinstance(error, ImportError) or "imagecodecs" in str(error):
                kind = getattr(file.pages[0].compression, "name", "a codec")
                raise ValueError(f"is compressed by {kind}; pip install imagecodecs reads it") from None
            raise
        return np.stack(stack) if len(stack) > 1 else stack[0]


def _missing(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"has {', '.join(names[:LISTED])}{more}" if names else "has no array at all"


READERS: dict[str, Callable[[Path, str, int], np.ndarray]] = {
    ".npy": _numpy,
    ".npz": _archive,
    **dict.fromkeys(HDF5, _hdf5),
    **dict.fromkeys((".tif", ".tiff"), _tiff),
}
