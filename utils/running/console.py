"""What the user sees in the terminal: log lines, the progress bar, the closing table."""

import logging
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from utils.callbacks.base import ImageDone, Step
from utils.errors import counted, one_line, visible
from utils.records.progress import Progress as HowFar
from utils.records.summary import aligned_columns, certified, explained, headed_table, population, seconds
from utils.records.verdict import remarks
from utils.running.watching import Watch

LONGEST_WORD = 1000  # characters: rich breaks a word into lines in the square of its length

console = Console(stderr=True)
log = logging.getLogger("latentdaps")


def setup_logging(quiet: bool = False) -> None:
    """Messages of this program to the terminal, in one place with the progress bar; `quiet` is for ranks but the first."""
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addFilter(_in_one_line)
    level = logging.ERROR if quiet else logging.INFO
    handler = RichHandler(console=console, show_path=False, show_time=False, markup=False, level=level)
    handler.setFormatter(_Brief())
    handler.addFilter(lambda record: getattr(record, "brief", None) != "")
    for before in log.handlers:  # in a sweep, those of the job before
        before.close()
    log.handlers = [handler]
    console.quiet = quiet


class _Brief(logging.Formatter):
    """What the terminal shows of a record with `extra={"brief": text}`, whose numbers are for run.log; "": nothing."""

    def format(self, record: logging.LogRecord) -> str:
        return getattr(record, "brief", None) or record.getMessage()


def _in_one_line(record: logging.LogRecord) -> bool:
    """A filter that keeps all records, with what they name (files, keys of a certificate) made visible and not too long."""
    text = visible(record.getMessage())
    record.msg = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: one_line(ValueError(word[0]), LONGEST_WORD), text)
    record.args = None
    return True


def log_to(path: str | Path) -> None:
    """Also into a file of the run folder. Raises OSError if it cannot be opened."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.handleError = lambda record: None  # a full disk is reported by what writes the records
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)


@contextmanager
def progress_bar(images: int, steps: int, watch: Watch | None = None, shown: bool = True) -> Iterator["SamplingBar"]:
    """Bars over a sweep's jobs, images, and their annealing steps; yields a SamplingBar. watch: is told all of it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[best]}"),
    )
    # the cores of an XLA device are threads beside the main one; a terminal has room for one bar
    beside = threading.current_thread() is not threading.main_thread()
    with Progress(*columns, console=console, disable=beside or not shown) as bar:
        yield SamplingBar(bar, images, steps, watch)


class SamplingSteps:
    """What sampling tells of its progress: `begin` before each round of a batch, `advance` after each annealing step."""

    def __init__(self, steps: int) -> None:
        self.steps, self.images, self.done = steps, 0, 0

    def move(self, advance: int = 0, more: int = 0, best: str | None = None, images: int = 0) -> None:
        """advance: steps done; more: further ones that there are now; best: what to say of them, None: the same as before;
        images: that are done."""
        raise NotImplementedError

    def tell(self, event: Step | ImageDone) -> None:
        """To the callbacks."""

    def begin(self, images: Sequence[int], first: int, size: int) -> None:
        """The particles from number `first` on, `size` of them, of these images."""
        self.images, self.done = len(images), 0
        if first:
            log.info(
                "image%s %s: none of %d particles passes; %d more",
                "s" if self.images > 1 else "",
                ", ".join(map(str, images)),
                first,
                size,
            )
            self.move(more=self.images * self.steps)

    def advance(self, step: Step) -> None:
        if step.level is not None:
            self.move(best=f"{step.level}: step {step.number + 1}, {step.best}")
        else:
            self.move(self.images * (step.number + 1 - self.done), best=step.best)
            self.done = step.number + 1
        self.tell(step)

    def finished(self, record: dict[str, Any], arrays: dict[str, Any]) -> None:
        """One image, whose record is written."""
        self.move(images=1)
        self.tell(ImageDone.of(record, arrays))


class SamplingBar(SamplingSteps):
    """The same, on bars of the terminal."""

    def __init__(self, bar: Progress, images: int, steps: int, watch: Watch | None = None) -> None:
        super().__init__(steps)
        self.bar, self.watch = bar, watch
        self.progress = HowFar(images=images, steps=images * steps)
        if watch is not None and watch.jobs is not None:
            bar.add_task("jobs", total=watch.jobs[1], completed=watch.jobs[0] - 1, best="")
        self.tasks = bar.add_task("images", total=images, best=""), bar.add_task("steps", total=images * steps, best="")
        self.move()

    def move(self, advance: int = 0, more: int = 0, best: str | None = None, images: int = 0) -> None:
        p = self.progress
        p.steps_done, p.steps, p.images_done = p.steps_done + advance, p.steps + more, p.images_done + images
        p.best = p.best if best is None else best
        of_all = self.watch.keep(p) if self.watch else [p]
        of_images, of_steps = self.tasks
        self.bar.update(of_images, completed=sum(q.images_done for q in of_all), total=sum(q.images for q in of_all))
        self.bar.update(of_steps, completed=sum(q.steps_done for q in of_all), total=sum(q.steps for q in of_all), best=p.best)

    def tell(self, event: Step | ImageDone) -> None:
        if self.watch is not None:
            self.watch.tell(event)


FIRST = ("PSNR, better orientation", "loss / noise floor")  # of eval.md's rows
AS_FOUND = ("SSIM", "LPIPS", "LPIPS (AlexNet)")  # bad where the picture is upside down
MOST_LINES = 9  # and one of the pictures


def summary(metrics: dict[str, Any], folder: Path) -> list[str]:
    """What the terminal says at the end of a run. What is wrong is no part of it: utils.records.verdict."""
    n, modes = metrics["metadata"]["num_images"], metrics["modes"]
    lines = [f"{folder}: {counted(n, 'image')}, {population(metrics)}, {seconds(metrics)}"]
    if modes:
        both = sum(c == 2 for c in modes["coverage"])
        lines.append(f"success {sum(modes['success'])} of {counted(n, 'image')}, both orientations on {both}")
    if passed := certified(metrics):
        lines.append(passed)
    if answer := explained(metrics):
        lines.append(answer)
    heads, *rows = headed_table(metrics)
    if modes:
        rows = [(f"{name}, as found" if name in AS_FOUND else name, *cells) for name, *cells in rows if name != "PSNR"]
    shown = sorted(rows, key=lambda row: row[0] not in (*FIRST, "PSNR"))[: MOST_LINES - len(lines) - 2]
    table = [column for column in zip(heads, *shown) if set(column[1:]) != {"–"}]  # of the truth none is known of a measurement
    lines += aligned_columns(list(zip(*table)))
    left_out = f", with {counted(len(rows) - len(shown), 'row')} more" if len(rows) > len(shown) else ""
    return [*lines, f"all of it: {folder / 'eval.md'}{left_out}"]


def print_results(metrics: dict[str, Any], folder: str | Path) -> None:
    """The summary, after a line of the log for each thing that is wrong."""
    for remark in remarks(metrics):
        log.warning("%s", remark)
    for line in summary(metrics, Path(folder)):
        print(visible(line))
