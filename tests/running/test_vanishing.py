"""Data that go away or change while a run goes on, or between its runs: named in one line, records kept, never a whole set."""

import re
import shutil

import pytest

import posterior_sample
from tests.worlds import runs
from tools import status
from utils.errors import InputError
from utils.records.folder import RunFolder
from utils.running import sampling

pytestmark = pytest.mark.program

REMEDY = "put it back; finished images are kept, and the same command continues"
TWO_OF_3 = r"went away or changed while the run was at work \(done: 2 of 3 images\)"


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_prior, no_pictures):
    return runs.Place(tmp_path_factory.mktemp("vanishing"), tiny_prior, images=3)


def remove(path):
    path.unlink()


def replace(path):
    shutil.copy(path.with_name("00000.png"), path)


def cut(path):
    path.write_bytes(path.read_bytes()[:80])


@pytest.mark.parametrize(
    "happens, line",
    [
        (remove, r"00001\.png cannot be read \(No such file or directory\)"),
        (cut, r"00001\.png cannot be read \(.*\)"),
        (replace, r"00001\.png has changed since the run began"),
    ],
)
def test_an_image_that_goes_away_or_changes_is_named_and_the_others_are_sampled(place, happens, line, monkeypatch):
    name = happens.__name__
    images = shutil.copytree(place.images, place.folder / f"images_{name}")
    overrides = (f"data.root={images}", "data.end_id=null", "batch_images=1")
    add = RunFolder.add

    def add_and_lose(self, record, *rest):
        add(self, record, *rest)
        if record["image_id"] == 0:
            happens(images / "00001.png")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "add", add_and_lose)
        with pytest.raises(InputError, match=rf"^data\.root: 00001\.png {TWO_OF_3}; {REMEDY}$"):
            place.run(name, *overrides)
    folder = place.path(name)
    assert runs.metrics_of(folder)["metadata"]["image_ids"] == [0, 2]
    assert re.search(f"WARNING image 1 is left out: .*{line}; put it back", (folder / "run.log").read_text())
    shutil.copy(place.images / "00001.png", images / "00001.png")
    place.run(name, *overrides)
    assert runs.metrics_of(folder)["metadata"]["image_ids"] == [0, 1, 2]


@pytest.mark.parametrize("how", ["batch_images=3", "workers=2"])
def test_what_is_lost_of_a_batch_or_of_a_worker_costs_no_other_image(place, how, monkeypatch):
    name = how.partition("=")[0]
    images = shutil.copytree(place.images, place.folder / f"images_of_{name}")
    sample_all = posterior_sample.sample_all

    def lose_and_sample(*arguments):
        (images / "00000.png").unlink()
        return sample_all(*arguments)

    monkeypatch.setattr(posterior_sample, "sample_all", lose_and_sample)
    with pytest.raises(InputError, match=rf"^data\.root: 00000\.png {TWO_OF_3}; {REMEDY}$"):
        place.run(name, f"data.root={images}", "data.end_id=null", how)
    assert runs.metrics_of(place.path(name))["metadata"]["image_ids"] == [1, 2]


def test_where_all_files_are_gone_the_run_ends_at_once(place, monkeypatch):
    images = shutil.copytree(place.images, place.folder / "images_share")
    add, load, loads = RunFolder.add, sampling.load_batch, []

    def add_and_lose(self, *rest):
        add(self, *rest)
        shutil.rmtree(images)

    def load_and_count(*arguments):
        loads.append(arguments)
        return load(*arguments)

    monkeypatch.setattr(RunFolder, "add", add_and_lose)
    monkeypatch.setattr(sampling, "load_batch", load_and_count)
    with pytest.raises(InputError, match=rf"^data\.root: .*00001\.png cannot be read \(.*\); {REMEDY}$"):
        place.run("share", f"data.root={images}", "data.end_id=null", "batch_images=1")
    assert len(loads) == 2 and runs.metrics_of(place.path("share"))["metadata"]["image_ids"] == [0]


def test_an_image_may_go_once_its_turn_is_over(place, monkeypatch):
    images = shutil.copytree(place.images, place.folder / "images_late")

    load = sampling.load_batch

    def load_and_lose(parts, settings, batch):
        result = load(parts, settings, batch)
        for image in batch:
            image.path.unlink()
        return result

    monkeypatch.setattr(sampling, "load_batch", load_and_lose)
    folder = place.run("late", f"data.root={images}", "data.end_id=3", "chain_check=false", "batch_images=3")
    assert runs.metrics_of(folder)["metadata"]["image_ids"] == [0, 1, 2]


def test_a_set_that_lost_a_file_is_not_called_done(place):
    images = shutil.copytree(place.images, place.folder / "images_less")
    overrides = (f"data.root={images}", "data.end_id=null")
    place.run("less", *overrides, "shard=0/2")
    place.run("less", *overrides, "data.end_id=2")  # a smaller selection of the same set forgets nothing
    (images / "00001.png").rename(place.folder / "00001.png")
    (images / "00002.png").rename(place.folder / "00002.png")
    (place.path("less") / "records" / "00001.npz").unlink()
    (place.path("less") / "records" / "00002.npz").unlink()
    with pytest.raises(InputError, match=r"^data\.root: 00001\.png and 1 more of the run .*less is no longer there; put"):
        place.run("less", *overrides)
    (place.path("less") / "config.yaml").write_text(
        (place.path("less") / "config.yaml").read_text().replace("end_id: 2", "end_id: null")
    )
    assert "1 of 3 images done" in next(status.describe(place.path("less")))


@pytest.mark.parametrize("content", ["", "[", "null", "3", '{"a": 1}', "[1, null]", "[" * 10_000])
def test_a_list_of_files_that_is_damaged_is_written_anew(place, content):
    folder = place.run("list", "data.end_id=1")
    (folder / "images.json").write_text(content)
    place.run("list", "data.end_id=1")
    assert (folder / "images.json").read_text() == '[\n "00000.png"\n]'
