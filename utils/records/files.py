"""Record files, one per image: written in one step, read with checks."""

import errno
import io
import json
import math
import os
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import InputError
from utils.files import write_atomically
from utils.plain_files import Unreadable, open_regular, parse_json
from utils.records.record import ArrayType, not_finite, problem, refuse_newer

RecordAndArrays = tuple[dict[str, Any], dict[str, np.ndarray]]

# numbers that were measured or sampled are noise in their last digits and hardly shrink
MOST_BYTES = 2**32  # of a file
UNPACKED, MOST_RATIO = 2**26, 100  # bytes that it unpacks to: so many, and so many times its own
MOST_RECORD = 2**26  # bytes of the part that is JSON
BEFORE_HEADER = 10  # bytes of a .npy file; the last two are the length of its header


def clean(value: Any) -> Any:
    """Plain JSON: tuples to lists, NaN and infinities to None."""
    if isinstance(value, dict):
        return {key: clean(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_json(value: Any) -> bytes:
    return json.dumps(clean(value), indent=1, allow_nan=False).encode()


class RecordError(Exception):
    """A record file that is damaged or not ours."""


def record_path(folder: str | Path, image_id: int) -> Path:
    return Path(folder) / "records" / f"{image_id:05d}.npz"


def record_paths(folder: str | Path) -> list[Path]:
    """Paths of the record files of a run folder, by image id. Other files there are not ours to read or to set aside."""
    paths = (path for path in (Path(folder) / "records").glob("*.npz") if re.fullmatch("[0-9]{5,}", path.stem))
    return sorted(paths, key=lambda path: (len(path.name), path.name))  # from image 100000 on names are longer


def write_record(folder: str | Path, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write one image's record: `record` is plain data, `arrays` are y, z, images (uint8), truth (uint8)."""
    packed = io.BytesIO()  # a full disk then fails in one plain write instead of inside the archive
    np.savez_compressed(packed, record=np.frombuffer(to_json(record), np.uint8), **arrays)  # type: ignore[arg-type]  # numpy: any name is allow_pickle
    write_atomically(record_path(folder, record["image_id"]), packed.getbuffer())


def read_record(path: str | Path, wanted: Collection[str] | None = None) -> RecordAndArrays:
    """(record, arrays) of one file, with those arrays alone that are `wanted`; None: with all.

    Of the others only type and shape are looked at: they are most of a file, and take most of the time.

    Raises RecordError for a damaged one; OSError for one that cannot be opened, or for which memory is short; InputError for
    one that a newer program wrote.
    """
    path = Path(path)
    with _opened(path) as (archive, members):
        described = {name: _described(archive, entry) for name, entry in members.items()}
        if members["record"].file_size > MOST_RECORD:
            raise RecordError("its JSON is far longer than a record")
        record = parse_json(_array(archive, members.pop("record")).tobytes())
        refuse_newer(record, str(path))
        del described["record"]
        if wrong := problem(record, described):
            raise RecordError(wrong)
        arrays = {name: _array(archive, entry) for name, entry in members.items() if wanted is None or name in wanted}
        if wrong := not_finite(record, arrays):
            raise RecordError(wrong)
    if path.name != record_path("", record["image_id"]).name:
        raise RecordError(f"{path}: damaged record (it is image {record['image_id']})")
    return record, arrays


def read_array(path: str | Path, name: str) -> np.ndarray | None:
    """One array of a record file, None where it has none of that name; the record itself is not looked at, which takes most
    of the time. Raises as `read_record`."""
    with _opened(Path(path)) as (archive, members):
        return _array(archive, members[name]) if name in members else None


@contextmanager
def _opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """(the open file, what it holds by name). Inside, whatever a damaged file can cause becomes a RecordError.

    What it says of its size is compared before anything of that size is read.
    """
    if path.is_dir():
        raise RecordError(f"{path}: damaged record (a folder)")
    try:
        with open_regular(path, MOST_BYTES) as (file, size), zipfile.ZipFile(file) as archive:
            members = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            if sum(entry.file_size for entry in members.values()) > UNPACKED + MOST_RATIO * size:
                raise RecordError("it unpacks to far more than numbers do")
            yield archive, members
    except RecordError as error:
        raise RecordError(f"{path}: damaged record ({error})") from None
    except InputError:
        raise
    except Exception as error:  # a damaged archive can fail in many ways
        # one that points before its own beginning asks for what the system calls invalid
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        if is_short_of_memory(error):
            raise out_of_memory(path) from None
        reason = error if isinstance(error, Unreadable) else type(error).__name__
        raise RecordError(f"{path}: damaged record ({reason})") from None


def is_short_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (isinstance(error, zlib.error) and str(error).startswith("Error -4 "))


def out_of_memory(path: str | Path) -> OSError:
    """As of any other trouble with a file, which leaves what it holds in doubt for nobody."""
    return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), str(path))


def _described(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> ArrayType:
    """Type and shape of an array of an archive. Raises RecordError where its numbers are not as many as those say."""
    with archive.open(entry) as file:
        start = file.read(BEFORE_HEADER)
        header = start + file.read(int.from_bytes(start[-2:], "little"))
    described = _of_header(header)
    if len(header) + math.prod(described.shape) * described.dtype.itemsize != entry.file_size:
        raise RecordError(f"array {entry.filename} is not as large as its shape {described.shape}")
    return described


@lru_cache(maxsize=256)  # those of a run's records are a handful
def _of_header(header: bytes) -> ArrayType:
    file = io.BytesIO(header)
    if np.lib.format.read_magic(file) != (1, 0):  # later ones are of arrays that no record holds
        raise RecordError("an array's header is of another version")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return ArrayType(dtype, shape)


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(entry) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
