"""TensorBoard: tensorboard --logdir RUN_FOLDER, or that of many runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from utils.callbacks.base import End, Run, require
from utils.callbacks.tracker import Tracker

if TYPE_CHECKING:
    import numpy as np


class TensorBoard(Tracker):
    """folder: where event files go; None: `tensorboard` in the run folder. A shard has a folder of its own there."""

    def __init__(self, folder: str | None = None) -> None:
        require("tensorboard", "tensorboard")
        self.folder = folder

    def run_begins(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter  # torch comes late

        folder = Path(self.folder).expanduser() / run.name if self.folder else run.folder / "tensorboard"
        part = "" if run.shard.endswith("/1") else f"shard-{run.shard.replace('/', '-of-')}"
        self.writer = SummaryWriter(folder / part)
        self.writer.add_text("config", "```yaml\n" + yaml.safe_dump(run.config, sort_keys=False) + "```")

    def numbers(self, group: str, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"{group}/{name}", value, step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        self.writer.add_image(name, pixels, step, dataformats="HWC")

    def finish(self, table: str, end: End) -> None:
        self.writer.add_text("result", table or end.how)
        self.writer.close()
