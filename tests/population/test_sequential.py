"""A sequential population: particles that are started one after the other are those of a fixed one, and stop in time."""

import numpy as np
import pytest

from tests.worlds import populations, runs
from tests.worlds.populations import ALWAYS, IMAGES, NEVER, ONE_BY_ONE, counted, latents, records
from utils.analysis import runs as finished_runs
from utils.analysis.comparison import compare
from utils.analysis.experiments import gather
from utils.records.files import read_record

pytestmark = pytest.mark.program


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_prior, no_pictures):
    return populations.place(tmp_path_factory.mktemp("sequential"), tiny_prior)


@pytest.fixture(scope="module")
def never(place):
    """The run whose certificate never passes."""
    return place.run("never", *ONE_BY_ONE, NEVER)


@pytest.fixture(scope="module")
def middle(never):
    """A threshold of the deviation that some images pass with their first particle, and others do not."""
    first = sorted(row[0] for row in runs.metrics_of(never)["population"]["signals"]["deviation"])
    return f"sequential.thresholds={{deviation:{(first[1] + first[2]) / 2}}}"


@pytest.fixture(scope="module")
def some(place, middle):
    """The run whose certificate some images pass."""
    return place.run("some", *ONE_BY_ONE, middle)


def test_without_a_pass_the_particles_are_those_of_a_fixed_population(place, never):
    fixed = place.run("fixed")
    for image in range(IMAGES):
        assert np.array_equal(latents(never, image), latents(fixed, image))
    one, other = runs.metrics_of(never), runs.metrics_of(fixed)
    for key in ("psnr", "ssim", "modes", "loss", "diverged"):
        assert one[key] == other[key]
    assert one["population"]["accepted"] == [False] * IMAGES and one["population"]["started"] == [3] * IMAGES
    assert "population" not in other and "population" not in records(fixed)[0]


def test_the_trace_holds_all_rounds_in_their_places(place, never):
    trace, fixed = records(never)[1]["trace"], records(place.path("fixed"))[1]["trace"]
    assert trace["loss"] == fixed["loss"] and trace["psnr"] == fixed["psnr"]
    assert trace["pairwise_distance"] == [None] * 3  # no two ran together


def test_where_all_pass_at_once_nothing_but_the_start_is_run(place):
    fixed = place.run("two", "num_samples=2")
    always = place.run("always", "population=sequential", "sequential.start=2", ALWAYS)
    for image in range(IMAGES):
        assert np.array_equal(latents(always, image), latents(fixed, image))
    found = runs.metrics_of(always)
    assert found["population"]["started"] == [2] * IMAGES and found["population"]["accepted_share"] == 1.0
    assert [row[2] for row in found["psnr"]["sample"]] == [None] * IMAGES
    assert records(always)[0]["survivors"] == [0, 1] and records(always)[0]["particles"] == [0, 1, 2]
    distances = [records(folder)[0]["trace"]["pairwise_distance"] for folder in (always, fixed)]
    assert distances[0] == distances[1]


@pytest.mark.parametrize("batch", [1, 4])
def test_images_that_pass_stop_and_the_passes_are_counted(place, middle, some, batch, monkeypatch):
    calls = counted(monkeypatch)
    # the probe of the peak is no part of the run
    monkeypatch.setattr("sampler.LatentDAPS.probe_peak_mb", lambda self, particles: None)
    folder = place.run(f"counted_{batch}", *ONE_BY_ONE, middle, f"batch_images={batch}")
    m = runs.metrics_of(folder)
    started = sum(m["population"]["started"])
    assert IMAGES < started < 3 * IMAGES
    assert calls == {"decode": started * 3 * 2, "denoise": started * (3 * 2 + 3), "encode": started}
    phase = m["time"]["phases"]["sampling"]
    assert phase["decoder_forward_backward"] == 6 and phase["denoiser_calls"] == 9 and phase["encoder_forward"] == 1
    assert phase["steps"] == 3 * sum(len(rounds) for rounds in m["population"]["rounds"])
    assert [len(steps) for steps in m["time"]["per_step_s"]] == [3] * IMAGES


