"""Copy finished runs into evidence/, without pictures: what the tables need, a few kilobytes an image.

    python tools/keep_evidence.py results/exp0_baseline/demo_10 --to evidence/exp0_baseline  # -> evidence/exp0_baseline/demo_10

Keeps config.yaml, metrics.json, trivial.json where there is one, and the records less their arrays (measurement,
latents, pictures).
"""
import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils import results  # noqa: E402
from utils.command_line import Parser, run  # noqa: E402
from utils.config import PROJECT, InputError  # noqa: E402


def keep(source, target):
    """Write the stripped copy of one run folder; returns the number of images. Raises InputError."""
    if target.exists():
        raise InputError(f"{target}: exists already; remove it first, or rename the run")
    try:
        records = [results.read_record(path)[0] for path in sorted((source / "records").glob("*.npz"))]
    except results.RecordError as error:
        raise InputError(str(error)) from None
    if not records or not (source / "metrics.json").is_file():
        raise InputError(f"{source}: is no finished run (no records or no metrics.json)")
    (target / "records").mkdir(parents=True)
    for name in ("config.yaml", "metrics.json", "trivial.json"):
        if (source / name).is_file():
            shutil.copy(source / name, target / name)
    for record in records:
        results.write_record(target, record, {})
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
