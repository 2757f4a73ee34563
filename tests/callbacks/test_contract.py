"""What a callback is told, by one process and by workers alike, and that it changes nothing."""

import logging
import math

import pytest
import torch

from tests.worlds import runs
from utils.callbacks.base import Callback, Step
from utils.config.check import check
from utils.config.compose import compose
from utils.errors import InputError
from utils.evaluation.trace import Trace
from utils.records.files import read_record, record_paths
from utils.running.finished import settings_of_finished
from utils.running.ranks import Rank
from utils.running.watching import Watch
from utils.sampling.outcome import StepInfo
from utils.sampling.particles import Particles

HERE = "+callbacks.mine._target_=tests.callbacks.test_contract"
CALLS = []  # of Recorder: a callback runs in the process of this test


class Recorder(Callback):
    def run_begins(self, run):
        CALLS.append(("begins", run.name, run.shard, tuple(run.images)))

    def annealing_step(self, step):
        for image, of_image in step.images.items():
            CALLS.append(("step", image, step.number, tuple(of_image.loss), tuple(of_image.ratio), of_image.distance))

    def image_done(self, image):
        CALLS.append(("done", image.image, image.file, image.picked, tuple(image.scores["loss"]), image.pictures.tobytes()))

    def run_ends(self, end):
        CALLS.append(("ends", end.how, end.metrics and end.metrics["metadata"]["num_images"], end.table[0][:1]))


class Careless(Callback):
    """Spoils whatever it can reach, and raises."""

    def annealing_step(self, step):
        torch.manual_seed(step.number)
        for of_image in step.images.values():
            of_image.loss[:] = [0.0] * len(of_image.loss)

    def image_done(self, image):
        image.pictures[:] = 0
        image.scores["loss"][:] = [0.0] * len(image.scores["loss"])
        raise SystemExit("no room\nleft")


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_prior, no_pictures):
    return runs.Place(tmp_path_factory.mktemp("watched"), tiny_prior, images=4, overrides=[runs.ANALYTIC])


def told(place, name, *overrides):
    CALLS.clear()
    place.run(name, "data.end_id=3", f"{HERE}.Recorder", *overrides)
    return list(CALLS)


@pytest.mark.program
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_is_told_from_its_beginning_to_its_end(place, workers):
    calls = told(place, f"told{workers}", f"workers={workers}")
    folder = place.path(f"told{workers}")
    assert calls[0] == ("begins", f"told{workers}", "0/1", (0, 1, 2))
    assert calls[-1] == ("ends", "done", 3, ("metric",))
    for path in record_paths(folder):
        record, arrays = read_record(path)
        image, trace = record["image_id"], record["trace"]
        steps = [call[2:] for call in calls if call[0] == "step" and call[1] == image]
        assert [step[0] for step in steps] == list(range(len(trace["loss"])))
        assert [list(step[1]) for step in steps] == trace["loss"]
        assert steps[-1][2] == tuple(loss / record["noise_floor"] for loss in trace["loss"][-1])
        (done,) = (call for call in calls if call[0] == "done" and call[1] == image)
        expected = (record["file"], record["selection"]["picked"], tuple(record["loss"]), arrays["images"].tobytes())
        assert done[2:] == expected and calls.index(done) > max(i for i, c in enumerate(calls) if c[:2] == ("step", image))


@pytest.mark.program
def test_nothing_is_told_of_a_run_that_is_done(place):
    place.run("over", "data.end_id=1")
    CALLS.clear()
    place.run("over", "data.end_id=1", f"{HERE}.Recorder")
    assert CALLS == [] and check(runs.config(place.all("over"))).callbacks == {}


@pytest.mark.program
def test_a_careless_callback_costs_one_warning_and_no_number(place, caplog):
    quiet = place.run("quiet", "data.end_id=2")
    with caplog.at_level(logging.WARNING, "latentdaps"):
        careless = place.run("careless", "data.end_id=2", f"{HERE}.Careless")
    assert [r.getMessage() for r in caplog.records if "callbacks" in r.getMessage()] == [
        "callbacks.mine: left out from now on (image_done: no room left)"
    ]
    for one, other in zip(record_paths(quiet), record_paths(careless)):
        (a, images), (b, others) = read_record(one), read_record(other)
        assert a["loss"] == b["loss"] and a["trace"] == b["trace"] and (images["images"] == others["images"]).all()


