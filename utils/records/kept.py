"""Records of finished runs, in either form: one file per image as a run writes them, or all in one that is kept.

    GROUP/RUN/config.yaml
    GROUP/RUN/records.jsonl.gz    one line of JSON per image, by image id; about a kilobyte an image

A kept record has no arrays and, of its trace, neither psnr nor loss, which only a run's own pictures show. metrics.json is
not kept: it is a function of the records, and the run is called what its folder is called. Where many runs are kept, what
the mechanisms measured on the way can be rounded: it is half of a record's bytes, and tables show fewer digits of it.
"""

import gzip
import io
import json
import zlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from utils.mechanisms.registry import IN_RECORDS
from utils.plain_files import Unreadable, parse_json
from utils.records.files import (
    MOST_RATIO,
    UNPACKED,
    RecordAndArrays,
    RecordError,
    clean,
    is_short_of_memory,
    out_of_memory,
    read_record,
    record_paths,
)
from utils.records.record import problem, refuse_newer

KEPT = "records.jsonl.gz"
MOST_LINE = 2**24  # bytes of one record
DROPPED = ("psnr", "loss")  # of a record's trace
# blocks of what was measured on the way, of which tables show fewer digits
ROUNDED = ("trace", "time", *(plan.block for plan in IN_RECORDS if plan.rounded))
REMEDY = "keep the run again with tools/evidence/keep_evidence.py"


def kept_path(folder: str | Path) -> Path:
    return Path(folder) / KEPT


def read_records(
    folder: str | Path, images: Collection[int] | None = None, wanted: Collection[str] | None = None
) -> Iterator[RecordAndArrays]:
    """Yields (record, arrays) of a run folder by image id, arrays empty where they were not kept.

    images: only those of these ids that are there; wanted: names of arrays, as of `read_record`. Raises RecordError for a
    damaged file, OSError for one that cannot be opened.
    """
    paths = record_paths(folder)
    if not paths and kept_path(folder).is_file():
        for record in read_kept(kept_path(folder)):
            if images is None or record["image_id"] in images:
                yield record, {}
        return
    chosen = None if images is None else set(images)
    for path in paths:
        if chosen is None or int(path.stem) in chosen:
            yield read_record(path, wanted)


def packed(records: Iterable[dict[str, Any]], digits: int | None = None) -> bytes:
    """The content of records.jsonl.gz; equal records give equal bytes.

    digits: significant ones of the blocks in ROUNDED, None all.
    """
    lines = [
        json.dumps(clean(_compact(record, digits)), separators=(",", ":"), allow_nan=False) + "\n"
        for record in sorted(records, key=lambda record: record["image_id"])
    ]
    content = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=content, mtime=0) as file:
        file.write("".join(lines).encode())
    return content.getvalue()


def _compact(record: dict[str, Any], digits: int | None) -> dict[str, Any]:
    record = {**record, "trace": {key: value for key, value in record["trace"].items() if key not in DROPPED}}
    if digits is None:
        return record
    return {key: _rounded(value, digits) if key in ROUNDED else value for key, value in record.items()}


def _rounded(value: Any, digits: int) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each, digits) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(each, digits) for each in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def read_kept(path: str | Path) -> list[dict[str, Any]]:
    """The records of one records.jsonl.gz, by image id. Raises as `read_record`, naming the line."""
    records: dict[int, dict[str, Any]] = {}
    lines: dict[int, int] = {}
    for number, line in enumerate(_lines(path), start=1):
        try:
            record = parse_json(line)
        except Unreadable as error:
            raise RecordError(f"{path}: line {number}: {error}; {REMEDY}") from None
        refuse_newer(record, f"{path}: line {number}")
        wrong = problem(record, {})
        if wrong:
            raise RecordError(f"{path}: line {number}: damaged record ({wrong}); {REMEDY}")
        image = record["image_id"]
        if image in records:
            raise RecordError(f"{path}: line {number}: image {image} stands in line {lines[image]} already; {REMEDY}")
        records[image], lines[image] = record, number
    if not records:
        raise RecordError(f"{path}: line 1: holds no record; {REMEDY}")
    return [records[image] for image in sorted(records)]


def _lines(path: str | Path) -> Iterator[bytes]:
    """The lines of a gzip file, as bytes. Raises RecordError where it is damaged, or unpacks to more than records do."""
    done, left = 0, UNPACKED + MOST_RATIO * Path(path).stat().st_size
    try:
        with gzip.open(path) as file:
            while line := file.readline(MOST_LINE + 1):
                left -= len(line)
                if len(line) > MOST_LINE or left < 0:
                    raise RecordError(f"{path}: line {done + 1}: unpacks to far more than a record; {REMEDY}")
                yield line
                done += 1
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        if is_short_of_memory(error):
            raise out_of_memory(path) from None
        raise RecordError(f"{path}: damaged after line {done} ({error}); {REMEDY}") from None
