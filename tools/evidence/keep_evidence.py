"""Keep finished runs in evidence/: what the tables need, about a kilobyte an image.

    python tools/evidence/keep_evidence.py results/exp0_baseline/demo_10 --to evidence/exp0_baseline
    python tools/evidence/keep_evidence.py results/many/* --to evidence/many --digits 5    # half the size

Of each run it keeps config.yaml, less the task's groups that it did not use, trivial.json where there is one, and in
records.jsonl.gz the records, less their arrays
(measurement, latents, pictures) and less the PSNR and loss of every annealing step. metrics.json is computed from the
records whenever it is needed; one that says otherwise is refused. The run is then called what its folder is called.
"""

import argparse
from pathlib import Path

import yaml

from utils.analysis import runs
from utils.command_line import Parser, run
from utils.errors import InputError
from utils.paths import PROJECT
from utils.plain_files import parse_yaml
from utils.records.files import write_atomically
from utils.records.kept import write_kept


def keep(source: Path, target: Path, digits: int | None = None) -> int:
    """Keep one finished run folder as the folder `target`; returns the number of images. Raises InputError.

    digits: as `write_kept` has it.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; name run folders (<save_dir>/<name>)")
    if target.exists():
        raise InputError(f"{target}: exists already; remove it first, or rename the run")
    finished = runs.load(source, from_records=True)
    records = [record for record, _ in finished.records()]
    if not records:
        raise InputError(f"{source}: is no finished run (it has no records); name one with records/")
    others = {name: (source / name).read_bytes() for name in ("config.yaml", "trivial.json") if (source / name).is_file()}
    if "config.yaml" in others:
        others["config.yaml"] = of_its_group(others["config.yaml"])
    target.mkdir(parents=True)
    for name, content in others.items():
        write_atomically(target / name, lambda file: file.write(content))
    write_kept(target, records, digits)  # last: with it the run counts as kept
    return len(records)


def of_its_group(config: bytes) -> bytes:
    """A config without the task's groups that it does not select; as it is where it says no group."""
    nodes = parse_yaml(config)
    groups, chosen = nodes.get("task"), nodes.get("task_group")
    if not isinstance(groups, dict) or not isinstance(chosen, str) or chosen not in groups:
        return config
    return yaml.safe_dump({**nodes, "task": {chosen: groups[chosen]}}, sort_keys=False, allow_unicode=True).encode()


def main() -> None:
    parser = Parser(prog="keep_evidence.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--to", type=Path, default=PROJECT / "evidence")
    parser.add_argument(
        "--digits", type=int, help="significant digits of the trace and of the exchange's scores; all else stays exact"
    )
    args = parser.parse_args()
    if args.digits is not None and not 3 <= args.digits <= 17:
        raise InputError(f"--digits {args.digits}: must be 3 to 17")
    for folder in args.runs:
        print(f"{args.to / folder.name}: {keep(folder, args.to / folder.name, args.digits)} images")


if __name__ == "__main__":
    run(main)
