"""A run with children in the comparison: how many particles it had, what they cost, and figures with a place for each."""

import pytest

from utils.analysis import runs
from utils.analysis.comparison import summarise
from utils.analysis.experiments import gather
from utils.figures.comparison import every
from utils.figures.style import particle_title
from utils.records.files import read_record
from utils.records.kept import read_kept, write_kept


@pytest.mark.parametrize("coupling, after", [(0, 4), (0.3, 6)], ids=["in their place", "coupled"])
def test_children_count_as_particles_and_their_passes_as_cost(run, coupling, after):
    """Three annealing steps of two passes each, pruned to two of four particles after the first."""
    folder, _ = run("pruning_step=700", "children=2", f"coupling_scale={coupling}", f"name=family{after}")
    (experiment,) = gather([runs.load(folder / "metrics.json", from_records=True)])
    row = summarise(experiment)
    assert row["particles"] == f"4 → {after}"
    assert row["cost"]["passes"] == 4 * 2 + after * 4
    assert experiment.values("surviving") == [after, after]
    figures = dict(every([experiment]))
    assert [t.get_text() for t in figures["mode_map"].axes[0].get_xticklabels()] == [f"p{k}" for k in range(8)]


def test_a_place_without_a_picture_says_why(run):
    folder, _ = run("pruning_step=700", "children=2", "pruning.fill=drop", "pruning.near_distance=1e9", "data.end_id=1")
    record, _ = read_record(folder / "records" / "00000.npz")
    (kept,) = record["pruning"]["kept"]
    titles = [particle_title(record, position) for position in range(8)]
    assert titles[kept] == f"p{kept}: has children"
    assert sum(title.endswith("pruned") for title in titles) == 3
    assert titles[6:] == ["p6: not born", "p7: not born"]


def test_kept_evidence_gives_the_same_metrics(run, tmp_path):
    folder, metrics = run("pruning_step=700", "children=2")
    write_kept(tmp_path, [read_record(path)[0] for path in sorted((folder / "records").glob("*.npz"))])
    assert [record["tree"] for record in read_kept(tmp_path / "records.jsonl.gz")]
    again = runs.load(tmp_path / "records.jsonl.gz").metrics
    assert again.tree.parent == metrics["tree"]["parent"] and again.metadata.listed == 8
