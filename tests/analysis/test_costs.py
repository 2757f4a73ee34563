"""What an image costs in units of one decoder pass of the same run: all of its time, by the run's own chains."""

import json

import pytest

from tests.worlds.synthetic import write_run
from utils.analysis import costs
from utils.analysis.comparison import compare
from utils.analysis.experiments import gather
from utils.analysis.runs import find, load
from utils.analysis.tables import build, markdown

ONE = [["0", "180"]]
PHASED = ("pruning_step=400", "optimization_step=200")  # pre_pruning, post_pruning_pre_optimization, optimization


def write(place, composed, phases=None, compile_s=None, **run):
    """A run whose chains took {phase: (seconds, passes)}."""
    path = write_run(place, composed, ONE, **run) / "metrics.json"
    metrics = json.loads(path.read_text())
    for name, (seconds, passes) in (phases or {}).items():
        metrics["time"]["phases"][name] |= {"chain_s": seconds, "chain_passes": passes}
    metrics["time"]["compile_s"] = compile_s
    path.write_text(json.dumps(metrics))


def experiments(place, pool=False):
    return gather([load(path) for path in find([place])], pool)


def cost_table(place):
    return markdown(build("cost", compare(experiments(place))))


def test_the_unit_is_a_pass_of_the_last_chain_and_the_time_all_of_an_image(tmp_path, composed):
    """Early passes may be a coarse level's, or hold a mechanism; the last phase may have no chain."""
    chains = {"pre_pruning": (1.0, 1000), "post_pruning_pre_optimization": (0.4, 20)}
    write(tmp_path, composed, chains, overrides=PHASED, seconds=3.0)
    (experiment,) = experiments(tmp_path)
    assert costs.in_passes(experiment) == pytest.approx(3.0 / (0.4 / 20))


def test_each_run_has_its_own_unit(tmp_path, composed):
    """The second machine is twice as slow in everything: it costs the same."""
    write(tmp_path, composed, {"sampling": (1.0, 100)}, seconds=2.0)
    write(tmp_path, composed, {"sampling": (2.0, 100)}, seconds=4.0, name="other", seed=43)
    (experiment,) = experiments(tmp_path, pool=True)
    assert len(experiment.runs) == 2 and costs.in_passes(experiment) == pytest.approx(200)


@pytest.mark.parametrize("phases, compile_s", [({}, None), ({"sampling": (1.0, 100)}, 30.0), ({"sampling": (0.0, 0)}, None)])
def test_it_is_not_known_of_older_and_of_compiled_runs(tmp_path, composed, phases, compile_s):
    write(tmp_path, composed, phases, compile_s)
    assert costs.in_passes(experiments(tmp_path)[0]) is None


def test_the_table_of_costs_has_it_where_any_run_does(tmp_path, composed):
    write(tmp_path, composed, name="older")
    assert "time in decoder passes" not in cost_table(tmp_path)
    write(tmp_path, composed, {"sampling": (1.0, 100)}, name="timed")
    lines = cost_table(tmp_path).splitlines()
    column = next(line for line in lines if "experiment" in line).split("|").index(" time in decoder passes ")
    shown = {name: next(line for line in lines if f"| {name} |" in line).split("|")[column] for name in ("older", "timed")}
    assert {name: cell.strip(" *") for name, cell in shown.items()} == {"older": "–", "timed": "200"}


@pytest.mark.program
@pytest.mark.parametrize("batch", [1, 2])
def test_a_run_times_its_chains(run, batch):
    """Two images of four particles, three steps of two iterations; the pruning leaves two for the last of these."""
    _, metrics = run(f"batch_images={batch}", "pruning_step=600", "pruning_keep=2")
    phases = metrics["time"]["phases"]
    assert [phase["chain_passes"] for phase in phases.values()] == [2 * 4 * 2 * 2, 2 * 2 * 2 * 1]
    assert sum(p["chain_passes"] for p in phases.values()) == 2 * sum(p["passes"] for p in phases.values())
    assert all(0 < phase["chain_s"] < phase["time_s"] for phase in phases.values())
