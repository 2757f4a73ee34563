"""The aligned mean, the spread and the transfer function as pictures."""

import numpy as np
import pytest

from tests.worlds.synthetic import write_run
from utils.analysis import runs
from utils.analysis.experiments import gather
from utils.figures import comparison, run
from utils.records.files import read_record, record_paths


@pytest.fixture
def folder(tmp_path, composed):
    return write_run(tmp_path, composed, [["0", "180"], ["0", "failed"]], means=[26.0, 27.0])


@pytest.fixture(autouse=True)
def closed():
    yield
    run.plt.close("all")


def titles(figure):
    return [axis.get_title() for axis in figure.axes]


def test_mean_and_spread_stand_beside_the_particles_and_the_spread_with_its_warning(folder):
    found = [read_record(path) for path in record_paths(folder)]
    figure = run.draw_grid(found)
    assert titles(figure)[4:6] == ["mean of 2 of 2\n26.0 dB", "std, white: 0.010\nof [0, 1]"]
    assert len(figure.axes) == 2 * 6
    assert np.array_equal(figure.axes[4].images[0].get_array(), found[0][1]["summary_mean"])
    assert "no error bar" in figure.texts[0].get_text()


@pytest.mark.parametrize("picked, quarters", [(0, 0), (1, 2)])
def test_a_mean_that_lies_as_a_turned_pick_is_shown_turned_back(folder, picked, quarters):
    record, arrays = next(read_record(path) for path in record_paths(folder))
    record["selection"]["picked"] = picked  # labelled 0 and 180
    for name in ("summary_mean", "summary_std"):
        arrays[name] = np.arange(arrays[name].size).reshape(arrays[name].shape).astype(np.uint8)
    figure = run.draw_grid([(record, arrays)])
    mean, spread = (axis.images[0].get_array() for axis in figure.axes[4:6])
    assert np.array_equal(mean, np.rot90(arrays["summary_mean"], quarters))
    assert np.array_equal(spread, np.rot90(arrays["summary_std"].astype(float).mean(0), quarters))


def test_without_agreement_there_is_no_spread(folder):
    found = [read_record(path) for path in record_paths(folder)]
    found[0][0]["summary"] |= {"agreeing": [True, False], "psnr": None}
    del found[0][1]["summary_std"]
    assert titles(run.draw_grid(found))[4:6] == ["mean of 1 of 2", "no spread:\nnone agrees"]


def test_a_grid_of_older_records_is_as_it_was(tmp_path, composed):
    old = write_run(tmp_path, composed, [["0", "180"]], name="old")
    figure = run.draw_grid([read_record(path) for path in record_paths(old)])
    assert len(figure.axes) == 4 and "std" not in figure.texts[0].get_text()


@pytest.mark.heavy
def test_the_curve_is_the_mean_over_images_up_to_half_a_cycle(folder):
    (experiment,) = gather([runs.load(folder)])
    figures = dict(comparison.every([experiment], 1))
    line = figures["prtf"].axes[0].get_lines()[0]
    assert np.allclose(line.get_ydata(), np.linspace(1, 0.05, 9)) and np.allclose(line.get_xdata(), np.linspace(0, 0.5, 9))


@pytest.mark.heavy
def test_runs_without_a_summary_have_no_curve(tmp_path, composed):
    write_run(tmp_path, composed, [["0", "180"]])
    assert "prtf" not in dict(comparison.every(gather([runs.load(tmp_path / "exp0")]), 1))
