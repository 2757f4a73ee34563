"""Keep finished runs in evidence/: what the tables need, about a kilobyte an image.

    python tools/evidence/keep_evidence.py results/exp0_baseline/demo_10 --to evidence/exp0_baseline
    python tools/evidence/keep_evidence.py results/many/* --to evidence/many --digits 5    # half the size

Of each run it keeps config.yaml, less the task's groups that it did not use, trivial.json where there is one, and in
records.jsonl.gz the records, less their arrays
(measurement, latents, pictures) and less the PSNR and loss of every annealing step. metrics.json is computed from the
records whenever it is needed; one that says otherwise is refused. The run is then called what its folder is called. A
command that was killed goes on when it is given again.
"""

import argparse
from pathlib import Path

import yaml

from utils.analysis import runs
from utils.command_line import Parser, run, say
from utils.errors import InputError
from utils.files import PARTIAL, write_atomically
from utils.paths import PROJECT
from utils.plain_files import parse_yaml
from utils.records.kept import KEPT, packed


def keep(source: Path, target: Path, digits: int | None = None) -> int:
    """Keep one finished run folder as the folder `target`; returns the number of images. Raises InputError.

    digits: as `packed` has it.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; name run folders (<save_dir>/<name>)")
    finished = runs.load(source, from_records=True)
    records = [record for record, _ in finished.records()]
    if not records:
        raise InputError(f"{source}: is no finished run (it has no records); name one with records/")
    contents = {name: (source / name).read_bytes() for name in ("config.yaml", "trivial.json") if (source / name).is_file()}
    if "config.yaml" in contents:
        contents["config.yaml"] = of_its_group(contents["config.yaml"])
    contents[KEPT] = packed(records, digits)  # last: with it the run counts as kept
    if target.exists() and not begun(target, contents):
        raise InputError(f"{target}: exists already, and holds something else; remove it first, or rename the run")
    target.mkdir(parents=True, exist_ok=True)
    for leftover in target.glob(f".*{PARTIAL}"):
        leftover.unlink()
    for name, content in contents.items():
        write_atomically(target / name, content)
    return len(records)


def begun(target: Path, contents: dict[str, bytes]) -> bool:
    """Whether a folder holds nothing but some of these {file name: content}, and what is half written: of the same command."""
    if not target.is_dir():
        return False
    finished_files = [path for path in target.iterdir() if not path.name.endswith(PARTIAL)]
    return all(path.is_file() and path.read_bytes() == contents.get(path.name) for path in finished_files)


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
        say(f"{args.to / folder.name}: {keep(folder, args.to / folder.name, args.digits)} images")


if __name__ == "__main__":
    run(main)
