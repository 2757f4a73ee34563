"""From finished runs to a certificate that population=sequential reads."""

import json
import sys

import numpy as np
import pytest

from tests.worlds import kills, runs
from tools import calibrate_certificate as tool
from utils.analysis import runs as finished_runs
from utils.config.check import check
from utils.digests import of_prior
from utils.errors import InputError
from utils.population.settings import Sequential
from utils.records.files import read_record, record_path, write_record

pytestmark = pytest.mark.program

IMAGES = 4
LENIENT = ("success.threshold_db=9.4", "success.margin_db=0")  # so that some particles of a random prior succeed


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_prior, no_pictures):
    overrides = (f"data.end_id={IMAGES}", "max_particles_per_pass=1", *LENIENT)
    return runs.Place(tmp_path_factory.mktemp("calibrate"), tiny_prior, images=IMAGES, particles=2, overrides=overrides)


@pytest.fixture(scope="module")
def fixed(place):
    return place.run("fixed")


def call(patch, *arguments):
    patch.setattr(sys, "argv", ["calibrate_certificate.py", *map(str, arguments)])
    tool.main()


def groups(*folders):
    loaded = [finished_runs.load(folder) for folder in folders]
    found = [tool.pieces_of(run_, tool.settings_of(run_), Sequential().sigmas) for run_ in loaded]
    return tool.joined([piece for _, pieces in found for piece in pieces], found[0][0])


def test_signals_are_those_of_a_sequential_run(place, fixed):
    never = "sequential.thresholds={deviation:-1e9}"
    folder = place.run("never", "population=sequential", "sequential.start=1", "sequential.add=1", never)
    signals = runs.metrics_of(folder)["population"]["signals"]
    for i, group in enumerate(groups(fixed)):
        assert group.deviation == pytest.approx(signals["deviation"][i], rel=1e-5)
        assert group.denoising == pytest.approx(signals["denoising"][i], rel=1e-4)
        assert group.agreement[0, 1] == pytest.approx(signals["agreement"][i][0], abs=1e-5)


def test_runs_of_other_particles_are_one_population(place, fixed):
    alone = [place.run(f"alone_{k}", "num_samples=1", f"first_particle={k}") for k in range(2)]
    for one, other in zip(groups(*alone), groups(fixed)):
        assert one.image == other.image and (one.success == other.success).all()
        assert np.array_equal(one.denoising, other.denoising) and np.array_equal(one.loss, other.loss)
        assert np.array_equal(one.agreement, other.agreement, equal_nan=True)
    with pytest.raises(InputError, match="two runs hold a particle of the same number"):
        groups(fixed, alone[1])


def test_with_a_margin_what_lies_far_below_the_images_best_is_no_success():
    import torch

    from operators.phase_retrieval import PhaseRetrieval

    psnr, labelled = [30.0, 25.0, 28.5, 40.0], [True, True, True, False]
    piece = tool.Piece(("set", 0), 0, [0, 1, 2, 3], [1.0] * 4, [0.0] * 4, [0.4] * 4, labelled, psnr, torch.rand(4, 3, 8, 8))
    success = [tool.joined([piece], PhaseRetrieval(), margin)[0].success.tolist() for margin in (None, 2.0, 0.0)]
    assert success == [labelled, [True, False, True, False], [True, False, False, False]]


def test_a_certificate_is_written_and_read_by_a_run(place, fixed, tmp_path, monkeypatch, capsys):
    labels = [label for row in runs.metrics_of(fixed)["modes"]["label"] for label in row]
    assert "failed" in labels and {"0", "180"} & set(labels)
    out = tmp_path / "new" / "tiny.json"
    monkeypatch.setenv("COLUMNS", "300")  # of the terminal
    call(monkeypatch, fixed, "--start", 1, "--add", 1, "--accept", 0.3, "--out", out)
    shown = capsys.readouterr().out
    assert 70 < max(len(line.rstrip()) for line in shown.splitlines() if str(out) not in line) <= 80
    assert "4 images of 2 particles" in shown and "1 + 1 ..." in shown and f"{out}: the thresholds of" in shown
    assert "…" not in shown, "numbers cut off"
    content = json.loads(out.read_text())
    assert content["prior"] == of_prior({"path": str(place.prior)}) != {}
    assert content["images"] == IMAGES and content["rates"]["rounds"] == [1, 1]
    assert content["rates"]["on_the_same_images"]["wrong"] <= 0.3 and content["rates"]["decoder_passes_per_particle"] == 6
    overrides = ("population=sequential", "sequential.start=1", "sequential.add=1", f"sequential.certificate={out}")
    settings = check(runs.config(place.all("reads", *overrides)))
    assert settings.composition.notes == ()
    assert settings.sequential.thresholds.model_dump() == content["thresholds"]
    (note,) = check(runs.config(place.all("reads", *overrides, "sampler=fast"))).composition.notes
    assert "was calibrated elsewhere: sampler." in note


