"""Copy finished runs into evidence/, without pictures: what the tables need, a few kilobytes an image.

    python tools/evidence/keep_evidence.py results/exp0_baseline/demo_10 --to evidence/exp0_baseline

Keeps config.yaml, metrics.json, trivial.json where there is one, and the records less their arrays (measurement,
latents, pictures).
"""

import argparse
import shutil
from pathlib import Path

from utils.command_line import Parser, run
from utils.errors import InputError
from utils.paths import PROJECT
from utils.records.files import RecordError, read_record, write_record


def keep(source, target):
    """Write the stripped copy of one run folder; returns the number of images. Raises InputError."""
    if target.exists():
        raise InputError(f"{target}: exists already; remove it first, or rename the run")
    try:
        records = [read_record(path)[0] for path in sorted((source / "records").glob("*.npz"))]
    except RecordError as error:
        raise InputError(str(error)) from None
    if not records or not (source / "metrics.json").is_file():
        raise InputError(f"{source}: is no finished run (no records or no metrics.json)")
    (target / "records").mkdir(parents=True)
    for name in ("config.yaml", "metrics.json", "trivial.json"):
        if (source / name).is_file():
            shutil.copy(source / name, target / name)
    for record in records:
        write_record(target, record, {})
    return len(records)


def main():
    parser = Parser(prog="keep_evidence.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--to", type=Path, default=PROJECT / "evidence")
    args = parser.parse_args()
    for folder in args.runs:
        print(f"{args.to / folder.name}: {keep(folder, args.to / folder.name)} images")


if __name__ == "__main__":
    run(main)
