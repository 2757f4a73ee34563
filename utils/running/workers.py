"""The images of a run shared among processes of this machine: each takes the next batch when it is done with one.

The process that the user started reads no torch: it hands out batches, shows what the workers tell, and ends them all with the
first error. Workers write their images' records themselves, as shards and ranks do.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from utils import device as devices
from utils.callbacks.base import ImageDone, Step
from utils.config.settings import Settings
from utils.data import TestItem
from utils.errors import InputError, counted
from utils.priors import library
from utils.records.claim import claimed
from utils.records.folder import RunFolder
from utils.running import console
from utils.running.interrupts import held_back, let_through, signals_interrupt, uninterrupted
from utils.running.ranks import Rank
from utils.running.threads import count_of, threads_of
from utils.running.watching import Watch

MEMORY = 1.5 * 2**30  # bytes that a worker of a small model takes with its libraries, with a margin
GRACE_S = 10.0  # for the workers to end, before they are killed


def workers_of(settings: Settings, images: int, rank: Rank) -> int:
    """How many processes share so many images, 1: this one does it all. Says in the log what `auto` chose, and why.

    auto: as many as there are batches, cores and memory for, where a pass is small; a run that is divided by shards or
    torchrun already, and one on another device than the CPU, is left as it is.
    """
    per_batch = 1 if settings.batch_images == "auto" else settings.batch_images
    batches = -(-images // per_batch)
    if settings.workers != "auto":
        return min(settings.workers, batches)
    threads, cores = threads_of(settings), devices.usable_cores()
    each, free = count_of(threads, cores), devices.usable_memory()
    rooms = {
        f"{counted(batches, 'batch', 'es')} of images": batches,
        counted(cores, "core"): max(1, cores // each),
        f"{free / 2**30:.1f} GB of free memory": max(1, int(free / MEMORY)),
    }
    why, count = threads.why, 1
    if rank.count > 1 or settings.shard_of[1] > 1:
        why = f"the run is divided already; {why}"
    elif settings.compile and threads.small:
        why = f"each process would compile anew; {why}"
    elif threads.small:
        tightest = min(rooms, key=lambda room: rooms[room])
        count, why = rooms[tightest], f"{tightest}; {why}"
    of_threads = "" if threads.small is None and threads.count is None else f", {counted(each, 'thread')} each"
    processes = counted(count, "process", "es")
    brief = {"brief": f"workers=auto: {processes}" if count > 1 else ""}
    console.log.info("workers=auto: %s%s (%s)", processes, of_threads, why, extra=brief)
    return count


class Worker(NamedTuple):
    number: int
    process: BaseProcess
    connection: Connection


def sample_in_workers(
    settings: Settings, images: Sequence[TestItem], folder: RunFolder, count: int, watch: Watch | None = None
) -> None:
    """Sample the images in `count` processes; watch: is told of all of them.

    Raises InputError, utils.device.CoreFailure for another error in a worker, or KeyboardInterrupt, all after every worker
    has ended.
    """
    context = multiprocessing.get_context("spawn")  # a fork would share the libraries' threads and locks
    workers: list[Worker] = []
    level = console.log.getEffectiveLevel()
    with ExitStack() as stack:
        stack.callback(end, workers)
        for number in range(count):
            ours, theirs = context.Pipe()
            turn = Turn(number, count, theirs, level, bool(settings.callbacks))
            process = context.Process(target=work, args=(turn, settings, images, folder), daemon=True)
            workers.append(Worker(number, process, ours))
            with held_back():
                process.start()
            theirs.close()
        serve(workers, images, stack, watch)


def serve(workers: Sequence[Worker], images: Sequence[TestItem], stack: ExitStack, watch: Watch | None = None) -> None:
    """Hand out the images and show what is told, until every worker is done."""
    remaining, working = list(images), {worker.connection: worker for worker in workers}
    checked, asking = False, list[tuple[Connection, int]]()
    bar: console.SamplingBar | None = None
    while working:
        for connection in wait(list(working)):
            assert isinstance(connection, Connection)
            worker = working[connection]
            try:
                kind, *values = connection.recv()
            except (EOFError, OSError):
                raise lost(worker, len(workers)) from None
            if kind == "refused":
                raise InputError(values[0])
            elif kind == "failed":
                raise devices.CoreFailure(f"worker {worker.number}:\n{values[0]}")
            elif kind == "interrupted":
                raise KeyboardInterrupt
            elif kind == "done":
                del working[connection]
            elif kind == "log":
                console.log.handle(values[0])
            elif kind == "checked":
                checked = True
            elif kind == "steps" and bar is None:
                bar = stack.enter_context(console.progress_bar(len(images), values[0], watch))
            elif kind == "move" and bar is not None:
                bar.move(*values)
            elif kind == "event" and bar is not None:
                bar.tell(values[0])
            elif kind == "take":
                asking.append((connection, values[0]))
        while checked and asking:  # before the first worker has looked at the measurements nothing is sampled
            connection, size = asking.pop(0)
            batch, remaining = remaining[:size], remaining[size:]
            try:
                connection.send(batch)
            except OSError:
                raise lost(working[connection], len(workers)) from None


def lost(worker: Worker, count: int) -> InputError:
    """The line for a worker that ended without a word."""
    worker.process.join(GRACE_S)
    code = worker.process.exitcode
    how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with status {code}"
    less = ""
    if code == -signal.SIGKILL:
        how += ", perhaps for want of memory"
        less = f"; workers={count - 1} needs less"
    return InputError(
        f"workers={count}: process {worker.process.pid} {how}; finished images are kept, the same command continues{less}"
    )


def end(workers: Sequence[Worker]) -> None:
    """Whether they are done or not: what they have written is whole."""
    with uninterrupted():
        started = [worker for worker in workers if worker.process.pid is not None]
        until = time.monotonic() + GRACE_S
        for worker in started:
            if worker.process.exitcode is None:
                worker.process.terminate()
        for worker in started:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.exitcode is None:
                worker.process.kill()
                worker.process.join()
            worker.connection.close()


def work(turn: Turn, settings: Settings, images: Sequence[TestItem], folder: RunFolder) -> None:
    """What a worker does; nothing that it meets is left unsaid."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal it reaches all processes, and the first one ends the others
    threading.Thread(target=end_with_parent, daemon=True).start()
    library.serve_one_run()
    console.log.handlers, console.log.propagate = [ToParent(turn.connection)], False  # type: ignore[arg-type]
    console.log.setLevel(turn.level if turn.first else logging.ERROR)  # what all say while they start is said once
    try:
        with signals_interrupt():
            let_through()
            from utils.running.sampling import sample  # torch comes late

            with devices.out_of_memory_in_one_line(), claimed(folder.path, str(folder.fingerprint)):
                sample(settings, images, folder, turn)
        last: tuple[str, ...] = ("done",)
    except InputError as error:
        last = ("refused", str(error))
    except KeyboardInterrupt:
        last = ("interrupted",)
    except Exception:
        last = ("failed", traceback.format_exc())
    try:
        turn.connection.send(last)
    except OSError:
        pass


