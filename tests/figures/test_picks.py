"""What several runs would hand out for the same images, side by side."""

import numpy as np
import pytest

from tests.worlds.synthetic import picture, write_run
from utils.analysis import runs
from utils.analysis.experiments import gather
from utils.figures import picks
from utils.figures.style import plt
from utils.records.files import read_record, record_paths, write_record


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def drawn(*folders, count=4):
    return picks.draw(gather([runs.load(folder) for folder in folders]), count)


def write(parent, composed, labels, name, digests="ab"):
    folder = write_run(parent, composed, labels, name=name)
    for path, digest in zip(record_paths(folder), digests):
        record, arrays = read_record(path)
        write_record(folder, record | {"sha256": digest}, arrays)
    return folder


def test_each_pick_stands_beside_the_truth_and_a_turned_one_is_turned_back(tmp_path, composed):
    first = write(tmp_path, composed, [["180", "0"], ["0", "failed"]], "first")
    other = write(tmp_path, composed, [["0", "0"], ["failed", "0"]], "other")
    axes = np.array(drawn(first, other).axes).reshape(2, 3)
    for row, image in zip(axes, (0, 1)):
        for axis in row:  # the world's particles are the truth itself, some of them turned
            np.testing.assert_array_equal(axis.images[0].get_array(), picture(image))
    assert [axis.get_title().splitlines()[0] for axis in axes[0]] == ["truth 0", "first", "other"]
    assert "180°" in axes[0, 1].get_title() and "failed" in axes[1, 2].get_title()


def test_an_image_is_known_by_its_file_and_one_that_a_run_lacks_has_a_note(tmp_path, composed):
    first = write(tmp_path, composed, [["0"], ["0"]], "first", digests="ab")
    other = write(tmp_path, composed, [["0"], ["0"]], "other", digests="bc")
    axes = np.array(drawn(first, other).axes).reshape(2, 3)
    assert axes[0, 2].texts[0].get_text() == "other\nnot run" and not axes[0, 2].images
    np.testing.assert_array_equal(axes[1, 2].images[0].get_array(), picture(0))  # the other run's first image is "b"


def test_only_the_first_images_are_drawn_and_one_run_alone_is_not(tmp_path, composed):
    first = write(tmp_path, composed, [["0"], ["0"]], "first")
    other = write(tmp_path, composed, [["0"], ["0"]], "other")
    assert len(drawn(first, other, count=1).axes) == 3
    assert drawn(first) is None


def test_runs_that_share_no_image_have_nothing_to_show_side_by_side(tmp_path, composed):
    first = write(tmp_path, composed, [["0"]], "first", digests="a")
    assert drawn(first, write(tmp_path, composed, [["0"]], "other", digests="b")) is None


def test_the_pick_is_found_by_its_number_among_those_that_are_left(tmp_path, composed):
    first = write(tmp_path, composed, [["0", None, "0"]], "first")
    (path,) = record_paths(first)
    record, arrays = read_record(path)
    arrays["images"][1] = 7  # particle 2, the second of those that are left
    write_record(first, record | {"selection": record["selection"] | {"picked": 2}}, arrays)
    other = write(tmp_path, composed, [["0", "0", "0"]], "other")
    shown = drawn(first, other).axes[1].images[0].get_array()
    assert (np.asarray(shown) == 7).all()
