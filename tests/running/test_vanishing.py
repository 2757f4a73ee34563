"""Data that go away or change while a run goes on, or between its runs: named in one line, records kept, never a whole set."""

import shutil

import pytest

from tests.worlds import runs
from tools import status
from utils.errors import InputError
from utils.records.folder import RunFolder
from utils.running import sampling

pytestmark = pytest.mark.program


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
        (remove, r"00002\.png cannot be read \(No such file or directory\); put it back; finished images are kept"),
        (cut, r"00002\.png cannot be read \(.*\); put it back; finished images are kept"),
        (replace, r"00002\.png has changed since the run began; put it back; finished images are kept"),
    ],
)
def test_an_image_that_goes_away_or_changes_ends_the_run_in_one_line(place, happens, line, monkeypatch):
    name = happens.__name__
    images = shutil.copytree(place.images, place.folder / f"images_{name}")
    overrides = (f"data.root={images}", "data.end_id=null", "batch_images=1")
    add = RunFolder.add

    def add_and_lose(self, record, *rest):
        add(self, record, *rest)
        if record["image_id"] == 0:
            happens(images / "00002.png")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "add", add_and_lose)
        with pytest.raises(InputError, match=f"^data.root: .*{line}, and the same command continues$"):
            place.run(name, *overrides)
    folder = place.path(name)
    assert runs.metrics_of(folder)["metadata"]["image_ids"] == [0, 1]
    shutil.copy(place.images / "00002.png", images / "00002.png")
    place.run(name, *overrides)
    assert runs.metrics_of(folder)["metadata"]["image_ids"] == [0, 1, 2]


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
