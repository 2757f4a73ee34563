"""Figures of runs and of comparisons; matplotlib comes with the first that is drawn."""

import logging
import os
from pathlib import Path

from utils.errors import one_line

log = logging.getLogger("latentdaps")

os.environ["MPLBACKEND"] = "Agg"  # a command started in a notebook inherits the notebook's, and may lack it


def draw_run(folder: str | Path) -> bool:
    """(Re)draw the pictures of a run folder; whether that went well. A failure is a warning: the numbers are written."""
    try:
        from utils.figures import run

        run.draw_all(folder)
    except Exception as error:  # of matplotlib, of a font, of the disk: none is a reason to lose a run's exit status
        reason = f"{type(error).__name__}: {one_line(error)}"
        log.warning("the pictures cannot be drawn (%s); all numbers are written, and the same command draws them", reason)
        return False
    return True
