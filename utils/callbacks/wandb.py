"""Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from utils.callbacks.base import End, Run, require
from utils.callbacks.tracker import Tracker, shown_name

if TYPE_CHECKING:
    import numpy as np


class WeightsAndBiases(Tracker):
    """project: of W&B; mode: online, or offline: files in the run folder alone, for `wandb sync`; None: as W&B is set up."""

    def __init__(self, project: str = "latentdaps", mode: Literal["online", "offline"] | None = None) -> None:
        require("wandb", "wandb")
        self.project, self.mode = project, mode
        self.groups: set[str] = set()

    def run_begins(self, run: Run) -> None:
        import wandb

        self.run = wandb.init(
            project=self.project,
            name=shown_name(run),
            group=run.name,
            dir=run.folder,
            mode=self.mode,
            config=run.config,
            settings=wandb.Settings(console="off"),  # the terminal is the program's own, with its bars
        )

    def numbers(self, group: str, values: Mapping[str, float], step: int) -> None:
        if group not in self.groups:  # images of several workers go on side by side, so each group counts for itself
            self.run.define_metric(f"{group}/*", step_metric=f"{group}/step")
            self.groups.add(group)
        self.run.log({f"{group}/{name}": value for name, value in values.items()} | {f"{group}/step": step})

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        import wandb

        self.run.log({name: wandb.Image(pixels, caption=f"image {step}")})

    def finish(self, table: str, end: End) -> None:
        import wandb

        if end.table:
            heads, *rows = end.table
            self.run.log({"result": wandb.Table(columns=list(heads), data=[list(row) for row in rows])})
        self.run.summary["end"] = end.how
        self.run.finish(exit_code=0 if end.how == "done" else 1)
