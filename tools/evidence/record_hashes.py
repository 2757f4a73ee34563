"""One hash per run folder of everything in its records that a computation decides: numbers and arrays, not times.

    bash tools/evidence/small_runs.sh /tmp/before && python tools/evidence/record_hashes.py /tmp/before/* > /tmp/before.txt
    ... change the structure of the code, run the same into /tmp/after on the same machine ...
    diff /tmp/before.txt /tmp/after.txt

What a later program adds to each record can be left out, block and arrays alike: --without summary --without r_factor.

Left out: seconds, peak memory, the device's name, commit, versions, digests, overrides. The fingerprint is in, so equal
hashes also mean that runs made before the change resume.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.command_line import Parser, run, say
from utils.errors import InputError

TIMES = ("time_s", "chain_s", "image_s", "step_s", "compile_s", "peak_mb")  # of any block of a record
AROUND = ("device", "run", "digests")  # what a record says about where and of what it was made


def decided(value: object, without: Sequence[str] = TIMES) -> object:
    """A record without the keys that two equal computations may differ in."""
    if isinstance(value, dict):
        return {key: decided(inner, without) for key, inner in value.items() if key not in without}
    return [decided(inner, without) for inner in value] if isinstance(value, list) else value


def run_hash(folder: Path, without: Sequence[str] = ()) -> str:
    """Hash over all records of one run folder, sorted by file name; without the blocks and arrays of these names."""
    total = hashlib.sha256()
    records = sorted((folder / "records").glob("*.npz"))
    if not records:
        raise InputError(f"{folder}: holds no records; name a run folder as the run has left it")
    for path in records:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in sorted(archive.files) if name.split("_")[0] not in without}
        record = json.loads(arrays.pop("record").tobytes())
        content = decided({key: value for key, value in record.items() if key not in AROUND}, (*TIMES, *without))
        total.update(json.dumps(content, sort_keys=True).encode())
        for name, array in arrays.items():
            total.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--without", action="append", default=[], metavar="BLOCK")
    arguments = parser.parse_args()
    for folder in arguments.folders:
        say(f"{run_hash(folder, arguments.without)} {folder.name}")


if __name__ == "__main__":
    run(main)
