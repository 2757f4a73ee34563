"""What TensorBoard, Weights & Biases and MLflow get: calls of fake modules, and their own files where they are installed."""

import math
import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from utils.callbacks.base import End, ImageDone, OfImage, Run, Step
from utils.callbacks.trackers import MLflow, TensorBoard, WeightsAndBiases

TABLE = [("metric", "best of 2", "mean", "pick"), ("PSNR", "31.00", "30.00", "31.00")]
PICTURES = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
SIDE_BY_SIDE = np.concatenate(list(PICTURES), axis=1)
# by group and step, what is sent: the best particle of two, of which one has diverged
STEP = {"loss": 2.0, "loss over floor": 1.0, "psnr": 25.0, "distance": 0.5}
RESULT = {"seconds": 4.0, "psnr of the pick": 31.0, "loss of the pick": 2.0, "loss over floor of the pick": 1.0}


@pytest.fixture(autouse=True)
def any_package(monkeypatch):
    monkeypatch.setattr("utils.callbacks.trackers.find_spec", lambda package: True)


def play(tracker, folder, how="done", shard="0/1"):
    tracker.run_begins(Run("faces", folder, shard, {"seed": 42, "data": {"root": "x"}}, [3]))
    tracker.annealing_step(Step(7, {3: OfImage([0, 1], [25.0, 20.0], [2.0, math.nan], [1.0, math.nan], 0.5)}))
    tracker.annealing_step(Step(1, {3: OfImage([0], None, [5.0], None, math.nan)}, "32 pixels"))
    scores = {"psnr": [30.0, 31.0], "loss": [3.0, 2.0], "loss / floor": [1.5, 1.0]}
    tracker.image_done(ImageDone(3, "a.png", scores, 1, 4.0, PICTURES))
    tracker.run_ends(End(how, {"metadata": {}}, TABLE))


def faked(monkeypatch, name, **content):
    """A module that stands for the package `name`."""
    module = ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)
    return module


class Calls:
    """Notes every call of any method, and answers with itself."""

    def __init__(self):
        self.made, self.summary = [], {}

    def __getattr__(self, name):
        def call(*values, **named):
            self.made.append((name, values, named))
            return self

        return call

    def of(self, name):
        return [(*values, named) if named else values for made, values, named in self.made if made == name]