def test_singles_equal_the_batch(place, middle, some):
    """Bit for bit, whatever the others of the batch do."""
    batch = place.run("batch", *ONE_BY_ONE, middle, "batch_images=4")
    assert {len(record["survivors"]) for record in records(some)} > {1}
    for image in range(IMAGES):
        assert np.array_equal(latents(batch, image), latents(some, image))
    one, other = (runs.scores(runs.metrics_of(folder), memory=False) for folder in (batch, some))
    assert one["population"] == other["population"]
    runs.assert_close(one, other, 0.0)


def test_the_pick_is_one_that_passes(place, never):
    """The particle of the lowest loss is not picked where another one passes and it does not."""
    record = next(r for r in records(never) if r["loss"].index(min(r["loss"])) != r["population"]["signals"]["denoising"].index(
        min(r["population"]["signals"]["denoising"])))  # fmt: skip
    likely = min(record["population"]["signals"]["denoising"])
    least = record["loss"].index(min(record["loss"]))
    assert record["selection"]["picked"] == least  # none passes: the lowest loss of all
    folder = place.run(
        "likely",
        "population=sequential",
        "sequential.start=3",
        f"sequential.thresholds={{deviation:1e9,denoising:{likely}}}",
        f"data.start_id={record['image_id']}",
        f"data.end_id={record['image_id'] + 1}",
    )
    found = read_record(folder / "records" / f"{record['image_id']:05d}.npz")[0]
    picked = found["population"]["signals"]["denoising"].index(likely)
    assert found["population"]["rounds"] == [{"particles": [0, 1, 2], "passing": [picked]}]
    assert found["selection"]["picked"] == picked != least