def test_another_certificate_in_its_place_is_kept(fixed, tmp_path, monkeypatch, capsys):
    out, before = tmp_path / "tiny.json", tmp_path / "tiny.json.1"
    for start in (1, 1, 2):
        call(monkeypatch, fixed, "--start", start, "--out", out)
        assert before.exists() == (start == 2) == (f"{before}: the certificate that was there" in capsys.readouterr().out)
    rounds = [json.loads(path.read_text())["rates"]["rounds"] for path in (before, out)]
    assert rounds == [[1, 1], [2]]


def test_a_kill_loses_no_certificate_and_the_same_command_mends_it(fixed, tmp_path, monkeypatch):
    loaded = finished_runs.load(fixed)
    made = tool.pieces_of(loaded, tool.settings_of(loaded), Sequential().sigmas)
    monkeypatch.setattr(tool, "pieces_of", lambda *_: made)  # a second each time
    at, was_killed = 0, True
    while was_killed:
        at += 1
        out = tmp_path / str(at) / "tiny.json"
        out.parent.mkdir()
        out.write_text("old")
        was_killed = kills.killed(at, tmp_path, lambda: call(monkeypatch, fixed, "--start", 1, "--out", out))
        assert "old" in [path.read_text() for path in out.parent.iterdir()]
        call(monkeypatch, fixed, "--start", 1, "--out", out)
        assert kills.contents(out.parent).keys() == {"tiny.json", "tiny.json.1"}
        assert (out.parent / "tiny.json.1").read_text() == "old" and json.loads(out.read_text())["images"] == IMAGES
    assert at == 5, "the folder, the temporary file, the old one aside, the new one"


def test_particles_speak_for_one_another_only_where_none_is_a_copy(place, tmp_path, monkeypatch, capsys):
    out, exchange = tmp_path / "tiny.json", ("recombination_step=700", "recombination.every=1")
    for name, donors in (("turning", False), ("exchanging", True)):
        call(monkeypatch, place.run(name, *exchange, f"recombination.donors={donors}"), "--out", out)
        assert ("No agreement is tried" in " ".join(capsys.readouterr().out.split())) == donors
        content = json.loads(out.read_text())
        assert content["holds_for"]["recombination"]["donors"] is donors and content["complete"]
    rounds = ("population=sequential", "sequential.start=1", f"sequential.certificate={out}", *exchange)
    (note,) = check(runs.config(place.all("reads", *rounds, "recombination.donors=false"))).composition.notes
    assert "calibrated elsewhere: recombination.donors is True there and False here" in note


def test_what_gives_no_calibration_ends_in_one_line(place, fixed, tmp_path, monkeypatch):
    def refused(message, *arguments):
        with pytest.raises(InputError, match=message) as caught:
            call(monkeypatch, *arguments)
        assert "\n" not in str(caught.value)

    refused("start=3: the runs have 2 particles an image", fixed, "--start", 3)
    refused("accept=1.0: must be a share", fixed, "--accept", 1)
    refused("must be above 0", fixed, "--sigmas", -1)
    other = place.run("other", "task.demo_langevin.operator.sigma=0.1", "first_particle=2")
    refused(r"other: task.operator.sigma is 0.05 there and 0.1 here \(there: .*fixed\)", fixed, other)
    refused("not all of its particles ran to the end", place.run("pruned", "pruning_step=700", "pruning_keep=1"))
    record, arrays = read_record(record_path(other, 1))
    write_record(other, {**record, "digests": {"model.path": "others"}}, arrays)
    refused("other: image 1 was made with another content of model.path; put it back", other)
    for image in range(IMAGES):  # as after stripping the pictures
        write_record(other, read_record(other / "records" / f"{image:05d}.npz")[0], {})
    refused("its records hold no latents", other)


def test_records_of_other_shapes_end_in_one_line():
    batch = [({"image_id": i, "survivors": [0]}, {"y": np.zeros((3, 8, 8 + i)), "z": np.zeros((1, 4, 8, 8))}) for i in range(2)]
    with pytest.raises(InputError, match="records of images 0 to 1: their measurements or latents differ in shape"):
        tool.as_result(None, None, batch)
