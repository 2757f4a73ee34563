"""How far a run is, from its folder alone, while it goes on or after it.

    python tools/status.py DIR            # <save_dir>/<name>, or a folder of runs
    python tools/status.py DIR --watch    # again every ten seconds

Reads the records, config.yaml and what each process notes of its progress, and changes nothing. Exit status: 0; 2 if DIR is
no run folder and has none.
"""

import re
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, Field
from rich.console import Console

from utils.command_line import Parser, run, say
from utils.data import files_in
from utils.errors import InputError, counted, one_line
from utils.paths import find
from utils.plain_files import Unreadable, read_yaml
from utils.records.aggregate import finite
from utils.records.files import RecordError, read_record, record_paths
from utils.records.folder import names_seen
from utils.records.kept import KEPT, kept_path
from utils.records.progress import SUFFIX, Progress, read_progress
from utils.records.summary import resolution

SILENT_S, SILENT_STEPS = 60.0, 20  # so many seconds, and steps' time, without a sign: the process has probably stopped


class Part(NamedTuple):
    """What one process of the run does: all of it, a shard, or a rank's share."""

    name: str  # "k/n"
    done: int  # images
    total: int  # images
    silent_s: float  # seconds since its last sign
    progress: Progress  # of its last start

    @property
    def step_s(self) -> float | None:
        """None: not known yet."""
        return self.progress.seconds / self.progress.steps_done if self.progress.steps_done else None

    @property
    def silent(self) -> bool:
        return self.step_s is not None and self.silent_s > SILENT_S + SILENT_STEPS * self.step_s

    @property
    def at_work(self) -> bool:
        return self.progress.state == "at work" and not self.silent

    @property
    def state(self) -> str:
        """In words."""
        if self.done == self.total:
            return "done"
        if self.progress.state != "at work":
            return f"{self.progress.state} {duration(self.silent_s)} ago; the same command continues"
        return f"last sign {duration(self.silent_s)} ago{'; has it stopped?' * self.silent}"


class Data(BaseModel):
    root: str
    kind: Literal["images", "measurement"] = "images"
    start_id: int = Field(ge=0)
    end_id: int | None = Field(ge=0, lt=2**31)


class Selection(BaseModel):
    """What is read of config.yaml."""

    data: Data


def read(folder: Path) -> tuple[dict[int, dict[str, Any]], int]:
    """(records by id, number of damaged files) of a run folder; nothing is moved.

    Without their arrays, which the run itself looks at when it goes on.
    """
    records, damaged = {}, 0
    for path in record_paths(folder):
        try:
            record, _ = read_record(path, wanted=())
            records[record["image_id"]] = record
        except (RecordError, FileNotFoundError):
            damaged += 1
    return records, damaged


def selection(folder: Path) -> range:
    """The ids of the images that the run's last command selected, before sharding."""
    try:
        data = read_yaml(folder / "config.yaml", Selection).data
    except (OSError, Unreadable) as error:  # damaged, or of another program
        raise InputError(f"{folder / 'config.yaml'} cannot be read ({one_line(error)})") from None
    end = data.end_id
    if end is None and (names := names_seen(folder)):
        end = len(names)
    elif end is None:
        root = find(data.root)
        if not root.exists():
            raise InputError(f"{folder}: its images in {root} cannot be counted; run this where the run is")
        end = len(files_in(root, data.kind))
    return range(data.start_id, end)


def parts_of(folder: Path, ids: range, records: Mapping[int, dict[str, Any]], now: float) -> list[Part]:
    """The processes of the newest way in which the run was divided; none of a run of an older program."""
    signs: dict[tuple[int, int], Path] = {}
    for path in folder.glob(f"run*{SUFFIX}"):
        match = re.fullmatch(r"run_shard-(\d{1,9})-of-([1-9]\d{0,8})", path.stem)
        signs[(int(match[1]), int(match[2])) if match else (0, 1)] = path
    newest = max(signs, key=lambda key: signs[key].stat().st_mtime, default=(0, 1))[1]
    parts = []
    for (k, n), path in sorted(signs.items()):
        if n == newest and (progress := read_progress(path)):
            done = sum(i in records for i in ids[k::n])
            parts.append(Part(f"{k}/{n}", done, len(ids[k::n]), now - path.stat().st_mtime, progress))
    return parts


