"""Runs whose particles differ in setting, from the config to the records."""

import pytest

from tests.worlds import runs

PORTFOLIO = "portfolio=[{},{lr:2.0},{tau:1.5,spacing:0.7},{lowpass:0.3,lowpass_until:500}]"


def test_entries_without_a_difference_leave_the_records_as_they_are(run):
    """The fingerprint too, so that such a run goes on with records from before there was a portfolio."""
    plain, alike = run("name=plain")[1], run("portfolio=[{},{lr:1.0}]", "name=alike")[1]
    for metrics in (plain, alike):
        del metrics["metadata"]["overrides"]
    assert runs.scores(plain) == runs.scores(alike)


@pytest.mark.parametrize("number", range(4))
def test_a_single_run_is_the_particle_of_the_batch(run, number):
    batch = run(runs.ANALYTIC, PORTFOLIO, "name=batch", "data.end_id=1")[1]
    single = run(runs.ANALYTIC, PORTFOLIO, "name=single", "data.end_id=1", "num_samples=1", f"first_particle={number}")[1]
    plain = run(runs.ANALYTIC, "name=plain", "data.end_id=1")[1]
    here, there, without = (m["loss"]["sample"][0] for m in (single, batch, plain))
    assert here[0] == pytest.approx(there[number], rel=1e-9)
    assert (there[number] == pytest.approx(without[number], rel=1e-9)) == (number == 0)


@pytest.mark.parametrize(
    "switches",
    [
        ("repulsion_scale=0.3", "pruning_step=700", "optimization_step=400"),
        ("pruning_step=700", "children=2", "coupling_scale=0.3"),
        ("recombination_step=700", "recombination.every=1"),
    ],
    ids=["repulsion, pruning, optimisation", "families", "recombination"],
)
def test_it_goes_with_the_other_mechanisms(run, switches):
    _, metrics = run(PORTFOLIO, *switches)
    assert all(best is not None for best in metrics["psnr"]["max"])
