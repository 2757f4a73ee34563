"""A run's pictures: drawn once, again where a record has changed, and of many images some on each call."""

import logging
import shutil

import pytest
from PIL import Image

from tests.worlds import runs
from utils.figures import run as run_figures
from utils.figures.run import draw_all

pytestmark = pytest.mark.program


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_prior, no_pictures):
    place = runs.Place(tmp_path_factory.mktemp("figures"), tiny_prior, images=4, overrides=[runs.ANALYTIC])
    return place.run("drawn", "data.end_id=4")


@pytest.fixture
def folder(finished, tmp_path, monkeypatch):
    """A copy, in pages of two images each."""
    monkeypatch.setattr(run_figures, "PAGE", 2)
    return shutil.copytree(finished, tmp_path / "drawn")


def draw(folder):
    return [path.name for path in draw_all(folder)]


FIRST, SECOND = ["grid_results.png", "trace.png"], ["grid_results_2.png", "trace_2.png"]


def test_pages_are_drawn_again_only_where_a_record_changed(folder):
    assert draw(folder) == FIRST + SECOND
    assert draw(folder) == []
    (folder / "records/00003.npz").touch()
    assert draw(folder) == SECOND
    (folder / "trace.png").unlink()
    (folder / "grid_results_2.png").write_bytes(b"\x89PNG cut short")
    assert draw(folder) == FIRST + SECOND
    (folder / "records/00000.npz").unlink()  # the others move up, none of them touched
    assert draw(folder) == FIRST + SECOND
    assert Image.open(folder / "trace.png").size[0] > 100


def test_of_many_images_a_call_draws_some_pages_says_so_and_the_next_call_draws_the_next(folder, monkeypatch, caplog):
    monkeypatch.setattr(run_figures, "PAGES", 1)
    with caplog.at_level(logging.INFO, logger="latentdaps"):
        assert draw(folder) == FIRST
        assert caplog.messages == ["pictures: up to image 2 of 4; the same command draws those of the next ones"]
        assert [draw(folder), draw(folder)] == [SECOND, []] and len(caplog.messages) == 1


def test_a_page_from_before_pages_said_what_they_were_drawn_from_is_drawn_anew(folder):
    for name in FIRST + SECOND:
        Image.new("RGB", (4, 4)).save(folder / name)
    assert draw(folder) == FIRST + SECOND
