"""When the parts act, and that each of them costs nothing and changes nothing when it is off."""

from types import SimpleNamespace

import pytest
import torch

from operators.phase_retrieval import PhaseRetrieval
from utils.config.check import check as check_config
from utils.errors import InputError
from utils.mechanisms.registry import builder, check, switched_on
from utils.records.metrics import check_metrics
from utils.sampling.phases import Phases
from utils.sampling.schedule import StepClock, annealing_sigmas

CLOCK = StepClock(annealing_sigmas(50, 10.0, 0.1))
BOTH = ("pre_pruning", "post_pruning_pre_optimization", "optimization")


def course_of(composed, *overrides):
    """(settings, course) of a run of 50 annealing steps."""
    settings = check_config(composed("sampler.annealing_scheduler_config.num_steps=50", *overrides))
    return settings, check(settings, CLOCK)


def built(composed, *overrides):
    """{name: the mechanism} of those that the switches ask for."""
    settings, course = course_of(composed, *overrides)
    prior = SimpleNamespace(latent_shape=(4, 16, 16))
    return {plan.name: builder(plan)(settings, course, prior, PhaseRetrieval()) for plan in switched_on(settings)}


@pytest.mark.parametrize(
    "switch, index", [(200, 40), (180, 41), (300, 35), (420, 29), (980, 1), (20, 49), (199, 41), (201, 40)]
)
def test_the_event_falls_on_the_first_step_at_or_below_the_switch(composed, switch, index):
    m = built(composed, f"pruning_step={switch}", f"optimization_step={switch}", "optimization.every=1", "children=1")
    assert [i for i in range(50) if m["pruning"].acts(i)] == [i for i in range(50) if m["children"].acts(i)] == [index - 1]
    assert [i for i in range(50) if m["optimization"].acts(i)] == list(range(index, 50))


@pytest.mark.parametrize(
    "switches, counts",
    [
        ({}, {"sampling": 50}),
        ({"pruning_step": 200}, {"pre_pruning": 40, "post_pruning": 10}),
        ({"optimization_step": 300}, {"pre_optimization": 35, "optimization": 15}),
        ({"pruning_step": 300, "optimization_step": 200}, dict(zip(BOTH, (35, 5, 10)))),
        ({"pruning_step": 200, "optimization_step": 200}, dict(zip(BOTH, (40, 0, 10)))),
    ],
)
def test_phases(composed, switches, counts):
    phases = Phases(course_of(composed, *(f"{key}={value}" for key, value in switches.items()))[1].openings)
    names = [phases.of(i) for i in range(50)]
    assert phases.names == tuple(counts)
    assert {name: names.count(name) for name in phases.names} == counts
    assert names == sorted(names, key=phases.names.index)


def test_every_kth_step_and_always_the_last(composed):
    mechanism = built(composed, "optimization_step=200", "optimization.every=4")["optimization"]
    assert [i for i in range(50) if mechanism.acts(i)] == [40, 44, 48, 49]


@pytest.mark.heavy
def test_repulsion_ends_at_its_step_or_with_the_first_event(composed):
    def last(*overrides):
        """The last step in which it acts, and the last in which it may stay in the computation."""
        mechanism = built(composed, "repulsion_scale=0.1", *overrides)["repulsion"]
        return tuple(max(i for i in range(50) if ask(i)) for ask in (mechanism.acts, mechanism.may_stay))

    assert last("repulsion.end_step=200") == (39, 49)
    assert last("repulsion.end_step=200", "pruning_step=500") == (24, 24)
    assert last("repulsion.end_step=200", "optimization_step=600") == (19, 19)
    assert last("repulsion.end_step=600", "optimization_step=200") == (19, 39)
    with pytest.raises(InputError, match="repulsion.end_step=1000: the annealing begins at t = 1000"):
        built(composed, "repulsion_scale=0.1", "repulsion.end_step=1000")
    assert "repulsion" not in built(composed, "repulsion_scale=0")