def test_tensorboard_gets_scalars_pictures_and_texts(monkeypatch, tmp_path):
    writer, folders = Calls(), []
    faked(monkeypatch, "torch.utils.tensorboard", SummaryWriter=lambda folder: folders.append(folder) or writer)
    play(TensorBoard(), tmp_path)
    play(TensorBoard(str(tmp_path / "all")), tmp_path, shard="1/2")
    assert folders == [tmp_path / "tensorboard", tmp_path / "all/faces/shard-1-of-2"]
    scalars = writer.of("add_scalar")[: len(writer.of("add_scalar")) // 2]
    assert {(name, step): value for name, value, step in scalars} == {
        **{(f"image 3/{name}", 7): value for name, value in STEP.items()},
        ("image 3 32 pixels/loss", 1): 5.0,
        **{(f"result/{name}", 3): value for name, value in RESULT.items()},
    }
    name, pixels, step, named = writer.of("add_image")[0]
    assert (name, step, named) == ("particles", 3, {"dataformats": "HWC"}) and np.array_equal(pixels, SIDE_BY_SIDE)
    texts = dict(writer.of("add_text"))
    assert "seed: 42" in texts["config"] and texts["result"].splitlines() == [
        "| metric | best of 2 | mean | pick |",
        "|---|---|---|---|",
        "| PSNR | 31.00 | 30.00 | 31.00 |",
    ]
    assert len(writer.of("close")) == 2


def fake_wandb(monkeypatch, run):
    inits = []
    faked(
        monkeypatch,
        "wandb",
        init=lambda **named: inits.append(named) or run,
        Settings=lambda **named: named,
        Image=lambda pixels, caption: (pixels, caption),
        Table=lambda columns, data: (columns, data),
    )
    return inits


def test_weights_and_biases_gets_a_step_of_each_groups_own(monkeypatch, tmp_path):
    run = Calls()
    inits = fake_wandb(monkeypatch, run)
    play(WeightsAndBiases("demo", "offline"), tmp_path, shard="1/2")
    (init,) = inits
    assert {key: init[key] for key in ("project", "name", "group", "dir", "mode")} == {
        "project": "demo",
        "name": "faces shard 1/2",
        "group": "faces",
        "dir": tmp_path,
        "mode": "offline",
    }
    assert init["config"]["seed"] == 42 and init["settings"] == {"console": "off"}
    assert run.of("define_metric") == [
        (f"{group}/*", {"step_metric": f"{group}/step"}) for group in ("image 3", "image 3 32 pixels", "result")
    ]
    first, level, result, picture, table = (each for (each,) in run.of("log"))
    assert first == {f"image 3/{name}": value for name, value in STEP.items()} | {"image 3/step": 7}
    assert level == {"image 3 32 pixels/loss": 5.0, "image 3 32 pixels/step": 1}
    assert result == {f"result/{name}": value for name, value in RESULT.items()} | {"result/step": 3}
    assert picture["particles"][1] == "image 3" and np.array_equal(picture["particles"][0], SIDE_BY_SIDE)
    assert table == {"result": (list(TABLE[0]), [list(TABLE[1])])}
    assert run.summary == {"end": "done"} and run.of("finish") == [({"exit_code": 0},)]


def test_weights_and_biases_is_told_of_a_run_that_fails(monkeypatch, tmp_path):
    run = Calls()
    fake_wandb(monkeypatch, run)
    play(WeightsAndBiases(), tmp_path, how="interrupted")
    assert run.summary == {"end": "interrupted"} and run.of("finish") == [({"exit_code": 1},)]


@pytest.mark.parametrize("how, status", [("done", "FINISHED"), ("interrupted", "KILLED"), ("failed", "FAILED")])
def test_mlflow_gets_metrics_artifacts_and_how_it_ended(monkeypatch, tmp_path, how, status):
    client, places = Calls(), []
    client.experiment_id, client.info = "5", SimpleNamespace(run_id="r")
    faked(monkeypatch, "mlflow", MlflowClient=lambda place: places.append(place) or client)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    play(MLflow("faces"), tmp_path / "faces", how)
    assert places == [f"sqlite:///{tmp_path}/mlflow.db"]
    assert client.of("create_run") == [("5", {"run_name": "faces"})]
    assert {(name, of["step"]): value for run, name, value, of in client.of("log_metric") if run == "r"} == {
        **{(f"image 3/{name}", 7): value for name, value in STEP.items()},
        ("image 3 32 pixels/loss", 1): 5.0,
        **{(f"result/{name}", 3): value for name, value in RESULT.items()},
    }
    (picture,) = client.of("log_image")
    assert np.array_equal(picture[1], SIDE_BY_SIDE) and picture[2] == "particles/image 3.png"
    assert "| PSNR | 31.00 |" in client.of("log_text")[0][1] and client.of("set_terminated") == [("r", status)]


@pytest.mark.parametrize("given, variable, place", [("a", "b", "a"), (None, "b", "b")])
def test_mlflow_goes_where_it_is_told(monkeypatch, tmp_path, given, variable, place):
    client, places = Calls(), []
    client.experiment_id, client.info = "5", SimpleNamespace(run_id="r")
    faked(monkeypatch, "mlflow", MlflowClient=lambda place: places.append(place) or client)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    play(MLflow(tracking_uri=given), tmp_path)
    assert places == [place]


installed = {name: find_spec(name) is not None for name in ("tensorboard", "wandb", "mlflow", "sqlalchemy")}


@pytest.mark.skipif(not installed["tensorboard"], reason="the package tensorboard is not installed")
def test_tensorboard_reads_what_was_written(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    play(TensorBoard(), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("image 3/psnr")] == [(7, 25.0)]
    (picture,) = events.Images("particles")
    assert (picture.step, picture.width, picture.height) == (3, 10, 4)


@pytest.mark.heavy
@pytest.mark.skipif(not installed["wandb"], reason="the package wandb is not installed")
def test_weights_and_biases_offline_keeps_a_run_in_its_folder(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    play(WeightsAndBiases(mode="offline"), tmp_path)
    wandb.teardown()  # its process has written everything then
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    content = next(folder.glob("run-*.wandb")).read_bytes()
    assert all(word in content for word in (b"loss over floor", b"psnr of the pick", b"result/"))
    assert list((folder / "files/media/images").glob("particles*.png"))
    assert list((folder / "files/media/table").glob("result*.json"))


@pytest.mark.heavy
@pytest.mark.skipif(not (installed["mlflow"] and installed["sqlalchemy"]), reason="the package mlflow is not installed")
def test_mlflow_finds_the_run_again(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    play(MLflow(), tmp_path / "faces")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("latentdaps").experiment_id])
    assert run.info.status == "FINISHED" and run.data.metrics["image 3/psnr"] == 25.0
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"config.yaml", "particles", "result.md"}
    assert {place.name for place in tmp_path.iterdir()} == {"elsewhere", "mlflow.db", "mlruns"}
    assert not list((tmp_path / "elsewhere").iterdir())
