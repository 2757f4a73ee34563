"""A run goes on only with the weights and modules of one's own that its records were made with."""

import importlib
import shutil
import sys

import pytest

from tests.worlds import runs
from tests.worlds.tiny import kl_pipeline
from tools import add_metric, merge_runs
from utils.analysis import runs as finished
from utils.errors import InputError
from utils.records.claim import claim_path
from utils.records.files import read_record, record_path, record_paths, write_record
from utils.records.folder import RunFolder
from utils.records.kept import KEPT, packed

pytestmark = pytest.mark.program

OPERATOR = "from operators.phase_retrieval import PhaseRetrieval\n\n\nclass Own(PhaseRetrieval):\n    gain = 1\n"
METRIC = """from utils.metrics.base import Metric


class Brightness(Metric):
    def __call__(self, x, truth):
        return x.mean((1, 2, 3))
"""
OWN = "task.demo_langevin.operator._target_=own_operator_of_a_test.Own"
MINE = "+metrics.brightness._target_=own_metric_of_a_test.Brightness"
MODULE = "module own_operator_of_a_test"


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_prior, no_pictures):
    return runs.Place(tmp_path_factory.mktemp("content"), tiny_prior)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Files of an operator and of a metric of one's own, on PYTHONPATH."""
    files = tmp_path / "own_operator_of_a_test.py", tmp_path / "own_metric_of_a_test.py"
    for file, text in zip(files, (OPERATOR, METRIC)):
        file.write_text(text)
        monkeypatch.delitem(sys.modules, file.stem, raising=False)  # of an earlier test
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return files


@pytest.fixture
def weights(tmp_path, tiny_prior):
    """A copy of the prior, and what puts other weights under the same path."""
    shutil.copytree(tiny_prior, folder := tmp_path / "prior")

    def other():
        pipeline = kl_pipeline()
        next(pipeline.unet.parameters()).data.mul_(2)
        pipeline.save_pretrained(folder)

    return folder, other


def contents(folder):
    return {
        path: path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in (".npz", ".png", ".json")
    }


def change(folder, number, **update):
    record, arrays = read_record(record_path(folder, number))
    write_record(folder, {**record, **update}, arrays)


def test_a_changed_operator_ends_a_run_before_its_next_image(place, own):
    folder = place.run("operator", "data.end_id=1", OWN)
    own[0].write_text(OPERATOR.replace("1", "2"))
    before = contents(folder)
    for end in (1, 2):  # nothing is left to do, or an image is added
        with pytest.raises(InputError) as caught:
            place.run("operator", f"data.end_id={end}", OWN)
        line = (
            f"record {record_path(folder, 0)} was made with another content of {MODULE}; choose another name= or resume=false"
        )
        assert str(caught.value) == line
    assert contents(folder) == before
    own[0].write_text(OPERATOR)
    place.run("operator", "data.end_id=2", OWN)
    assert runs.metrics_of(folder)["metadata"]["image_ids"] == [0, 1]


def test_other_weights_under_the_same_path_end_a_run(place, weights):
    prior, other = weights
    folder = place.run("weights", "data.end_id=1", f"model.path={prior}")
    other()
    before = contents(folder)
    with pytest.raises(InputError, match="00000.npz was made with another content of model.path"):
        place.run("weights", "data.end_id=2", f"model.path={prior}")
    assert contents(folder) == before
    place.run("weights", "data.end_id=2", f"model.path={prior}", "resume=false")
    assert len(record_paths(folder)) == 2 and len(record_paths(folder.with_name("weights.1"))) == 1


def test_records_from_before_there_were_digests_stay_valid(place, weights):
    prior, other = weights
    folder = place.run("old", "data.end_id=2", f"model.path={prior}")
    for number in range(2):
        record, arrays = read_record(record_path(folder, number))
        write_record(folder, {key: value for key, value in record.items() if key != "digests"}, arrays)
    other()
    place.run("old", "data.end_id=3", f"model.path={prior}")
    assert runs.metrics_of(folder)["metadata"]["image_ids"] == [0, 1, 2]
    assert "digests" not in read_record(record_path(folder, 0))[0] and read_record(record_path(folder, 2))[0]["digests"]


def test_weights_that_turn_out_to_be_others_once_loaded_end_a_run(place):
    """Those of a hub id, or converted just now."""
    folder = RunFolder(
        path := place.run("loaded", "data.end_id=1"), read_record(record_path(place.path("loaded"), 0))[0]["fingerprint"]
    )
    assert list(folder.records(foreign="refuse")) == [0]
    folder.made_of(read_record(record_path(path, 0))[0]["digests"])
    with pytest.raises(InputError, match="00000.npz was made with another content of model.path"):
        folder.made_of({"model.path": "others"})


