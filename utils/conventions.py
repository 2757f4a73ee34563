"""How the numbers of measurements' files are meant, as the block `data` of the config says it."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, Protocol, Self

from utils.formats import CXI_DATA
from utils.paths import find

Mask = str | float | list[str | float] | None
Support = str | int | list[int] | None
AUTO = "auto"
WORDS = ("nan", "max")
OF_A_SPECTRUM = ("quantity", "gain", "center", "norm", "channels", "scale", "support", "background", "bin", "crop")  # keys


class DataBlock(Protocol):
    """The block `data`: where the set lies, which items are meant, and the fields of Convention but its last two."""

    root: str
    kind: Literal["images", "measurement"]
    start_id: int
    end_id: int | None
    source: str
    linked_folders: list[str]
    crop: int | list[int] | None


@dataclass(frozen=True)
class Convention:
    """The keys of configs/data/measurement.yaml, which says what they hold; by default, what the operators measure.

    A `center` of auto is taken for shifted until it is found.

    folders: where other files may lie that an HDF5 file has its data read from
    crop:    (rows, columns)
    kept_background: counts per pixel of y that the likelihood has and that are not taken off
    """

    dataset: str = CXI_DATA
    mask_dataset: str | None = None
    quantity: str = "magnitude"
    gain: float | None = None
    center: str | list[float] = "shifted"
    norm: str = "ortho"
    channels: int | None = None
    mask: Mask = None
    scale: str = "known"
    support: Support = None
    frame: int | str | None = None
    crop: tuple[int, int] | None = None
    bin: int = 1
    background: float | str | None = None
    transpose: bool = False
    folders: tuple[Path, ...] = ()
    kept_background: float = 0.0

    @classmethod
    def of(cls, data: DataBlock) -> Self:
        keys = {
            field.name: getattr(data, field.name) for field in fields(cls) if field.name not in ("folders", "kept_background")
        }
        if data.crop is not None:
            keys["crop"] = (data.crop, data.crop) if isinstance(data.crop, int) else tuple(data.crop)
        root = find(data.root)
        folders = (root.parent if root.is_file() else root, *map(find, data.linked_folders))
        return cls(**keys, folders=folders)

    @property
    def mask_values(self) -> list[str | float]:
        """The values of y that mean "not measured"."""
        if self.mask is None or self.mask_file:
            return []
        return self.mask if isinstance(self.mask, list) else [self.mask]

    @property
    def mask_file(self) -> Path | None:
        return find(self.mask) if isinstance(self.mask, str) and self.mask not in WORDS else None

    @property
    def support_file(self) -> Path | None:
        return find(self.support) if isinstance(self.support, str) and self.support != AUTO else None

    @property
    def background_file(self) -> Path | None:
        return find(self.background) if isinstance(self.background, str) and self.background != AUTO else None

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that belong to every measurement."""
        return tuple(file for file in (self.mask_file, self.support_file, self.background_file) if file is not None)
