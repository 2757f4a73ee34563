"""What is reconstructed: images from a folder, or measurements without a truth. Choosing and checking need no torch."""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image

from utils.conventions import Convention, DataBlock
from utils.errors import InputError, Unfit, counted, few, one_line, short
from utils.formats import READERS, linked
from utils.measurements import OwnFrame, Reading, read
from utils.paths import find
from utils.pictures import READ_AS, TWELVE_BITS, in_srgb, opened_picture, read_rgb, white
from utils.stacks import count_frames

log = logging.getLogger("latentdaps")

SUFFIXES = {
    "images": (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"),
    "measurement": tuple(READERS),
}
KINDS = {"images": "PNG, JPEG, TIFF, WEBP or BMP image", "measurement": ".npy, .npz, HDF5, CXI, .mat or TIFF file"}
MOST_FILES = 2**21  # in data.root and its folders, of any kind: the largest public sets have fewer
MOST_WAYS = 16  # by which links may lead into one folder
PSEUDO = ("/proc", "/sys")  # folders without data, some of which lead back to all of the machine
REMEDIES = {  # of a file that cannot be read, by the error
    FileNotFoundError: "name one that is there",
    IsADirectoryError: "name the files in it",
    PermissionError: "make it readable",
    Unfit: "",  # it says itself what to do
}
PUT_BACK = "put it back; finished images are kept, and the same command continues"
Value = TypeVar("Value")


class Lost(InputError):
    """A file that went away or changed while a run was at work."""

    def __init__(self, line: str, image_id: int = -1) -> None:
        super().__init__(line)
        self.image_id = image_id


@dataclass(frozen=True)
class TestItem:
    """One item of the set: its position in the whole set, and its file."""

    __test__ = False  # pytest would take the name for a test

    id: int
    path: Path

    @property
    def name(self) -> str:
        """As tables, log and records call it."""
        return self.path.name

    @cached_property
    def sha256(self) -> str:
        """Of the file as it was when this was first asked, for a run at its start."""
        return self.digest()

    def digest(self) -> str:
        """SHA-256 of the file as it is now."""
        return _digest(self.path)


class TestImage(TestItem):
    """An image, from which a measurement is simulated."""

    def pixels(self, resolution: int) -> np.ndarray:
        """(3, resolution, resolution) float32 in [-1, 1], as `fitted`."""
        return fitted(read_rgb(self.path).transpose(2, 0, 1), resolution)

    def check(self) -> list[str]:
        """Raises if the file cannot be read; how it is read where that is unusual, as keys of READ_AS."""
        with opened_picture(self.path) as opened:
            if opened.format in ("TIFF", "WEBP") and (count := getattr(opened, "n_frames", 1)) > 1:
                raise Unfit(f"holds {count} pictures; save each as a file of its own")
            opened.load()
            twelve_bits = ["twelve bits"] * (white(opened) == TWELVE_BITS)
            return twelve_bits + [key for key in [in_srgb(opened)[1]] if key]


@dataclass(frozen=True)
class Measurement(TestItem):
    """A measurement from an instrument, y as a file of real numbers; there is no truth."""

    convention: Convention = Convention()
    measured_shape: tuple[int, ...] | None = None  # of what the task measures, where that is known
    own_frame: OwnFrame | None = None  # of a task that measures a spectrum

    @property
    def name(self) -> str:
        frame = self.convention.frame
        return self.path.name if frame is None else f"{self.path.name}[{frame}]"

    def read(self) -> Reading:
        """y as the operator measures it, and what the file says of itself. Raises InputError or ValueError."""
        return read(self.path, self.convention, self.measured_shape, self.own_frame)

    def values(self) -> np.ndarray:
        """y as float32, without a leading axis of length 1; NaN where not measured."""
        return self.read().y

    def digest(self) -> str:
        """Of the file and those that it links to, and of mask, support and background; of one frame of a stack that of y."""
        if isinstance(self.convention.frame, int):
            return hashlib.sha256(self.read().y.tobytes()).hexdigest()  # a stack is not read whole for each of its frames
        links = linked(self.path, self.convention.dataset, self.convention.folders)
        return _digest(self.path, *links, *self.convention.files)


@dataclass(frozen=True)
class Given(TestItem):
    """What a caller has in memory; `path` is its name alone, where it is of no file.

    y: as the operator measures it, NaN where not measured; truth: (3, side, side) float32 in [-1, 1], None: not known
    """

    y: np.ndarray
    truth: np.ndarray | None
    content: str  # SHA-256 of what it was made from

    def digest(self) -> str:
        return self.content


def fitted(rgb: np.ndarray, resolution: int) -> np.ndarray:
    """(3, H, W) float32 in [0, 1] -> (3, resolution, resolution) in [-1, 1]: shorter side resized, then centre cropped.

    As DAPS, data.py: torchvision's Resize (bilinear, antialiased) and CenterCrop on the tensor in [0, 1]; without that
    library, which is slow to import.
    """
    import torch

    image = torch.from_numpy(np.ascontiguousarray(rgb))  # (3, H, W)
    before = image.shape[1:]
    after = tuple(int(resolution * side / min(before)) for side in before)
    if after != before:
        image = torch.nn.functional.interpolate(image[None], after, mode="bilinear", antialias=True)[0]
    top, left = (round((side - resolution) / 2) for side in after)
    return (image[:, top : top + resolution, left : left + resolution] * 2 - 1).numpy()


def _digest(*files: Path) -> str:
    """SHA-256 of the files' content, one after the other."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: total)
    return total.hexdigest()


def files_in(root: Path, kind: str) -> list[Path]:
    """Those of data.kind `kind` in `root` and its folders, less hidden ones, sorted by path."""
    return sorted(file for file in _below(root) if _is_read(file, kind))


def _is_read(file: Path, kind: str) -> bool:
    return file.suffix.lower() in SUFFIXES[kind] and os.path.isfile(file)


def _below(root: Path) -> Iterator[Path]:
    """All files in `root` and its folders, linked ones too, less hidden ones; a file or an unreadable folder as itself.

    A link to a folder on the way to it ends. Raises InputError for links that lead into one folder in more than MOST_WAYS ways,
    which after a few steps would be millions, and where there are more than MOST_FILES.
    """
    ways: Counter[Path] = Counter()
    waiting, seen = list[tuple[Path, frozenset[Path]]]([(root, frozenset())]), 0
    while waiting:
        folder, above = waiting.pop()
        try:
            place = folder.resolve()
            if place in above:
                continue
            if place.is_file():
                yield folder
                continue
            entries = [] if any(place.is_relative_to(pseudo) for pseudo in PSEUDO) else list(folder.iterdir())
        except (OSError, RuntimeError):  # the latter of a link to itself
            yield folder
            continue
        ways[place] += 1
        if ways[place] > MOST_WAYS:
            raise InputError(
                f"data.root: links lead into {place} in more than {MOST_WAYS} ways ({short(str(folder))}); remove some"
            )
        if (seen := seen + len(entries)) > MOST_FILES:
            raise InputError(f"data.root={root}: holds more than {MOST_FILES} files and folders; name the folder of the set")
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if os.path.isdir(entry):  # not where the system cannot tell: without rights, or beyond its longest path
                waiting.append((entry, above | {place}))
            else:
                yield entry


class Selection(Protocol):
    """What utils.config.settings.Settings says about the items of a run."""

    @property
    def data(self) -> DataBlock: ...

    @property
    def shard_of(self) -> tuple[int, int]: ...

    @property
    def measured_shape(self) -> tuple[int, ...] | None: ...

    @property
    def own_frame(self) -> OwnFrame | None: ...

    @property
    def kept_background(self) -> float: ...


def _files(data: DataBlock) -> list[Path]:
    """Those of the whole set, less masks and the like, and less what other files of the set have their data read from."""
    files = files_in(find(data.root), data.kind)
    if data.kind != "measurement":
        return files
    convention = Convention.of(data)
    others = {file.resolve() for file in convention.files}
    for file in files:
        with suppress(OSError, ValueError):  # what is wrong with it is said when it is read
            others.update(place.resolve() for place in linked(file, convention.dataset, convention.folders))
    return [file for file in files if file.resolve() not in others]


def measurements(settings: Selection) -> list[Measurement]:
    """The whole set, as far as it can be told; what is wrong with it is said by `select_images`."""
    with suppress(InputError):
        return [item for item in whole_set(settings) if isinstance(item, Measurement)]
    return []


def whole_set(settings: Selection, files: list[Path] | None = None) -> list[TestImage] | list[Measurement]:
    """All items, numbered in their order. Raises InputError for a stack that cannot be read, whose frames are to be counted."""
    files = _files(settings.data) if files is None else files
    if settings.data.kind != "measurement":
        return [TestImage(i, file) for i, file in enumerate(files)]
    convention = replace(Convention.of(settings.data), kept_background=settings.kept_background)
    made = [Measurement(0, file, convention, settings.measured_shape, settings.own_frame) for file in files]
    if convention.frame == "all":
        counts = [(item, _readable(item, partial(count_frames, item.path, convention))) for item in made]
        made = [replace(item, convention=replace(convention, frame=i)) for item, n in counts for i in range(n)]
    return [replace(item, id=i) for i, item in enumerate(made)]


def select_images(settings: Selection) -> list[TestImage] | list[Measurement]:
    """The items of this run, sorted by path: data.start_id to data.end_id, every n-th for a shard.

    Every selected item is read once here, so that a damaged one is found before hours of sampling. What lies beside
    the set's files, and how unusual ones are read, is said in one line of the log each.
    """
    data, root = settings.data, find(settings.data.root)
    if not os.path.exists(root):
        source = "; name one that is there" if data.source.startswith("your own") else f"; get it from: {data.source}"
        raise InputError(f"data.root={data.root}: folder {root} not found{source}")
    if (place := root.resolve()) == place.parent:
        raise InputError(f"data.root={data.root}: is the whole machine; name the folder of the set")
    files = _files(data)
    base = root if root.is_dir() else root.parent
    left = sorted(str(file.relative_to(base)) for file in _below(root) if not _is_read(file, data.kind))
    beside = f"; left out: {few(left)}" if left else ""
    if not files:
        raise InputError(f"data.root={data.root}: no {KINDS[data.kind]} in {root}{beside}")
    if left:
        files_are = "1 file is" if len(left) == 1 else f"{len(left)} files are"
        log.info("data.root=%s: %s no %s%s", data.root, files_are, KINDS[data.kind], beside)
    items = whole_set(settings, files)
    end = data.end_id if data.end_id is not None else len(items)
    if end > len(items):
        raise InputError(f"data.end_id={end}: {root} has {counted(len(items), 'image')}{beside}")
    if data.start_id >= end:
        raise InputError(f"data.start_id={data.start_id}: {root} has {counted(len(items), 'image')}{beside}")
    k, n = settings.shard_of
    return _read_once(items[data.start_id : end][k::n], settings)


def items_of(settings: Selection, files: list[Path], first: int) -> list[TestImage] | list[Measurement]:
    """The items that some files are for this run, numbered from `first`; each is read once, and kept as a digest."""
    return _read_once([replace(item, id=first + item.id) for item in whole_set(settings, files)], settings)


def _read_once(chosen: Sequence[TestItem], settings: Selection) -> list[TestImage] | list[Measurement]:
    data = settings.data
    if measured := [item for item in chosen if isinstance(item, Measurement)]:
        _check(measured, Convention.of(data), data.root)
        return measured
    images = [item for item in chosen if isinstance(item, TestImage)]
    unusual = [(item.name, key) for item in images for key in _readable(item, item.check)]
    for item in images:
        _readable(item, lambda: item.sha256)
    for key, (level, text) in READ_AS.items():
        if names := [name for name, of_file in unusual if of_file == key]:
            log.log(level, "%s: %s", text, few(names))
    return images


def _check(items: Sequence[Measurement], convention: Convention, root: str) -> None:
    """Raises InputError for a measurement that cannot be read. Says in the log which further files are read."""
    units = dict[float, str]()
    for item in items:
        units.setdefault(_readable(item, item.read).unit, item.name)
        _readable(item, lambda: item.sha256)
    if len(units) > 1 and convention.quantity == "counts":
        raise InputError(
            f"data.root={root}: {' and '.join(list(units.values())[:2])} differ in the size or number of their frames, so that "
            "a count stands for another intensity in each; run them one after the other"
        )
    files = {item.path for item in items}
    others = {str(file) for path in files for file in linked(path, convention.dataset, convention.folders)}
    if others:
        log.info("data.root=%s: HDF5 files have their data read from %s", root, ", ".join(sorted(others)))


def loaded(item: TestItem, read: Callable[[], Value]) -> Value:
    """What `read` finds in an item's file when its turn has come. Raises Lost if it has gone or changed."""
    try:
        value, digest = _readable(item, read, PUT_BACK), _readable(item, item.digest, PUT_BACK)
        if digest != item.sha256:
            raise InputError(f"data.root: {item.path} has changed since the run began; {PUT_BACK}")
        return value
    except InputError as error:
        raise Lost(str(error), item.id) from None


def _readable(item: TestItem, check: Callable[[], Value], remedy: str | None = None) -> Value:
    """What `check` finds in an item's file; remedy: what to do where it cannot be read. Raises InputError."""
    try:
        return check()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)  # of a file that is not there, its name stands before
        if remedy is None:
            remedy = next((each for kind, each in REMEDIES.items() if isinstance(error, kind)), "replace or remove it")
        raise InputError(f"data.root: {item.path} cannot be read ({reason}){f'; {remedy}' if remedy else ''}") from None