def test_a_record_of_other_weights_is_never_overwritten(place):
    path = place.run("kept", "data.end_id=1")
    record, arrays = read_record(record_path(path, 0))
    before = contents(path)
    with pytest.raises(InputError, match="was made with another content of model.path and is kept"):
        RunFolder(path, record["fingerprint"]).write({**record, "digests": {"model.path": "others"}}, arrays)
    assert contents(path) == before


def test_no_metrics_json_mixes_two_contents(place, caplog):
    folder = place.run("mixed", "data.end_id=3")
    change(folder, 1, digests={"model.path": "others"})
    RunFolder(folder, read_record(record_path(folder, 0))[0]["fingerprint"]).aggregate()
    assert runs.metrics_of(folder)["metadata"]["image_ids"] == [0, 2]
    assert "00001.npz was made with another content of model.path and is left out" in caplog.text
    place.path("mixed_kept").mkdir()
    records = [read_record(path)[0] for path in record_paths(folder)]
    (place.path("mixed_kept") / KEPT).write_bytes(packed(records))
    with pytest.raises(
        InputError, match="mixed_kept: image 1 was made with another content of model.path than those before it"
    ):
        finished.load(place.path("mixed_kept"))


def test_shards_of_another_content_are_not_merged(place):
    shards = [place.run(f"shard_{k}", "data.end_id=2", f"shard={k}/2") for k in range(2)]
    change(shards[1], 1, digests={MODULE: "others"})  # what only one of them says tells nothing
    merge_runs.merge(place.path("merged"), shards)
    change(shards[1], 1, digests={"model.path": "others"})
    with pytest.raises(
        InputError, match="shard_1/records/00001.npz was made with another content of model.path than those before"
    ):
        merge_runs.merge(place.path("refused"), shards)
    assert not place.path("refused").exists()


def test_a_changed_metric_is_not_mixed_with_what_it_was(place, own):
    folder = place.run("metric", "data.end_id=1", MINE)
    own[1].write_text(METRIC.replace("mean", "amax"))
    with pytest.raises(InputError, match="was made with another content of module own_metric_of_a_test"):
        place.run("metric", "data.end_id=2", MINE)
    place.run("metric", "data.end_id=2")  # without it the records belong together
    text = "brightness=own_metric_of_a_test.Brightness"
    metric = add_metric.chosen(text, {}, loaded := finished.load(folder), [])
    with pytest.raises(InputError, match="metric: some images have brightness of another content of module own_metric"):
        add_metric.values(metric, loaded, [])
    own[1].write_text(METRIC)
    add_metric.add(folder, metric, add_metric.values(metric, loaded, []))
    assert read_record(record_path(folder, 1))[0]["digests"].keys() == read_record(record_path(folder, 0))[0]["digests"].keys()


def test_a_metric_of_the_measurement_is_not_added_with_a_changed_operator(place, own):
    folder = place.run("measured", "data.end_id=1", OWN)
    own[0].write_text(OPERATOR.replace("1", "2"))
    trusted = ["tests.worlds.own_metrics.Misfit", OWN.partition("=")[2]]
    metric = add_metric.chosen("misfit=tests.worlds.own_metrics.Misfit", {}, loaded := finished.load(folder), trusted)
    with pytest.raises(InputError, match=f"image 0 was made with another content of {MODULE}; put it back"):
        add_metric.values(metric, loaded, trusted)


@pytest.mark.parametrize("lost", [None, "", "data: [", "null"])
def test_a_run_whose_config_is_lost_goes_on(place, lost):
    """By the fingerprint of its records, without the lock too."""
    whole = runs.scores(runs.metrics_of(place.run("whole", "data.end_id=2")))
    name = f"lost_{lost and len(lost)}"
    config = (folder := place.run(name, "data.end_id=1")) / "config.yaml"
    text = config.read_text()
    claim_path(folder).unlink()
    config.unlink() if lost is None else config.write_text(lost)
    before = contents(folder)
    with pytest.raises(InputError, match="00000.npz belongs to another configuration"):
        place.run(name, "data.end_id=1", "seed=7")
    assert contents(folder) == before
    place.run(name, "data.end_id=2")
    assert runs.scores(runs.metrics_of(folder)) == whole and config.read_text() == text.replace("end_id: 1", "end_id: 2")