@pytest.mark.program
def test_an_interrupted_run_ends_for_its_callbacks_too(place, monkeypatch):
    def interrupted(self, event):
        raise KeyboardInterrupt

    monkeypatch.setattr(Recorder, "image_done", interrupted)
    with pytest.raises(KeyboardInterrupt):
        told(place, "interrupted", "workers=1")
    assert CALLS[-1] == ("ends", "interrupted", 1, ("metric",))


def composed_with(*overrides):
    return compose([*overrides, "workers=1"])


def test_callbacks_are_no_part_of_a_run():
    with_it = check(composed_with(f"{HERE}.Recorder", "+callbacks.mine.project=x"))
    plain = check(composed_with())
    assert with_it.composition.fingerprint == plain.composition.fingerprint
    assert with_it.digests() == plain.digests()
    assert with_it.composition.about["overrides"] == plain.composition.about["overrides"]
    finished = settings_of_finished(with_it.composition.nodes, with_it.folder)  # without --trust
    assert finished.callbacks == {}


@pytest.mark.parametrize(
    "target, line",
    [
        (
            "tests.callbacks.test_contract.Measuring",
            "_target_=tests.callbacks.test_contract.Measuring: is no utils.callbacks.base.Callback; subclass it",
        ),
        ("no_such.Class", r"callbacks.mine._target_=no_such.Class: cannot be built \(.*no_such"),
    ],
)
def test_what_is_no_callback_ends_in_one_line(target, line):
    with pytest.raises(InputError, match=line):
        Watch(check(composed_with(f"+callbacks.mine._target_={target}")), Rank())


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_package_is_one_line_that_names_the_extra(monkeypatch, name):
    monkeypatch.setattr("utils.callbacks.base.find_spec", lambda package: None)
    line = rf"callbacks.{name}: needs the package {name}; install it with pip install -e '.\[{name}\]'"
    with pytest.raises(InputError, match=line):
        Watch(check(composed_with(f"callbacks={name}")), Rank())


def test_the_cores_of_a_tpu_have_none():
    with pytest.raises(InputError, match="callbacks.wandb=.*the cores of a TPU call none; give num_cores=1"):
        check(composed_with("callbacks=wandb", "use_tpu=true"))
    assert check(composed_with("callbacks=wandb", "use_tpu=true", "num_cores=1")).callbacks


class Measuring:
    """An operator that sees no turn, with a noise floor of 2."""

    rotation_ambiguity = True

    def noise_floor(self, y):
        return torch.full((len(y),), 2.0)

    def components(self, x, y):
        return {}

    def visible(self, x):
        return x


@pytest.mark.parametrize("ambiguous, best", [(True, "best PSNR 20.00 dB"), (False, "best PSNR 15.23 dB")])
def test_the_better_orientation_is_told_where_the_measurement_sees_none(ambiguous, best):
    steps, operator = [], Measuring()
    operator.rotation_ambiguity = ambiguous
    truth = torch.zeros(3, 4, 4)
    truth[:, 0, 0] = 0.8
    start = Particles.start(torch.zeros(1, 1), [3], 1, 0, (1, 1, 1), torch.float32)
    turned = truth.flip(-2, -1)[None] + 0.2
    trace = Trace({3: truth}, steps.append, operator)
    trace(StepInfo(0, start, turned, torch.tensor([3.0])))
    assert steps[0].best == best and steps[0].images[3].ratio == [1.5] and math.isnan(steps[0].images[3].distance)
    assert trace.of_image(3, [0])["psnr"][0][0] == pytest.approx(15.23, abs=0.01)  # the record has what it always had
    Trace(None, steps.append, operator)(StepInfo(0, start, turned, torch.tensor([3.0])))
    assert steps[1].best == "lowest loss / floor 1.5" and steps[1].images[3].psnr is None


def test_a_step_of_a_coarser_level_has_its_name_and_losses():
    steps = []
    start = Particles.start(torch.zeros(1, 1), [3], 2, 0, (1, 1, 1), torch.float32)
    trace = Trace({3: torch.zeros(3, 4, 4)}, steps.append, Measuring())
    trace(StepInfo(1, start, torch.zeros(2, 3, 2, 2), torch.tensor([3.0, math.nan]), level="32 pixels"))
    (step,) = steps
    assert isinstance(step, Step) and (step.number, step.level, step.best) == (1, "32 pixels", "lowest loss 3")
    assert step.images[3].psnr is None and step.images[3].ratio is None and trace.steps == []
