"""Arrays in files of HDF5, by links too: where they lead to, and what is wrong with them. Errors and bounds of all formats."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.errors import Unfit, few, short

if TYPE_CHECKING:
    import h5py

LISTED = 8  # of the datasets that a file has instead
HDF5 = (".h5", ".hdf5", ".nxs", ".cxi")
MATLAB = ".mat"
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


def check_size(shape: Sequence[int], dtype: np.dtype, most: int) -> None:
    """Raises TooLarge, and ValueError for values that are no numbers, whose size nothing tells."""
    if dtype.hasobject:
        raise ValueError(f"holds {dtype} values, a pickle or texts of any length, not real numbers")
    if math.prod(shape) > most or math.prod(shape) * dtype.itemsize > most * WIDEST:
        raise TooLarge(shape, most)


def named(dataset: str, names: list[str]) -> str:
    """The array that a key names, or the only one. Raises NoSuchDataset."""
    if dataset not in names and len(names) != 1:
        raise NoSuchDataset(_missing(names))
    return dataset if dataset in names else names[0]


def _missing(names: list[str]) -> str:
    return f"has {few(names, LISTED)}" if names else "has no array at all"


def linked(path: Path, dataset: str, folders: Sequence[Path] = ()) -> list[Path]:
    """The other files that a dataset is read from, by external links and virtual datasets; none but of HDF5.

    folders: where they may lie, beside the folder of `path`. Raises ValueError for one elsewhere or that is not there, and for
    external raw storage: it takes any file of the machine for numbers, and so would put it into records.
    """
    if not is_hdf5(path):
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
            targets = list(_leads_to(file, name))
            if depth and not targets and name not in file:  # HDF5 would fill in zeros
                raise ValueError(f"its data lie in {short(str(place))}, which has no dataset {short(name.strip('/'))}")
        for target, inner in targets:
            other = place if target == "." else place.parent / target
            if not any(other.resolve().is_relative_to(folder) for folder in allowed):
                outside.add(short(str(other)))
            elif not other.is_file():  # HDF5 would look elsewhere, or fill in zeros
                raise ValueError(f"its data lie in {short(str(other))}, which is no file here")
            else:
                waiting.append((other, inner, depth + 1))
    if outside:
        raise Unfit(
            f"its data lie outside the data folder, in {', '.join(sorted(outside))}; if they are yours, name their folder in "
            "data.linked_folders"
        )
    return sorted({place for place, _ in seen} - {path})


def is_hdf5(path: Path) -> bool:
    """By its name, and of MATLAB's files by what they hold: those of version 7.3 are HDF5."""
    if path.suffix.lower() != MATLAB:
        return path.suffix.lower() in HDF5
    import h5py

    return bool(h5py.is_hdf5(path))


@contextmanager
def _opened_hdf5(path: Path) -> Iterator[h5py.File]:
    """Raises Unfit for a file that another program is writing."""
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if isinstance(error, BlockingIOError) or "already open for" in str(error):
            raise Unfit(
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
        below = parts[i + 1 :]
        if isinstance(link, h5py.ExternalLink):
            yield link.filename, "/".join([link.path, *below])
            return
        if isinstance(link, h5py.SoftLink):
            yield ".", "/".join([*([] if link.path.startswith("/") else parts[:i]), link.path, *below])
            return
        node = node[part]
    if not isinstance(node, h5py.Dataset):
        return
    if node.external:
        names = ", ".join(sorted({short(name) for name, *_ in node.external}))
        raise Unfit(f"{short('/'.join(parts))} is external raw storage, in {names}; save the numbers in the file itself")
    if node.chunks:
        check_size(node.chunks, node.dtype, MOST)  # which is read whole, however little of it the dataset has
    for source in node.virtual_sources() if node.is_virtual else ():
        if "%" in source.file_name + source.dset_name:
            raise Unfit(f"{short(dataset)} names its sources by a pattern, {short(source.file_name)}; name each file")
        yield source.file_name, source.dset_name


class Reversed:
    """A dataset of HDF5 with its axes in the order in which MATLAB shows them."""

    def __init__(self, node: h5py.Dataset) -> None:
        self.node, self.shape, self.dtype = node, node.shape[::-1], node.dtype

    def __getitem__(self, index: Any) -> Any:
        return self.node[()].T if index is ... else self.node[..., index].T


@contextmanager
def stored_in_hdf5(path: Path, dataset: str) -> Iterator[h5py.Dataset | Reversed]:
    import h5py

    with suppress(ImportError):  # it registers its filters; without it those that HDF5 brings have to do
        import hdf5plugin  # noqa: F401

    with _opened_hdf5(path) as file:
        if path.suffix.lower() == MATLAB:
            dataset = named(dataset, [name for name, node in file.items() if isinstance(node, h5py.Dataset)])
        node = file[dataset] if dataset in file else None
        if not isinstance(node, h5py.Dataset):
            raise NoSuchDataset(_missing([listed for listed, _ in _arrays_in(file).values()]))
        if node.shape is None:
            raise ValueError(f"{short(dataset)} holds nothing")
        try:
            yield Reversed(node) if path.suffix.lower() == MATLAB else node
        except OSError:
            if lacking := _lacking_filter(node):
                raise Unfit(f"is compressed by {lacking}; pip install hdf5plugin reads it") from None
            raise


def _arrays_in(file: h5py.File) -> dict[str, tuple[str, int]]:
    """{name: (as an error lists it, numbers in it)} of the datasets and links; 0 for a link, and for what holds no frames."""
    import h5py

    entries: dict[str, tuple[str, int]] = {}

    def add(name: str, link: object) -> None:
        node = file.get(name) if isinstance(link, h5py.HardLink) else None
        if isinstance(node, h5py.Dataset):
            entries[name] = name, node.size if len(node.shape or ()) >= 2 and node.dtype.kind in "fiu" else 0
        elif not isinstance(link, h5py.HardLink):
            entries[name] = f"{name} (a link to {short(link.filename)})" if isinstance(link, h5py.ExternalLink) else name, 0

    file.visititems_links(add)
    return entries


def arrays_in(path: Path) -> dict[str, int]:
    """{name: numbers} of the arrays of frames in an HDF5 file, 0 for a link, which is not followed; nothing of other files."""
    if path.suffix.lower() not in HDF5:
        return {}
    with _opened_hdf5(path) as file:
        return {name: size for name, (_, size) in _arrays_in(file).items()}


def _lacking_filter(node: h5py.Dataset) -> str | None:
    """The name of the first HDF5 filter of a dataset that is not there; hdf5plugin brings most that detectors use."""
    import h5py

    properties = node.id.get_create_plist()
    for i in range(properties.get_nfilters()):
        code, _, _, name = properties.get_filter(i)
        if not h5py.h5z.filter_avail(code):
            return short(name.decode(errors="replace").partition(";")[0]) or f"filter {code}"
    return None
