"""MLflow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from utils.callbacks.base import End, Run, require
from utils.callbacks.tracker import Tracker, shown_name

if TYPE_CHECKING:
    import numpy as np

STATUS = {"done": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class MLflow(Tracker):
    """experiment: its name; tracking_uri: a server or place; None: MLFLOW_TRACKING_URI, or mlflow.db and mlruns in save_dir."""

    def __init__(self, experiment: str = "latentdaps", tracking_uri: str | None = None) -> None:
        require("mlflow", "mlflow")
        self.experiment, self.tracking_uri = experiment, tracking_uri

    def run_begins(self, run: Run) -> None:
        import mlflow

        place = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        beside = run.folder.absolute().parent
        artifacts = None if place else (beside / "mlruns").as_uri()  # MLflow itself would take the working folder
        self.client = mlflow.MlflowClient(place or f"sqlite:///{beside / 'mlflow.db'}")
        experiment = self.client.get_experiment_by_name(self.experiment)
        number = experiment.experiment_id if experiment else self.client.create_experiment(self.experiment, artifacts)
        self.run = self.client.create_run(number, run_name=shown_name(run)).info.run_id
        self.client.log_dict(self.run, run.config, "config.yaml")

    def numbers(self, group: str, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.client.log_metric(self.run, f"{group}/{name}", value, step=step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        self.client.log_image(self.run, pixels, f"{name}/image {step}.png")

    def finish(self, table: str, end: End) -> None:
        self.client.log_text(self.run, table or end.how, "result.md")
        self.client.set_terminated(self.run, STATUS[end.how])