def duration(seconds: float) -> str:
    seconds = round(seconds)
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h {seconds % 3600 // 60} min"


def best_line(records: Mapping[int, dict[str, Any]]) -> str:
    """The best particle so far, in the better orientation where the task has two."""
    best = [
        (value, r["image_id"])
        for r in records.values()
        for value in finite(r["modes"]["psnr_aligned"] if r["modes"] else r["scores"]["psnr"])
    ]
    if not best:
        return "best PSNR: none yet"
    value, image_id = max(best)
    resolved = records[image_id].get("resolved")
    return f"best PSNR {value:.2f} dB (image {image_id}{', ' + resolution(resolved) if resolved else ''})"


def describe(folder: Path, now: float | None = None) -> Iterator[str]:
    """The lines of the report."""
    now = time.time() if now is None else now
    if kept_path(folder).is_file():
        raise InputError(f"{folder}: a finished run kept in {KEPT}; name the run folder, which has records/ and logs")
    if not (folder / "config.yaml").is_file() or not (folder / "records").is_dir():
        raise InputError(f"{folder}: no run folder (config.yaml and records/ are missing); name <save_dir>/<name>")
    (records, damaged), ids = read(folder), selection(folder)
    done = [i for i in records if i in ids]
    parts = parts_of(folder, ids, records, now)
    working = [p for p in parts if p.done < p.total]
    going = [p for p in working if p.at_work]
    line = f"{folder}: {len(done)} of {counted(len(ids), 'image')} done"
    if done:
        line += f", {statistics.fmean(records[i]['time']['image_s'] for i in done):.1f} s per image"
    left_s = [(p.progress.steps - p.progress.steps_done) * p.step_s for p in going if p.step_s is not None]
    if left_s and len(left_s) == len(working):
        line += f", about {duration(max(left_s))} left"
    yield line
    if started := [p.progress for p in going if p.progress.steps]:
        done_steps, all_steps = sum(p.steps_done for p in started), sum(p.steps for p in started)
        yield f"at work: step {done_steps} of {all_steps}, {started[-1].best or '-'}"
    diverged = [
        f"image {r['image_id']} p{p}" for r in records.values() for p, gone in zip(r["particles"], r["diverged"]) if gone
    ]
    yield f"{best_line(records)}; diverged particles: {len(diverged)}{' (' + ', '.join(diverged[:5]) + ')' if diverged else ''}"
    if len(parts) > 1 or working:
        for p in parts:
            yield f"  shard {p.name}: {p.done} of {p.total}, {p.state}"
    if damaged:
        yield f"damaged records: {damaged}; the same command samples their images again"


def runs_in(folder: Path) -> list[Path]:
    """The run folders below a folder; itself where it is one, or has none."""
    if (folder / "records").is_dir():
        return [folder]
    return sorted(path.parent for path in folder.rglob("records") if (path.parent / "config.yaml").is_file()) or [folder]


def report(folder: Path) -> Iterator[str]:
    """The lines of a run, or of all below a folder, of which one that cannot be read stops no other."""
    folders = runs_in(folder)
    for run_folder in folders:
        try:
            yield from describe(run_folder)
        except InputError as error:
            if folders == [folder]:
                raise
            yield str(error)


def main() -> None:
    parser = Parser(prog="status.py", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="a run folder, <save_dir>/<name>, or a folder of runs")
    parser.add_argument("--watch", type=int, nargs="?", const=10, metavar="S", help="again every S seconds (10), until Ctrl-C")
    arguments = parser.parse_args()
    if arguments.watch is not None and arguments.watch < 1:
        raise InputError(f"--watch {arguments.watch}: give a number of seconds from 1 on")
    while True:
        lines = list(report(arguments.folder))
        if arguments.watch:
            Console().clear()
        for line in lines:
            say(line)
        if not arguments.watch:
            break
        try:
            time.sleep(arguments.watch)
        except KeyboardInterrupt:
            break


if __name__ == "__main__":
    run(main)