def test_a_run_that_is_interrupted_within_a_later_round_goes_on(place, middle, some):
    from utils import device as devices

    going_on = next(image for image, record in enumerate(records(some)) if len(record["survivors"]) > 1)
    before = sum(len(record["population"]["rounds"]) for record in records(some)[:going_on])
    mark_step, left = devices.mark_step, [(before + 1) * 3 * 6]  # marks of the rounds before it, at the least

    def interrupt(device):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        mark_step(device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "mark_step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            place.run("interrupted", *ONE_BY_ONE, middle)
    done = len(list((place.path("interrupted") / "records").iterdir()))
    assert done < IMAGES
    folder = place.run("interrupted", *ONE_BY_ONE, middle)
    assert runs.scores(runs.metrics_of(folder)) == runs.scores(runs.metrics_of(some))


def test_costs_and_tables_follow_the_particles_that_were_started(place, some):
    run_ = finished_runs.load(some, from_records=True)
    found = compare(gather([run_, finished_runs.load(place.run("fixed"))]))
    started = runs.metrics_of(some)["population"]["started"]
    assert found[0]["cost"]["passes"] == pytest.approx(6 * sum(started) / IMAGES)
    assert found[0]["cost"]["passes_per_particle"] == 6 and found[1]["cost"]["passes"] == 18
    assert found[0]["particles"] == f"{sum(started) / IMAGES:.3g} (≤ 3)" and found[1]["particles"] == "3"
    assert found[0]["failed"]["n"] == sum(started)
    text = (some / "eval.md").read_text()
    assert "up to 3 particles" in text and "Certificate: 2 of 4 images pass" in text


def test_pictures_say_which_particles_were_not_started(some):
    from utils.figures.run import draw_grid
    from utils.figures.style import particle_columns, particle_title, plt

    found = [read_record(path) for path in sorted((some / "records").iterdir())]
    record, arrays = next((r, a) for r, a in found if len(r["survivors"]) == 1)
    assert [particle_title(record, at) for at in (1, 2)] == ["p1: not started", "p2: not started"]
    most = max(len(r["survivors"]) for r, _ in found)
    assert particle_columns([record]) == 1 and particle_columns(r for r, _ in found) == most > 1
    for shown, particles in ([(record, arrays)], 1), (found, most):  # those that no image started have no column
        others = 2 + 2 * any("summary_mean" in a for _, a in shown)  # truth, measurement; aligned mean, spread
        figure = draw_grid(shown)
        assert len(figure.axes) == len(shown) * (others + particles)
        plt.close(figure)


def test_passes_of_an_image_add_up_where_rounds_differ_in_cost(place):
    """Optimisation spends what each particle needs, so the mean is one over particles, not over images."""
    from utils.sampling.profiler import Phase, Profiler, Share

    first, second = Profiler(None), Profiler(None)
    first.phases = {"sampling": Phase(4.0, 3, decoder_forward_backward=6.0, peak_mb=10.0, particles=8)}
    second.phases = {"sampling": Phase(2.0, 3, decoder_forward_backward=12.0, denoiser_calls=3.0, peak_mb=30.0, particles=1)}
    for phase in (first.phases["sampling"], second.phases["sampling"]):
        phase.chain_s, phase.chain_passes = phase.time_s / 2, 16.0
    first.step_s, second.step_s = [2.0, 2.0], [1.0, 1.0]
    whole = Profiler.of_rounds([Share(first, 4), Share(second, 1)])
    assert whole.phases["sampling"] == Phase(3.0, 6, 0.0, 8.0, 1.0, 0.0, 30.0, particles=3, chain_s=1.5, chain_passes=20.0)
    assert whole.step_s == [1.5, 1.5] and whole.compile_s is None


def test_a_certificate_needs_no_truth(place, middle, some, tmp_path, monkeypatch):
    """Measurements made by a run on images, given back as files: the same particles, started and stopped alike."""
    for record in records(some):
        arrays = read_record(some / "records" / f"{record['image_id']:05d}.npz")[1]
        np.save(tmp_path / f"{record['image_id']:05d}.npy", arrays["y"])
    overrides = ("data=measurement", f"data.root={tmp_path}", "data.resolution=16", "data.start_id=0", f"data.end_id={IMAGES}")
    folder = place.run("measured", *ONE_BY_ONE, middle, *overrides)
    one, other = (runs.metrics_of(f)["population"] for f in (folder, some))
    assert one["started"] == other["started"] and one["rounds"] == other["rounds"] and one["signals"] == other["signals"]
    assert one["wrong"] == one["missed"] == [None] * IMAGES and one["false_accepts"] is one["false_rejects"] is None


def test_particles_that_turn_their_channels_are_what_they_are_alone(place):
    """Nothing of earlier rounds decides which channels are turned, nor which one keeps its orientation."""
    turning = ("recombination_step=700", "recombination.donors=false", "data.end_id=2")
    folder = place.run("turning", *ONE_BY_ONE, NEVER, *turning, "batch_images=2")
    alone = [place.run(f"turning_{k}", "num_samples=1", f"first_particle={k}", *turning) for k in range(3)]
    for image in range(2):
        for k in range(3):
            assert np.array_equal(latents(folder, image)[k : k + 1], latents(alone[k], image))
    events = [e for of_image in runs.metrics_of(folder)["recombination"]["events"] for e in of_image]
    assert [e["step_index"] for e in events] == [1, 1]
    assert [[p["index"] for p in e["particles"]] for e in events] == [[0, 1, 2]] * 2
    assert any(p["accepted"] for e in events for p in e["particles"][1:])


def test_optimisation_and_repulsion_go_with_it(place):
    folder = place.run(
        "parts",
        "population=sequential",
        "sequential.start=2",
        "sequential.add=1",
        NEVER,
        "repulsion_scale=0.3",
        "optimization_step=400",
        "optimization.max_iterations=2",
        "data.end_id=1",
    )
    m = runs.metrics_of(folder)
    assert m["optimization"]["calls"] == [[1, 1, 1]]
    assert [phase["steps"] for phase in m["time"]["phases"].values()] == [4, 2]
    assert finished_runs.events(finished_runs.load(folder))[-1] == ("hard data consistency", 2)