def end_with_parent() -> None:
    """A killed run leaves no worker that goes on writing. What is half written then stays so, as after any kill."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


class ToParent(QueueHandler):
    """Log lines go to the first process, which has the terminal and the log file."""

    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue.send(("log", record))  # type: ignore[union-attr]

    def handleError(self, record: logging.LogRecord) -> None:
        """Where the first process is gone, nobody is left to be told."""


class Turn:
    """utils.running.sampling.Turn of worker `number` of `count`; level: of the first process's log."""

    def __init__(self, number: int, count: int, connection: Connection, level: int, watched: bool) -> None:
        self.number, self.first, self.count, self.connection, self.level = number, number == 0, count, connection, level
        self.watched = watched

    def checked(self) -> None:
        if self.first:
            self.connection.send(("checked",))

    @contextmanager
    def bar(self, images: int, steps: int) -> Iterator[console.SamplingSteps]:
        console.log.setLevel(self.level)
        self.connection.send(("steps", steps))
        yield StepsOfWorker(self.connection, steps, self.watched)

    def take(self, size: int) -> Sequence[TestItem]:
        self.connection.send(("take", size))
        return self.connection.recv()


class StepsOfWorker(console.SamplingSteps):
    """watched: whether there are callbacks, which the first process calls."""

    def __init__(self, connection: Connection, steps: int, watched: bool) -> None:
        super().__init__(steps)
        self.connection, self.watched = connection, watched

    def move(self, advance: int = 0, more: int = 0, best: str | None = None, images: int = 0) -> None:
        self.connection.send(("move", advance, more, best, images))

    def tell(self, event: Step | ImageDone) -> None:
        if self.watched:
            self.connection.send(("event", event))
