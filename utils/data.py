"""What is reconstructed: images from a folder, or measurements without a truth. Choosing and checking need no torch."""

import hashlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
from PIL import Image, ImageCms, ImageOps

from utils.errors import InputError, one_line, short
from utils.formats import READERS, linked
from utils.measurements import Convention, ConventionBlock, Reading, read
from utils.paths import find

log = logging.getLogger("latentdaps")

SUFFIXES = {
    "images": (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"),
    "measurement": tuple(READERS),
}
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")  # whatever a file's name says: EPS is a program, which Pillow runs
KINDS = {"images": "PNG, JPEG, TIFF, WEBP or BMP image", "measurement": ".npy, .npz, HDF5, CXI or TIFF file"}
TWELVE_BITS = 4095
MOST_PIXELS = 2**26  # of an image, which takes 30 bytes a pixel while it is made smaller
MOST_FILES = 2**21  # in data.root and its folders, of any kind: the largest public sets have fewer
MOST_WAYS = 16  # by which links may lead into one folder
PSEUDO = ("/proc", "/sys")  # folders without data, some of which lead back to all of the machine
READ_AS = {
    "twelve bits": (logging.INFO, "16-bit grey that stays below 4096 is read as 12-bit, white at 4095"),
    "profile": (logging.INFO, "colour profiles are converted to sRGB"),
    "no profile": (logging.WARNING, "colour profiles that cannot be applied are left out, and the colours taken for sRGB"),
}
SAME = 2  # levels of 255: profiles of sRGB differ from each other by their rounding
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

    def sha256(self) -> str:
        """Of the file as it was when this was first asked, for a run at its start."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
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
        with _opened(self.path) as opened:
            if opened.format in ("TIFF", "WEBP") and (count := getattr(opened, "n_frames", 1)) > 1:
                raise ValueError(f"holds {count} pictures; save each as a file of its own")
            opened.load()
            twelve_bits = ["twelve bits"] * (white(opened) == TWELVE_BITS)
            return twelve_bits + [key for key in [in_srgb(opened)[1]] if key]


@dataclass(frozen=True)
class Measurement(TestItem):
    """A measurement from an instrument, y as a file of real numbers; there is no truth."""

    convention: Convention = Convention()
    measured_shape: tuple[int, ...] | None = None  # of what the task measures, where that is known

    def read(self) -> Reading:
        """y as the operator measures it, and what the file says of itself. Raises InputError or ValueError."""
        return read(self.path, self.convention, self.measured_shape)

    def values(self) -> np.ndarray:
        """y as float32, without a leading axis of length 1; NaN where not measured."""
        return self.read().y

    def digest(self) -> str:
        """Of the file, and of the mask's where there is one: another mask is another measurement."""
        mask = self.convention.mask_file
        return _digest(self.path) if mask is None else _digest(self.path, mask)


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
            while block := file.read(2**20):
                total.update(block)
    return total.hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image file of which nothing but its header has been read. Raises ValueError for one of more than MOST_PIXELS."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # of a limit that is higher than ours
        opened = Image.open(path, formats=FORMATS)
    with opened:
        width, height = opened.size
        if width * height > MOST_PIXELS:
            raise ValueError(f"has {width} x {height} pixels; at most {MOST_PIXELS} are read, so make it smaller")
        yield opened


def white(image: Image.Image) -> float:
    """The value that stands for white in a loaded Pillow image, a number.

    Cameras of 12 bits write files of 16: grey that stays below 4096 has its white at 4095. Raises ValueError for
    values of a range that is not known.
    """
    if image.mode != "F" and not image.mode.startswith("I"):
        return 255
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= (1 if image.mode == "F" else 65535)):
        raise ValueError(f"holds grey from {low} to {high}; integers from 0 to 65535 and fractions from 0 to 1 are read")
    return 1 if image.mode == "F" else TWELVE_BITS if high <= TWELVE_BITS else 65535


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1] of an image file of any mode.

    Turned as its EXIF says; grey is repeated and keeps its bits (see `white`); transparent parts are laid on white.
    Colours are those of its colour profile, in sRGB.
    """
    with _opened(path) as opened:
        image = ImageOps.exif_transpose(opened)
        image.load()
    image, _ = in_srgb(image)
    if image.mode == "F" or image.mode.startswith("I"):  # 16-bit grey is in Pillow "I;16" or, from some files, "I"
        grey = np.asarray(image).astype(np.float32) / white(image)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    rgb = np.asarray(image.convert("RGB"), dtype=np.float32)
    rgb /= 255
    return rgb


def in_srgb(image: Image.Image) -> tuple[Image.Image, str | None]:
    """An image as its colour profile means it, in sRGB, and the key of READ_AS; itself where the profile is that of sRGB."""
    if not (content := image.info.get("icc_profile")):
        return image, None
    if image.mode == "F" or image.mode.startswith("I"):
        return image, "no profile"
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    colours = image if image.mode in ("L", "RGB", "CMYK") else image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        to_srgb = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), colours.mode, "RGB")
        levels = np.linspace(0, 255, 18).astype(np.uint8)
        cube = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(18, -1, 3))
        if colours.mode == "RGB" and np.abs(np.asarray(to_srgb.apply(cube), int) - np.asarray(cube, int)).max() <= SAME:
            return image, None
        converted = to_srgb.apply(colours)
    except (ImageCms.PyCMSError, OSError, ValueError):  # damaged, or of another number of colours than the picture
        return image, "no profile"
    if alpha is not None:
        converted.putalpha(alpha)
    return converted, "profile"


def files_in(root: Path, kind: str, mask: Path | None = None) -> list[Path]:
    """The files of the whole set, sorted by path: those of data.kind `kind` in `root` and its folders, less hidden ones.

    mask: a file that belongs to all of them and is none of them.
    """
    return sorted(file for file in _below(root) if _is_read(file, kind) and not (mask and file.resolve() == mask.resolve()))


def _is_read(file: Path, kind: str) -> bool:
    return file.suffix.lower() in SUFFIXES[kind] and _is(file, Path.is_file)


def _is(path: Path, what: Callable[[Path], bool]) -> bool:
    """Whether a path is what `what` says; not, where the system cannot tell: without rights, or beyond its longest path."""
    try:
        return what(path)
    except OSError:
        return False


def _below(root: Path) -> Iterator[Path]:
    """All files in `root` and its folders, linked ones too, less hidden ones; a folder that cannot be read as itself.

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
            if _is(entry, Path.is_dir):
                waiting.append((entry, above | {place}))
            else:
                yield entry


