"""A run with children in the comparison: how many particles it had, what they cost, and figures with a place for each."""

import pytest

from utils.analysis import runs
from utils.analysis.comparison import summarise
from utils.analysis.experiments import gather
from utils.figures.comparison import every
from utils.figures.style import particle_title
from utils.records.births import births
from utils.records.files import read_record
from utils.records.kept import KEPT, packed, read_kept

pytestmark = pytest.mark.program


def test_children_count_as_particles_and_their_passes_as_cost(run):
    """Three annealing steps of two passes each, pruned to two of four particles after the first."""
    folder, _ = run("pruning_step=700", "children=2")
    (experiment,) = gather([runs.load(folder / "metrics.json", from_records=True)])
    row = summarise(experiment)
    assert row["particles"] == "4 → 4"
    assert row["cost"]["passes"] == 4 * 2 + 4 * 4
    assert experiment.clusters("surviving") == [[4], [4]]
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
    records = [read_record(path)[0] for path in sorted((folder / "records").glob("*.npz"))]
    (tmp_path / KEPT).write_bytes(packed(records))
    assert [record["tree"] for record in read_kept(tmp_path / "records.jsonl.gz")]
    again = runs.load(tmp_path / "records.jsonl.gz").metrics
    assert again.tree.parent == metrics["tree"]["parent"] and again.metadata.listed == 8


def test_a_run_in_which_parents_stayed_is_read_like_todays(run, tmp_path):
    """As runs with coupling_scale > 0 were written: both are in the block `tree`."""
    folder, _ = run("pruning_step=700", "children=2")
    records = [read_record(path)[0] for path in sorted((folder / "records").glob("*.npz"))]
    for record in records:
        record["tree"]["stay"] = True
        record["run"]["num_children"] = 4
    (tmp_path / KEPT).write_bytes(packed(records))
    old = runs.load(tmp_path / "records.jsonl.gz")
    assert old.metrics.metadata.num_children == 4 and [old.active(i) for i in range(2)] == [6, 6]
    assert summarise(gather([old])[0])["particles"] == "4 → 6"


def test_births_are_read_of_whichever_mechanism_tells_of_them():
    tree, own = {"parent": {"4": 0, "5": 0}, "stay": False}, {"parent": {"6": 4}}
    found = births([tree, own, {"events": []}, None])
    assert [(birth.parent, birth.stay, birth.gain) for birth in found] == [({"4": 0, "5": 0}, False, 1), ({"6": 4}, True, 1)]
    assert births([None]) == []


def test_a_run_folder_with_the_key_of_the_coupling_goes_on_and_is_read(run):
    overrides = ("pruning_step=700", "children=2", "data.end_id=1")
    folder, _ = run(*overrides)
    config = folder / "config.yaml"
    config.write_text(config.read_text() + "coupling_scale: 0.0\n")
    record = (folder / "records" / "00000.npz").read_bytes()
    run(*overrides)
    assert (folder / "records" / "00000.npz").read_bytes() == record, "it goes on"
    config.write_text(config.read_text() + "coupling_scale: 0.0\n")
    assert "coupling_scale" not in runs.load(folder).config
