"""The exchanges of a run as a table: who gave which channel to whom."""

import pytest

from utils.analysis import runs
from utils.analysis.ancestry import ancestry
from utils.mechanisms.recombination.plan import channel


@pytest.mark.parametrize(
    "index, donor, turned, cell",
    [(1, 1, False, "own"), (1, 1, True, "own turned"), (1, 0, False, "p0"), (2, 0, True, "p0 turned")],
)
def test_a_cell_names_the_giver_and_the_turn(index, donor, turned, cell):
    assert channel(index, donor, turned) == cell


@pytest.mark.program
def test_a_run_lists_its_children_alone(run):
    steps = ("sampler.annealing_scheduler_config.num_steps=6", "recombination_step=500", "recombination.deviation=0")
    folder, metrics = run(*steps, "recombination.excess=0", "name=exchanged")  # whoever is not the best takes
    [table] = ancestry(runs.load(folder / "metrics.json"), 1)
    changed = [p for event in metrics["recombination"]["events"][0] for p in event["particles"] if p["accepted"]]
    assert len(table.rows) == len(changed) > 0 and {row[0] for row in table.rows} == {0}
    assert [column.head for column in table.columns] == ["image", "t", "child", "red", "green", "blue"]
    first = changed[0]
    assert table.rows[0][2:] == [
        f"p{first['index']}",
        *(channel(first["index"], donor, turned) for donor, turned in zip(first["donors"], first["turned"])),
    ]
    assert [name for name, _ in runs.events(runs.load(folder / "metrics.json"))] == ["exchange"]


@pytest.mark.program
def test_a_run_without_exchanges_has_no_table(run):
    folder, _ = run("name=plain")
    assert ancestry(runs.load(folder / "metrics.json"), 4) == []