def names_in_set(settings: "Selection") -> list[str]:
    """File names of the whole set; an image's id is its position here."""
    return [file.name for file in files_in(find(settings.data.root), settings.data.kind, _mask_file(settings.data))]


def _mask_file(data: "DataBlock") -> Path | None:
    return Convention.of(data).mask_file if data.kind == "measurement" else None


class DataBlock(ConventionBlock, Protocol):
    """The block `data` of the config: where the set lies, and which of its items are meant."""

    root: str
    kind: Literal["images", "measurement"]
    start_id: int
    end_id: int | None
    source: str


class Selection(Protocol):
    """What utils.config.settings.Settings says about the items of a run."""

    @property
    def data(self) -> DataBlock: ...

    @property
    def shard_of(self) -> tuple[int, int]: ...

    @property
    def measured_shape(self) -> tuple[int, ...] | None: ...


def select_images(settings: Selection) -> list[TestImage] | list[Measurement]:
    """The items of this run, sorted by path: data.start_id to data.end_id, every n-th for a shard.

    Every selected item is read once here, so that a damaged one is found before hours of sampling. What lies beside
    the set's files, and how unusual ones are read, is said in one line of the log each.
    """
    data, root = settings.data, find(settings.data.root)
    if not _is(root, Path.is_dir):
        raise InputError(f"data.root={data.root}: folder {root} not found; get it from: {data.source}")
    if (place := root.resolve()) == place.parent:
        raise InputError(f"data.root={data.root}: is the whole machine; name the folder of the set")
    files = files_in(root, data.kind, _mask_file(data))
    left = sorted(str(file.relative_to(root)) for file in _below(root) if not _is_read(file, data.kind))
    beside = f"; left out: {few(left)}" if left else ""
    if not files:
        raise InputError(f"data.root={data.root}: no {KINDS[data.kind]} in {root}{beside}")
    if left:
        log.info("data.root=%s: %d files are no %s%s", data.root, len(left), KINDS[data.kind], beside)
    end = data.end_id if data.end_id is not None else len(files)
    if end > len(files):
        raise InputError(f"data.end_id={end}: {root} has {len(files)} images{beside}")
    if data.start_id >= end:
        raise InputError(f"data.start_id={data.start_id}: {root} has {len(files)} images{beside}")
    k, n = settings.shard_of
    return items_of(settings, list(enumerate(files))[data.start_id : end][k::n])


def items_of(settings: Selection, chosen: Sequence[tuple[int, Path]]) -> list[TestImage] | list[Measurement]:
    """The items that some files, each with its number, are for this run; each is read once, and kept as a digest."""
    data = settings.data
    if data.kind == "measurement":
        convention = Convention.of(data)
        measured = [Measurement(i, file, convention, settings.measured_shape) for i, file in chosen]
        for measurement in measured:
            _readable(measurement, measurement.read)
            _readable(measurement, measurement.sha256)
        links = (_readable(item, partial(linked, item.path, convention.dataset, convention.folders)) for item in measured)
        others = {str(file) for files in links for file in files}
        if others:
            log.info("data.root=%s: HDF5 files have their data read from %s", data.root, ", ".join(sorted(others)))
        return measured
    items = [TestImage(i, file) for i, file in chosen]
    found = [(item.path.name, key) for item in items for key in _readable(item, item.check)]
    for item in items:
        _readable(item, item.sha256)
    for key, (level, text) in READ_AS.items():
        if names := [name for name, of_file in found if of_file == key]:
            log.log(level, "%s: %s", text, few(names))
    return items


def loaded(item: TestItem, read: Callable[[], Value]) -> Value:
    """What `read` finds in an item's file when its turn has come. Raises Lost if it has gone or changed."""
    try:
        value, digest = _readable(item, read, PUT_BACK), _readable(item, item.digest, PUT_BACK)
        if digest != item.sha256():
            raise InputError(f"data.root: {item.path} has changed since the run began; {PUT_BACK}")
        return value
    except InputError as error:
        raise Lost(str(error), item.id) from None


def _readable(item: TestItem, check: Callable[[], Value], remedy: str = "replace or remove it") -> Value:
    """What `check` finds in an item's file. Raises InputError."""
    try:
        return check()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)  # of a file that is not there, its name stands before
        raise InputError(f"data.root: {item.path} cannot be read ({reason}); {remedy}") from None


def few(names: list[str]) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
