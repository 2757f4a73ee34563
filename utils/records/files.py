"""Record files, one per image: written in one step, read with checks."""

import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from utils.files import write_atomically
from utils.records.record import problem

RecordAndArrays = tuple[dict[str, Any], dict[str, np.ndarray]]


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


def read_record(path: str | Path) -> RecordAndArrays:
    """(record, arrays) of one file. Raises RecordError for a damaged one, OSError for one that cannot be opened."""
    path = Path(path)
    if path.is_dir():
        raise RecordError(f"{path}: damaged record (a folder)")
    content = path.read_bytes()
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        record = json.loads(arrays.pop("record").tobytes())
        wrong = problem(record, arrays)
    except Exception as error:  # a damaged archive can fail in many ways
        raise RecordError(f"{path}: damaged record ({type(error).__name__})") from None
    if wrong:
        raise RecordError(f"{path}: damaged record ({wrong})")
    if path.name != record_path("", record["image_id"]).name:
        raise RecordError(f"{path}: damaged record (it is image {record['image_id']})")
    return record, arrays
