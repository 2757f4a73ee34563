"""Who is told how a run goes on: its callbacks, the bar of the terminal, and the file that tools/status.py reads."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from utils.callbacks.base import Callback, End, ImageDone, Run, Step
from utils.config.settings import Settings
from utils.data import TestItem
from utils.errors import one_line
from utils.records.folder import log_name
from utils.records.progress import Progress, read_progress, write_progress
from utils.records.summary import headed_table
from utils.running.making import make_own
from utils.running.ranks import Rank

log = logging.getLogger("latentdaps")

EVERY_S = 2.0  # how often the file is written, and those of other ranks are read


class Watch:
    """Of one process, which the user or torchrun has started. Entered when the folder is open; its end is the run's.

    jobs: (number of this job, of all) in a sweep. Raises InputError for a callback that cannot be built.
    """

    def __init__(self, settings: Settings, rank: Rank, jobs: tuple[int, int] | None = None) -> None:
        self.settings, self.rank, self.jobs = settings, rank, jobs
        nodes = settings.composition.nodes.get("callbacks", {})
        self.callbacks = {name: make_own(Callback, f"callbacks.{name}", node) for name, node in nodes.items()}
        self.metrics: dict[str, Any] | None = None  # at the end
        self.progress: Progress | None = None  # once it has begun
        self.written_s, self.others = float("-inf"), list[Progress]()

    def begin(self, images: Sequence[TestItem]) -> None:
        self.keep(Progress(images=len(images), steps=0))
        s = self.settings
        self._call("run_begins", Run(s.name, s.folder, s.shard, s.composition.nodes, [image.id for image in images]))

    def tell(self, event: Step | ImageDone) -> None:
        self._call("image_done" if isinstance(event, ImageDone) else "annealing_step", event)

    def keep(self, progress: Progress) -> list[Progress]:
        """Note how far this process is, now and then; returns that of all ranks, of the others as it was a moment ago."""
        self.progress, now = progress, time.monotonic()
        if not progress.steps_done:
            self.begun_s = now
        progress.seconds = now - self.begun_s
        if now - self.written_s >= EVERY_S:
            self.written_s = now
            k, n = self.settings.shard_of
            write_progress(self._log(k), progress)
            users_shards = n // self.rank.count  # rank r of R in the user's shard k/n is shard (k + n r)/(n R)
            of_other_ranks = [other for other in range(k % users_shards, n, users_shards) if other != k]
            read = [read_progress(self._log(other)) for other in of_other_ranks]
            self.others = [each for each in read if each is not None]
        return [progress, *self.others]

    def _log(self, shard: int) -> Path:
        return self.settings.folder / log_name(shard, self.settings.shard_of[1])

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        if self.progress is None:
            return
        how = "done"
        if kind is not None:
            how = "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"
        write_progress(self._log(self.settings.shard_of[0]), self.progress.model_copy(update={"state": how}))
        self._call("run_ends", End(how, self.metrics, headed_table(self.metrics) if self.metrics else []))

    def _call(self, method: str, event: Any) -> None:
        """What a callback raises costs it its place."""
        for name, callback in list(self.callbacks.items()):
            try:
                getattr(callback, method)(event)
            except (Exception, SystemExit) as error:
                del self.callbacks[name]
                log.warning("callbacks.%s: left out from now on (%s: %s)", name, method, one_line(error))
