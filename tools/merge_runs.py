"""Merge the run folders of several shards, or of several machines, into one.

    python tools/merge_runs.py OUT DIR [DIR ...]

OUT gets the records and samples of all DIRs and one metrics.json, eval.md and set of figures: what one process would
have written, but for times, and for files of `save_arrays`, which stay in the DIRs. OUT may be new, or a run folder of the
same configuration. The DIRs stay as they are.
Exit status: 0; 2 if something cannot be merged, in which case OUT is as it was before. A merge that was killed goes on when
the same command is given again.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.command_line import Parser, run
from utils.config.fingerprint import differences, identity
from utils.digests import Digests, other_content
from utils.errors import InputError
from utils.figures import draw_run
from utils.files import PARTIAL, write_atomically
from utils.plain_files import read_yaml
from utils.records.claim import claim_path, claimed
from utils.records.files import RecordError, read_record, record_paths
from utils.records.folder import RunFolder
from utils.records.kept import KEPT, kept_path
from utils.running import console

log = logging.getLogger("latentdaps")

CONFIG = "config.yaml"


def load(folder: Path) -> dict[int, tuple[Path, dict[str, Any], dict[str, np.ndarray]]]:
    """The readable records of one run folder, {image id: (path, record, arrays)}; damaged ones are named and left out."""
    records = {}
    for path in record_paths(folder):
        try:
            record, arrays = read_record(path)
        except RecordError as error:
            log.warning("%s; left out", error)
            continue
        records[record["image_id"]] = path, record, arrays
    if not records and kept_path(folder).is_file():
        raise InputError(f"{folder}: a finished run kept in {KEPT}; merge the run folders, which have records/")
    if not records:
        raise InputError(f"{folder}: holds no records; name run folders (<save_dir>/<name>)")
    return records


def refuse_other(first: Path, folder: Path, prints: set[str]) -> None:
    """One configuration only: raises InputError naming what differs."""
    if len(prints) == 1:
        return
    try:
        changed = differences(*(identity(read_yaml(f / CONFIG)) for f in (folder, first)))
    except Exception:  # without readable configs the fingerprints alone have to do
        changed = []
    raise InputError(
        f"{folder}: belongs to another configuration than {first}"
        f"{': ' + '; '.join(changed[:3]) if changed else ''}; merge only shards of one run"
    )


def merge(out: Path, folders: Sequence[Path]) -> dict[str, Any]:
    """Merge run folders into `out`; returns the metrics. Raises InputError before anything is written."""
    sources = [*([out] if record_paths(out) else []), *folders]
    config = next((folder / CONFIG for folder in sources if (folder / CONFIG).is_file()), None)
    if out not in sources and not free(out, config):
        raise InputError(f"{out}: is not empty and holds no records; choose another OUT")
    merged: dict[int, tuple[Path, dict[str, Any], dict[str, np.ndarray]]] = {}
    prints: set[str] = set()
    digests: Digests = {}
    for folder in sources:
        records = load(folder)
        prints |= {record["fingerprint"] for _, record, _ in records.values()}
        refuse_other(sources[0], folder, prints)
        for image_id, (path, record, arrays) in records.items():
            if other := other_content(digests, record.get("digests", {})):
                raise InputError(f"{path} was made with {other} than those before it; merge only shards of one run")
            digests |= record.get("digests", {})
            if image_id in merged and merged[image_id][1]["sha256"] != record["sha256"]:
                raise InputError(
                    f"image {image_id} is another file in {path} than in {merged[image_id][0]}; "
                    "merge only shards of one data set"
                )
            if image_id in merged:
                log.info("image %d is in several folders; kept from %s", image_id, merged[image_id][0])
            merged.setdefault(image_id, (path, record, arrays))
    fingerprint = prints.pop()
    target = RunFolder(out, fingerprint)
    with target.writing("free some space and run the same command again"), claimed(out, fingerprint, target.remove_partial):
        target.prepare()
        if config is not None and not (out / CONFIG).exists():
            write_atomically(out / CONFIG, config.read_bytes())
        for path, record, arrays in merged.values():
            if path.parent.parent != out:
                target.write(record, arrays)
    return target.aggregate()


def free(out: Path, config: Path | None) -> bool:
    """Whether `out` holds no file, or what this command left when it was killed before the first record."""
    if not out.exists():
        return True
    if not out.is_dir():
        return False
    if not any(path.is_file() and not path.name.endswith(PARTIAL) for path in out.rglob("*")):
        return True
    written = out / CONFIG
    return claim_path(out).is_file() and (
        not written.exists() or (config is not None and written.read_bytes() == config.read_bytes())
    )


def main() -> None:
    parser = Parser(prog="merge_runs.py", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the merged run folder; new, or one of the same configuration")
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="run folders, <save_dir>/<name>")
    arguments = parser.parse_args()
    console.setup_logging()
    metrics = merge(arguments.out, arguments.folders)
    draw_run(arguments.out)
    console.print_results(metrics, arguments.out)


if __name__ == "__main__":
    run(main)
