"""TensorBoard, Weights & Biases and MLflow: the same numbers, pictures and table, each sent in its own way."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import yaml

from utils.callbacks.base import Callback, End, ImageDone, Run, Step, without_diverged
from utils.errors import InputError

if TYPE_CHECKING:
    import numpy as np

STATUS = {"done": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}  # of MLflow


class Tracker(Callback):
    """Says what is sent; subclasses define run_begins, `numbers`, `picture` and `finish`."""

    package: str  # without which it raises InputError; the extra that installs it has the same name

    def __init__(self) -> None:
        name = self.package
        if find_spec(name) is None:
            raise InputError(f"callbacks.{name}: needs the package {name}; install it with pip install -e '.[{name}]'")

    def numbers(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Finite values at a step: of `image 3` at an annealing step, of `result` at an image's id."""
        raise NotImplementedError

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """pixels: (H, W, 3) uint8."""
        raise NotImplementedError

    def finish(self, table: str, end: End) -> None:
        """table: Markdown, or how the run ended where nothing is done."""
        raise NotImplementedError

    def annealing_step(self, step: Step) -> None:
        for image, of_image in step.images.items():
            values = {"loss": min(without_diverged(of_image.loss)), "distance": of_image.distance}
            if of_image.psnr is not None:
                values["psnr"] = max(without_diverged(of_image.psnr))
            if of_image.ratio is not None:
                values["loss over floor"] = min(without_diverged(of_image.ratio))
            self._finite(f"image {image}" + (f" {step.level}" if step.level else ""), values, step.number)

    def image_done(self, image: ImageDone) -> None:
        values = {"seconds": image.seconds}
        if image.picked is not None:
            values |= {f"{name.replace(' / ', ' over ')} of the pick": v[image.picked] for name, v in image.scores.items()}
        self._finite("result", values, image.image)
        if len(image.pictures):
            height, width = image.pictures.shape[1:3]  # the particles side by side
            self.picture("particles", image.pictures.transpose(1, 0, 2, 3).reshape(height, -1, 3), image.image)

    def run_ends(self, end: End) -> None:
        rows = ["| " + " | ".join(row) + " |" for row in end.table]
        self.finish("\n".join([*rows[:1], "|---" * len(end.table[0]) + "|", *rows[1:]]) if rows else end.how, end)

    def _finite(self, group: str, values: Mapping[str, float | None], step: int) -> None:
        if finite := {name: v for name, v in values.items() if v is not None and math.isfinite(v)}:
            self.numbers(group, finite, step)


class TensorBoard(Tracker):
    """tensorboard --logdir RUN_FOLDER, or that of many runs.

    folder: where event files go; None: `tensorboard` in the run folder. A shard has a folder of its own there.
    """

    package = "tensorboard"

    def __init__(self, folder: str | None = None) -> None:
        super().__init__()
        self.folder = folder

    def run_begins(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter  # torch comes late

        folder = Path(self.folder).expanduser() / run.name if self.folder else run.folder / "tensorboard"
        self.writer = SummaryWriter(folder / (f"shard-{run.shard.replace('/', '-of-')}" if run.is_part else ""))
        self.writer.add_text("config", "```yaml\n" + yaml.safe_dump(run.config, sort_keys=False) + "```")

    def numbers(self, group: str, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"{group}/{name}", value, step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        self.writer.add_image(name, pixels, step, dataformats="HWC")

    def finish(self, table: str, end: End) -> None:
        self.writer.add_text("result", table)
        self.writer.close()


class WeightsAndBiases(Tracker):
    """project: of W&B; mode: online, or offline: files in the run folder alone, for `wandb sync`; None: as W&B is set up."""

    package = "wandb"

    def __init__(self, project: str = "latentdaps", mode: Literal["online", "offline"] | None = None) -> None:
        super().__init__()
        self.project, self.mode = project, mode
        self.groups: set[str] = set()

    def run_begins(self, run: Run) -> None:
        import wandb

        names = {"project": self.project, "name": run.shown_name, "group": run.name}
        quiet = wandb.Settings(console="off")  # the terminal is the program's own, with its bars
        self.run = wandb.init(**names, dir=run.folder, mode=self.mode, config=run.config, settings=quiet)

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


class MLflow(Tracker):
    """experiment: its name; tracking_uri: a server or place; None: MLFLOW_TRACKING_URI, or mlflow.db and mlruns in save_dir."""

    package = "mlflow"

    def __init__(self, experiment: str = "latentdaps", tracking_uri: str | None = None) -> None:
        super().__init__()
        self.experiment, self.tracking_uri = experiment, tracking_uri

    def run_begins(self, run: Run) -> None:
        import mlflow

        place = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        beside = run.folder.absolute().parent
        artifacts = None if place else (beside / "mlruns").as_uri()  # MLflow itself would take the working folder
        self.client = mlflow.MlflowClient(place or f"sqlite:///{beside / 'mlflow.db'}")
        experiment = self.client.get_experiment_by_name(self.experiment)
        number = experiment.experiment_id if experiment else self.client.create_experiment(self.experiment, artifacts)
        self.run = self.client.create_run(number, run_name=run.shown_name).info.run_id
        self.client.log_dict(self.run, run.config, "config.yaml")

    def numbers(self, group: str, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.client.log_metric(self.run, f"{group}/{name}", value, step=step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        self.client.log_image(self.run, pixels, f"{name}/image {step}.png")

    def finish(self, table: str, end: End) -> None:
        self.client.log_text(self.run, table, "result.md")
        self.client.set_terminated(self.run, STATUS[end.how])
