"""How far a process of a run is, in a small file beside its log, for whoever looks at the folder."""

import os
import socket
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from utils.files import write_atomically
from utils.plain_files import Unreadable, read_json

SUFFIX = ".progress"


class Progress(BaseModel):
    state: Literal["at work", "done", "interrupted", "failed", "killed"] = "at work"  # killed: as its reader finds
    images: int  # of this start
    images_done: int = 0
    steps: int  # annealing steps of all these images
    steps_done: int = 0
    seconds: float = 0.0  # that they took
    best: str = ""  # of the last step, in words
    host: str = ""
    process: int = 0


def write_progress(path: Path, progress: Progress) -> None:
    """path: of the process's log, or of that file itself. A full disk is told by what writes the records."""
    try:
        stamped = progress.model_copy(update={"host": socket.gethostname(), "process": os.getpid()})
        write_atomically(path.with_suffix(SUFFIX), stamped.model_dump_json(), durable=False)
    except OSError:
        pass


def read_progress(path: Path) -> Progress | None:
    """None where there is none, or none that can be read."""
    try:
        progress = read_json(path.with_suffix(SUFFIX), Progress)
    except (OSError, Unreadable):
        return None
    if progress.state == "at work" and progress.host == socket.gethostname() and not _lives(progress.process):
        progress.state = "killed"
    return progress


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        pass
    return True
