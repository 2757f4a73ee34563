"""How far a process of a run is, in a small file beside its log, for whoever looks at the folder."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from utils.files import write_atomically
from utils.plain_files import Unreadable, read_json

SUFFIX = ".progress"


class Progress(BaseModel):
    state: Literal["at work", "done", "interrupted", "failed"] = "at work"
    images: int  # of this start
    images_done: int = 0
    steps: int  # annealing steps of all these images
    steps_done: int = 0
    best: str = ""  # of the last step, in words


def write_progress(log: Path, progress: Progress) -> None:
    """log: the process's. A full disk is told by what writes the records."""
    try:
        write_atomically(log.with_suffix(SUFFIX), progress.model_dump_json(), durable=False)
    except OSError:
        pass


def read_progress(log: Path) -> Progress | None:
    """None where there is none, or none that can be read."""
    try:
        return read_json(log.with_suffix(SUFFIX), Progress)
    except (OSError, Unreadable):
        return None
