"""Particles of a sequential population without hope stop early; the others are what they were."""

import numpy as np
import pytest

from tests.worlds import populations, runs
from tests.worlds.populations import IMAGES, NEVER, ONE_BY_ONE, counted, deviations, latents, records
from utils.analysis import runs as finished_runs
from utils.analysis.comparison import compare
from utils.analysis.experiments import gather
from utils.figures.style import particle_title

STEP = 1  # of 3, at t = 667


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_prior, no_pictures):
    return populations.place(tmp_path_factory.mktemp("sequential"), tiny_prior)


@pytest.fixture(scope="module")
def never(place):
    """The run whose certificate never passes."""
    return place.run("never", *ONE_BY_ONE, NEVER)


@pytest.fixture(scope="module")
def stop(never):
    """Thresholds that nothing passes, with an early stop between the first particles of the images, and its limit."""
    early = [deviations(record, STEP) for record in records(never)]
    first = sorted(row[0] for row in early)
    return f"sequential.thresholds={{deviation:-1e9,stop_step:700,stop_deviation:{(first[1] + first[2]) / 2}}}", early


def expected_stops(early, thresholds):
    limit = float(thresholds.rsplit(":", 1)[1].rstrip("}"))
    return [[value > limit for value in row[:-1]] + [False] for row in early]  # in the last round nobody


@pytest.mark.parametrize("batch", [1, 4])
def test_particles_without_hope_stop_early_and_the_others_are_what_they_were(place, never, stop, batch, monkeypatch):
    thresholds, early = stop
    calls = counted(monkeypatch)
    monkeypatch.setattr("sampler.LatentDAPS.probe_peak_mb", lambda self, particles: None)
    folder = place.run(f"stop_{batch}", *ONE_BY_ONE, thresholds, f"batch_images={batch}")
    gone = expected_stops(early, thresholds)
    assert {sum(row) for row in gone} > {0}
    for image in range(IMAGES):
        for one, other, out in zip(latents(folder, image), latents(never, image), gone[image], strict=True):
            assert np.array_equal(one, other) != out
    m, passes = runs.metrics_of(folder), [sum(4 if out else 6 for out in row) for row in gone]
    assert [[i for r in rounds for i in r["stopped"]] for rounds in m["population"]["rounds"]] == [
        [i for i, out in enumerate(row) if out] for row in gone
    ]
    assert calls == {"decode": sum(passes), "denoise": sum(passes) + 3 * 3 * IMAGES, "encode": 3 * IMAGES}
    for image, record in enumerate(records(folder)):
        assert 3 * record["time"]["phases"]["sampling"]["decoder_forward_backward"] == pytest.approx(passes[image])
        assert [value is None for value in record["population"]["signals"]["deviation"]] == gone[image]
        assert len(record["time"]["step_s"]) == 3 and record["population"]["rule"]["stop_step"] == 700
        assert [loss is None for loss in record["trace"]["loss"][2]] == gone[image]
    found = compare(gather([finished_runs.load(folder, from_records=True)]))[0]
    assert found["cost"]["passes"] == pytest.approx(sum(passes) / IMAGES)
    assert f"{sum(map(sum, gone))} of {3 * IMAGES} particles stopped early" in (folder / "eval.md").read_text()
    image = next(i for i, row in enumerate(gone) if row[0])
    assert particle_title(records(folder)[image], 0).startswith("p0: stopped early\n")


def test_a_stopped_particle_ends_as_its_chain_left_it_and_passes_nothing(place, never, stop):
    thresholds, early = stop
    folder = place.run("stop_lenient", *ONE_BY_ONE, thresholds.replace("deviation:-1e9", "deviation:1e9", 1), "batch_images=4")
    gone = expected_stops(early, thresholds)
    for image, record in enumerate(records(folder)):
        first = gone[image].index(False)
        assert record["survivors"] == list(range(first + 1)) and record["selection"]["picked"] == first
        assert record["population"]["rounds"][-1]["passing"] == [first]


def test_what_stopped_is_no_donor(place, never, stop):
    """It took part in the event after which it stopped, and particles of later rounds take nothing from it."""
    thresholds, _ = stop
    exchange = ("recombination_step=700", "recombination.excess=0", "recombination.deviation=0")
    early = [deviations(record, STEP) for record in records(place.run("exchange_all", *ONE_BY_ONE, NEVER, *exchange))]
    first = sorted(row[0] for row in early)
    thresholds = f"sequential.thresholds={{deviation:-1e9,stop_step:700,stop_deviation:{(first[1] + first[2]) / 2}}}"
    one, other = (place.run(f"exchange_{n}", *ONE_BY_ONE, thresholds, *exchange, f"batch_images={n}") for n in (1, 4))
    seen = 0
    for image in range(IMAGES):
        assert np.array_equal(latents(one, image), latents(other, image))
        m = records(one)[image]
        stopped = {i for rounds in m["population"]["rounds"] for i in rounds["stopped"]}
        for event in m["recombination"]["events"]:
            for particle in event["particles"]:
                seen += len(stopped & set(range(particle["index"])))
                assert not (stopped - {particle["index"]}) & set(particle["donors"])
    assert seen


def test_with_two_a_round_one_goes_on_alone(place, stop):
    _, early = stop
    limit = sum(early[0][:2]) / 2  # between the two of the first image
    two = ("population=sequential", "sequential.start=2", "sequential.add=1")
    two += (f"sequential.thresholds={{deviation:-1e9,stop_step:700,stop_deviation:{limit}}}",)
    one, other = (place.run(f"stop_two_{batch}", *two, f"batch_images={batch}") for batch in (1, 4))
    for image in range(IMAGES):
        assert np.array_equal(latents(one, image), latents(other, image))
    assert runs.metrics_of(one)["population"] == runs.metrics_of(other)["population"]
    assert [len(rounds[0]["stopped"]) for rounds in runs.metrics_of(one)["population"]["rounds"]] == [
        sum(value > limit for value in row[:2]) for row in early
    ]
