"""The aligned mean in the tables: beside the pick, where the records have it."""

import pytest

from tests.worlds.synthetic import write_run
from utils.analysis import runs
from utils.analysis.columns import KINDS
from utils.analysis.comparison import compare
from utils.analysis.experiments import gather
from utils.analysis.tables import build, cells, markdown

OLD, NEW = [["0", "180"]] * 2, [["0", "failed"], ["180", "0"]]
HEAD = "aligned mean PSNR (dB)"


@pytest.fixture
def summaries(tmp_path, composed):
    """summaries(*names) of a run from before there was an aligned mean, and of two with it."""
    write_run(tmp_path, composed, OLD, name="old")
    write_run(tmp_path, composed, NEW, name="new", means=[26.0, 27.0])
    write_run(tmp_path, composed, NEW, name="better", means=[27.0, 28.5])

    def of(*names, baseline=None):
        return compare(gather([runs.load(tmp_path / name) for name in names]), baseline)

    return of


def column(table, head):
    at = [c.head for c in table.columns].index(head)
    return [row[at] for row in cells(table, lambda text: text)]


@pytest.mark.heavy
@pytest.mark.parametrize("kind", [k for k, (_, heads) in KINDS.items() if any(c.key == "aligned_mean" for c in heads)])
def test_an_older_run_has_a_dash_and_older_runs_alone_no_column(summaries, kind):
    if kind == "tasks":
        pytest.skip("needs trivial reconstructions")
    table = build(kind, summaries("old", "new"))
    assert set(column(table, HEAD)) == {"–", "26.50 ± 0.71"}
    assert HEAD not in markdown(build(kind, summaries("old"))) and "Aligned mean:" not in markdown(
        build(kind, summaries("old"))
    )
    assert "Aligned mean:" in markdown(table)


def test_the_pick_is_never_without_the_aligned_mean():
    """In every kind of table with a column of the pick's PSNR."""
    for kind, (_, heads) in KINDS.items():
        keys = {column.key for column in heads}
        picks = {"pick_psnr", "psnr_aligned.pick", "robust.pick", "paired.pick_psnr"} & keys
        assert bool(picks) == bool({"aligned_mean", "paired.aligned_mean"} & keys) or kind == "failures", kind


@pytest.mark.heavy
def test_it_is_paired_image_by_image(summaries):
    table = build("paired", summaries("new", "better", baseline="new"))
    assert column(table, "PSNR: aligned mean (dB)")[0] == "+1.25"  # of so few images no interval
    assert "PSNR: aligned mean (dB)" not in markdown(build("paired", summaries("new", "old", baseline="new")))


def test_a_named_column_stays_though_no_run_has_it(summaries):
    assert column(build("quality", summaries("old"), ["experiment", "aligned_mean"]), HEAD) == ["–"]