@pytest.mark.parametrize(
    "overrides, message",
    [
        (("pruning_step=1000",), "pruning_step=1000: nothing has been sampled yet"),
        (("optimization_step=1000",), "optimization_step=1000: nothing has been sampled yet"),
        (("pruning_step=100",), "pruning_step=100: the last of 3 annealing steps is at t = 333.333"),
        (("optimization_step=0",), "optimization_step=0: the last of 3 annealing steps"),
        (("pruning_step=500", "pruning_keep=5"), "pruning_keep=5: must not exceed num_samples=4"),
        (("pruning_step=500", "num_samples=1", "pruning_keep=1"), "nothing to prune with num_samples=1"),
        (("repulsion.place=nowhere",), "repulsion.place=nowhere"),
        (("optimization.lr=-1",), "optimization.lr=-1"),
        (("pruning.fill=hope",), "pruning.fill=hope"),
        (("repulsion.bandwidth=-2",), "repulsion.bandwidth"),
    ],
)
def test_an_event_that_cannot_be_is_refused(composed, tiny, overrides, message):
    import posterior_sample

    with pytest.raises(InputError) as caught:
        posterior_sample.run(composed(*tiny, *overrides))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def record_of(folder):
    from utils.records.files import read_record

    return read_record(folder / "records" / "00000.npz")


@pytest.mark.program
@pytest.mark.parametrize(
    "overrides",
    [
        ("repulsion_scale=0", "repulsion.place=chain"),
        ("pruning_step=-1", "pruning.fill=clone"),
        ("optimization_step=-1", "optimization.lr=1"),
    ],
)
def test_a_part_that_is_off_changes_no_bit(run, overrides):
    plain, _ = run("data.end_id=1")
    toggled, metrics = run("data.end_id=1", "name=toggled", *overrides)
    assert torch.equal(*(torch.from_numpy(record_of(folder)[1]["z"]) for folder in (plain, toggled)))
    assert metrics["pruning"] is None and metrics["optimization"] is None
    assert list(metrics["time"]["phases"]) == ["sampling"]
    assert metrics["time"]["phases"]["sampling"]["decoder_forward_backward"] == 6  # not one pass more


@pytest.mark.program
def test_all_parts_together_report_their_phases(run):
    folder, m = run(
        "sampler.annealing_scheduler_config.num_steps=10",
        "repulsion_scale=0.3",
        "repulsion.place=chain",
        "pruning_step=500",
        "optimization_step=200",
        "optimization.max_iterations=3",
        "optimization.every=1",
        "name=all",
        pictures=True,
    )
    phases = m["time"]["phases"]
    assert tuple(phases) == BOTH
    assert [phases[name]["steps"] for name in BOTH] == [2 * 5, 2 * 3, 2 * 2]  # two images
    assert phases["pre_pruning"]["decoder_forward_backward"] == 5 * 2  # repulsion in the chain is free
    assert phases["pre_pruning"]["decoder_forward"] == 1  # exact losses for the pruning
    assert phases["post_pruning_pre_optimization"]["decoder_forward_backward"] == 3 * 2
    assert phases["optimization"]["denoiser_calls"] == 2 * 2
    assert sum(p["time_s"] for p in phases.values()) == pytest.approx(m["time"]["total_s"])
    assert set(m["vram"]) == {f"{name}_peak_mb" for name in BOTH}
    assert m["vram"]["post_pruning_pre_optimization_peak_mb"] < m["vram"]["pre_pruning_peak_mb"]
    assert m["cost"]["time_x_memory_mb_s"] == pytest.approx(sum(phases[n]["time_s"] * m["vram"][f"{n}_peak_mb"] for n in BOTH))
    for i in range(2):
        kept, dropped = m["pruning"]["kept"][i], m["pruning"]["dropped"][i]
        assert len(kept) == 2 and sorted(kept + dropped) == [0, 1, 2, 3]
        assert [k for k in range(4) if m["psnr"]["sample"][i][k] is not None] == kept
        assert m["selection"]["picked"][i] in kept
        assert [m["optimization"]["calls"][i][k] for k in range(4)] == [2 if k in kept else 0 for k in range(4)]
    assert m["pruning"]["step_index"] == 5 and m["pruning"]["timestep"] == 500
    assert (folder / "grid_results.png").exists()


@pytest.mark.program
def test_both_events_on_the_same_step(run):
    _, m = run(
        "pruning_step=500",
        "optimization_step=500",
        "sampler.annealing_scheduler_config.num_steps=4",
        "optimization.max_iterations=1",
        "name=same",
    )
    middle = m["time"]["phases"]["post_pruning_pre_optimization"]
    assert middle["steps"] == 0 and m["vram"]["post_pruning_pre_optimization_peak_mb"] is None
    assert m["cost"]["time_x_memory_mb_s"] > 0
    assert tuple(m["time"]["phases"]) == BOTH
    check_metrics(m, "metrics.json")  # the tools can read it
