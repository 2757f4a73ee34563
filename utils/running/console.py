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
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from utils.errors import one_line, visible
from utils.records.aggregate import finite
from utils.records.summary import (
    certified,
    contenders,
    image_name,
    population,
    ratios_of_particles,
    summary_table,
    verdict_of_pick,
)
from utils.records.verdict import remarks

LONGEST_WORD = 1000  # characters: rich breaks a word into lines in the square of its length

console = Console(stderr=True)
log = logging.getLogger("latentdaps")


def setup_logging(quiet: bool = False) -> None:
    """Messages of this program to the terminal, in one place with the progress bar; `quiet` is for ranks but the first."""
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addFilter(_in_one_line)
    _replace_handlers(
        [
            RichHandler(
                console=console, show_path=False, show_time=False, markup=False, level=logging.ERROR if quiet else logging.INFO
            )
        ]
    )
    console.quiet = quiet


def _in_one_line(record: logging.LogRecord) -> bool:
    """A filter that keeps all records, with what they name (files, keys of a certificate) made visible and not too long."""
    text = visible(record.getMessage())
    record.msg = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: one_line(ValueError(word[0]), LONGEST_WORD), text)
    record.args = None
    return True


def _replace_handlers(handlers: list[logging.Handler]) -> None:
    for handler in log.handlers:  # in a sweep, those of the job before
        handler.close()
    log.handlers = handlers


def log_to(path: str | Path) -> None:
    """Also into a file of the run folder. Raises OSError if it cannot be opened."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.handleError = lambda record: None  # a full disk is reported by what writes the records
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)


@contextmanager
def progress_bar(images: int, steps: int) -> Iterator["SamplingBar"]:
    """A bar over images x annealing steps; yields a SamplingBar."""
    columns = (
        TextColumn("sampling"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[best]}"),
    )
    # the cores of an XLA device are threads beside the main one; a terminal has room for one bar
    beside = threading.current_thread() is not threading.main_thread()
    with Progress(*columns, console=console, disable=beside) as bar:
        task = bar.add_task("sampling", total=images * steps, best="")
        yield SamplingBar(bar, task, steps)


class SamplingSteps:
    """What sampling tells of its progress: `begin` before each round of a batch, `advance` after each annealing step."""

    def __init__(self, steps: int) -> None:
        self.steps, self.images, self.done = steps, 0, 0

    def move(self, advance: int = 0, more: int = 0, best: str | None = None) -> None:
        """advance: steps done; more: further ones that there are now; best: what to say of them, None: the same as before."""
        raise NotImplementedError

    def begin(self, images: Sequence[int], first: int, size: int) -> None:
        """The particles from number `first` on, `size` of them, of these images."""
        self.images, self.done = len(images), 0
        if first:
            log.info(
                "image%s %s: none of %d particles passes; %d more",
                "s" * (self.images > 1),
                ", ".join(map(str, images)),
                first,
                size,
            )
            self.move(more=self.images * self.steps)

    def advance(self, step: int, best_db: float | None, lowest_loss: float, level: str | None) -> None:
        if level is not None:
            self.move(best=f"{level}: step {step + 1}, lowest loss {lowest_loss:.4g}")
            return
        best = f"lowest loss {lowest_loss:.4g}" if best_db is None else f"best PSNR {best_db:.2f} dB"
        self.move(self.images * (step + 1 - self.done), best=best)
        self.done = step + 1


class SamplingBar(SamplingSteps):
    """The same, on a bar of the terminal."""

    def __init__(self, bar: Progress, task: TaskID, steps: int) -> None:
        super().__init__(steps)
        self.bar, self.task = bar, task

    def move(self, advance: int = 0, more: int = 0, best: str | None = None) -> None:
        if more:
            self.bar.update(self.task, total=self.bar.tasks[self.task].total + more)
        if best is not None:
            self.bar.update(self.task, advance=advance, best=best)


def pick_cell(values: Sequence[float | None], picked: int | None) -> str:
    """The label-free pick: its score where there is a truth, else its number alone."""
    if picked is None:
        return "-"
    return f"p{picked}" if values[picked] is None else f"{values[picked]:.2f} dB (p{picked})"


def ratio_cell(ratios: Sequence[float | None], picked: int | None) -> str:
    """The pick's loss as a multiple of the noise floor; a dash without a pick or without noise."""
    return "-" if picked is None or ratios[picked] is None else f"{ratios[picked]:.3f}"


def print_results(metrics: dict[str, Any], folder: str | Path) -> None:
    """The closing table: one row per image (the last 20), then the means."""
    n = contenders(metrics)
    table = Table(title=visible(f"{folder}: {metrics['metadata']['num_images']} images, {population(metrics)}"))
    modes, selection = metrics["modes"], metrics["selection"]
    blind = not any(finite(row) for row in metrics["psnr"]["sample"])
    truth = ("loss / floor of each",) if blind else ("modes", f"best of {n}", "mean")
    for name in ("image", *truth, "pick", "loss / floor", "verdict", "seconds"):
        table.add_column(name, justify="left" if name in ("modes", "verdict") else "right")
    for i in range(metrics["metadata"]["num_images"])[-20:]:
        values = modes["psnr_aligned"][i] if modes else metrics["psnr"]["sample"][i]
        picked = selection["picked"][i]
        values_known = finite(values)
        by_truth = (
            " ".join(label or "-" for label in modes["label"][i]) if modes else "-",
            f"{max(values_known):.2f} dB" if values_known else "-",
            f"{sum(values_known) / len(values_known):.2f} dB" if values_known else "-",
        )
        table.add_row(
            image_name(metrics, i),
            *((ratios_of_particles(metrics, i),) if blind else by_truth),
            pick_cell(values, picked),
            ratio_cell(metrics["loss"]["ratio"][i], picked),
            verdict_of_pick(metrics, i) or "-",
            f"{metrics['time']['per_image_s'][i]:.1f}",
        )
    means = Table(title="mean ± standard deviation over images")
    for name in ("metric", f"best of {n} (by the truth)", "mean over particles", "label-free pick"):
        means.add_column(name)
    for row in summary_table(metrics):
        means.add_row(*map(visible, row))
    shown = Console(markup=False, emoji=False)  # of a folder or a metric, [/b] is a name
    shown.print(table, means)
    for remark in remarks(metrics):
        log.warning("%s", remark)
    if modes:
        shown.print(
            f"success {sum(modes['success'])} of {len(modes['success'])} images, "
            f"both orientations on {sum(c == 2 for c in modes['coverage'])}",
            highlight=False,
        )
    if passed := certified(metrics):
        shown.print(visible(passed), highlight=False)
