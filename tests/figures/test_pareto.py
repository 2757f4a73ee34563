"""The figure of quality and success against decoder passes."""

import pytest

from tests.worlds.synthetic import write_run
from utils.analysis import runs
from utils.analysis.costs import cost, mean_std
from utils.analysis.experiments import gather
from utils.figures import comparison, pareto
from utils.figures.style import MARKERS, plt

LABELS = [["0", "failed", "180", "mixed"], ["failed", "failed", "failed", "failed"]]


@pytest.fixture(scope="module")
def experiments(tmp_path_factory, composed):
    folder = tmp_path_factory.mktemp("runs")
    for name in ("exp0", "exp1", "exp2"):
        write_run(folder, composed, LABELS, name=name)
    return gather([runs.load(path) for path in runs.find([folder])])


def test_the_front_is_what_nothing_beats_for_less():
    assert pareto.best_for_less([3, 1, 2, 2, 4], [5, 1, 1, 4, 5]) == [1, 3, 0]
    assert pareto.best_for_less([1, 1], [2, 3]) == [1]


def points(axis):
    """[(passes, value)] of one panel."""
    marked = [line for line in axis.lines if line.get_marker() in MARKERS]
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in marked]


def test_points_stand_at_the_passes_and_the_rate_of_each_experiment(experiments):
    quality, success, spent = pareto.draw(experiments).axes
    picks = [mean_std(e, "psnr_aligned.pick")["mean"] for e in experiments]
    for axis, values in ((quality, picks), (success, [50.0] * 3)):
        assert points(axis) == [(cost(e)["passes"], value) for e, value in zip(experiments, values)]
    products = [cost(e)["time_x_memory_mb_s"] for e in experiments]
    assert points(spent) == list(zip(products, picks)) and "memory" in spent.get_xlabel()
    assert not quality.texts and not success.texts  # names stand in a legend outside, where none stands on another
    assert [t.get_text() for t in spent.get_legend().get_texts()] == ["exp0", "exp1", "exp2"]
    assert success.get_ylim()[1] == 100
    plt.close("all")


def test_a_run_without_passes_has_its_place(experiments, monkeypatch):
    """An algorithm without a network has none, and a logarithmic axis no place for it."""
    monkeypatch.setattr(pareto, "cost", lambda e: cost(e) | ({"passes": 0.0} if e is experiments[1] else {}))
    axes = pareto.draw(experiments).axes
    assert [axis.get_xscale() for axis in axes] == ["linear", "linear", "log"]
    assert [points(axis)[1][0] for axis in axes[:2]] == [0.0, 0.0]
    plt.close("all")


@pytest.mark.heavy
@pytest.mark.parametrize("label, shown", [("failed", 0.0), ("0", 100.0)])
@pytest.mark.parametrize("images", [1, 7, 10])
def test_experiments_without_or_with_nothing_but_successes_have_their_point(tmp_path, composed, label, shown, images):
    for name in ("exp0", "exp1", "exp2"):
        write_run(tmp_path, composed, [[label] * 4] * images, name=name)
    _, success, _ = pareto.draw(gather([runs.load(path) for path in runs.find([tmp_path])])).axes
    assert [value for _, value in points(success)] == [shown] * 3
    spans = [line.get_segments()[0] for line in success.collections]
    assert any(low[1] != high[1] for low, high in spans) == (images >= 5)  # of fewer an interval says nothing
    plt.close("all")


@pytest.mark.heavy
def test_numbers_stand_at_the_ticks(experiments):
    """Text is not read as mathematics, so the formulas of matplotlib's own labels would stand there as they are."""
    figure = pareto.draw(experiments)
    for axis in figure.axes:
        axis.set_xlim(350, 5500)
    figure.canvas.draw()
    said = [t.get_text() for axis in figure.axes for t in axis.get_xticklabels(which="both")]
    assert any(said) and not [text for text in said if text and not text.replace(".", "").isdigit()]
    plt.close("all")


@pytest.mark.heavy
def test_it_needs_two_experiments_and_no_labels(experiments, tmp_path, composed):
    assert "pareto" not in [name for name, _ in comparison.every(experiments[:1])]
    assert "pareto" in [name for name, _ in comparison.every(experiments[:2])]
    for name in ("a", "b"):
        write_run(tmp_path, composed, LABELS, name=name)
    unlabelled = gather([runs.load(path) for path in runs.find([tmp_path])])
    for e in unlabelled:
        e.runs[0].metrics.modes = None
    assert [axis.get_ylabel() for axis in pareto.draw(unlabelled).axes] == ["label-free pick (dB)", ""]
    plt.close("all")
