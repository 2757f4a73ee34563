"""A measurement beside what its result would give: the panels, their scale, and the picks of other runs for the same file."""

import numpy as np
import pytest

from tests.worlds.synthetic import write_run
from utils.analysis import runs
from utils.analysis.experiments import gather
from utils.figures import comparison, measured
from utils.figures.style import plt
from utils.records.files import read_record, record_paths, write_record

LABELS = [["0", "180"], ["0", "failed"]]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def measurement(parent, composed, name, files, **more):
    """A run without a truth on the files of these digests; more: of its records."""
    folder = write_run(parent, composed, LABELS, name=name, truth=False, means=[26.0, 27.0])
    for path, sha256 in zip(record_paths(folder), files):
        record, arrays = read_record(path)
        y = np.full((3, 24, 24), 2.0, np.float32)
        y[:, :3] = np.nan
        record |= {"sha256": sha256, "r_factor": [0.125, 0.25], "r_factor_noise": 0.0625, "scale": 0.5, **more}
        write_record(folder, record, arrays | {"y": y, "calculated": np.full((3, 24, 24), 1.0, np.float32)})
    return folder


def drawn(*folders, count=2):
    first, *others = gather([runs.load(folder) for folder in folders])
    return measured.draw(first, others, count)


def panels(figure):
    return [axis for axis in figure.axes if axis.images]


def test_measured_calculated_and_difference_stand_side_by_side_on_one_scale(tmp_path, composed):
    folder = measurement(tmp_path, composed, "ours", "ab", floor_std=0.5, decoder_floor=2.0)
    figure = drawn(folder)
    titles = [axis.get_title() for axis in panels(figure)]
    assert titles[:3] == ["measured\nR of noise alone 0.0625", "calculated", "difference"]
    assert titles[3].splitlines() == ["0.png", "pick", "R 0.1250", "to the noise"] and len(titles) == 2 * 6
    assert titles[4].startswith("mean of 2") and titles[5].startswith("std")
    shown = [axis.images[0].get_array() for axis in panels(figure)[:3]]
    assert [float(np.ma.masked_invalid(values)[10, 10]) for values in shown] == [2.0, 1.0, 1.0]
    assert np.ma.masked_invalid(shown[0]).mask[0].all() and not np.ma.masked_invalid(shown[1]).mask.any()
    assert len({axis.images[0].norm for axis in panels(figure)[:3]}) == 1
    assert sum(axis.get_label() == "<colorbar>" for axis in figure.axes) == 2


def test_the_calculated_spectrum_takes_the_fitted_exposure(tmp_path, composed):
    figure = drawn(measurement(tmp_path, composed, "ours", "ab", exposure=[0.5, 0.5]))
    assert [float(axis.images[0].get_array()[10, 10]) for axis in panels(figure)[1:3]] == [0.5, 1.5]


def test_the_pick_of_another_run_for_the_same_file_stands_beside_ours(tmp_path, composed):
    ours = measurement(tmp_path, composed, "ours", "ab")
    classical = measurement(tmp_path, composed, "classical", "xb", r_factor=[0.75, 0.5])
    figure = drawn(ours, classical)
    (beside,) = (axis for axis in panels(figure) if axis.get_title().startswith("classical"))
    assert beside.get_title().splitlines() == ["classical", "R 0.7500"]
    pictures = read_record(record_paths(classical)[1])[1]["images"]
    assert np.array_equal(beside.images[0].get_array(), pictures[0])
    assert len(panels(drawn(ours))) == 12, "without another run no column"


def test_a_run_with_truths_has_no_such_figure(tmp_path, composed):
    assert drawn(write_run(tmp_path, composed, LABELS, name="known")) is None


@pytest.mark.heavy
def test_it_is_among_the_figures_of_a_comparison(tmp_path, composed):
    (experiment,) = gather([runs.load(measurement(tmp_path, composed, "ours", "ab"))])
    assert "measured_ours" in dict(comparison.every([experiment], 1))


def test_a_grid_without_truths_has_no_column_for_them(tmp_path, composed):
    from utils.figures import run

    folder = measurement(tmp_path, composed, "ours", "ab")
    figure = run.draw_grid([read_record(path) for path in record_paths(folder)])
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[0].startswith("0: measurement") and titles[1].startswith("p0") and len(titles) == 2 * 5
    assert all(axis.images for axis in figure.axes)
