"""Polish: who goes on after the annealing, from which noise, with which chain, and what a run says of it."""

import numpy as np
import pytest
import torch

from tests.worlds import analytic
from tests.worlds.analytic import ANNEALING, MIXTURE
from utils.mechanisms.polish.act import Polish
from utils.records.files import read_record
from utils.sampling.phases import Opening
from utils.sampling.profiler import Profiler
from utils.sampling.schedule import annealing_sigmas, first_level, learning_rate
from utils.sampling.vocabulary import Stage

STEPS = ANNEALING.num_steps
GRID = annealing_sigmas(8, ANNEALING.sigma_max, ANNEALING.sigma_min)
FIRST = first_level(GRID, 1.0)
CHAIN = analytic.chain(mc_algo="hmc", momentum=0.4, num_steps=7)


def sampler(keep=2, chain=None):
    loop = analytic.sampler(MIXTURE, chain, seed=42)
    polish = Polish(keep, Stage(GRID[FIRST:], CHAIN, FIRST), Opening(STEPS, "annealing", "polish"))
    return type(loop)(MIXTURE, loop.operator, loop.noise, ANNEALING, loop.diffusion, loop.chain, [polish])


def run(loop, images=(0, 1), on_step=lambda info: None):
    start = analytic.start(MIXTURE, [0.3, 0.1, -0.2], 4, images)
    return loop.sample(start, Profiler(torch.device("cpu")), on_step)


def test_the_best_go_on_from_the_lower_noise_with_their_own_chain():
    loop, seen = sampler(), []
    result = run(loop, on_step=seen.append)
    further = len(GRID) - 1 - FIRST
    assert (
        len(seen) == STEPS + further == loop.num_steps and [len(info.particles) for info in seen] == [8] * STEPS + [4] * further
    )
    assert loop.sigmas[STEPS:] == GRID[FIRST:] and loop.clock.timestep(STEPS) == 0.0 and loop.clock.timestep(0) == 1000
    losses = loop.operator.loss(loop.prior.decode(seen[STEPS - 1].particles.z), seen[STEPS - 1].particles.y)
    for image in (0, 1):
        before = losses[4 * image : 4 * image + 4]
        best = sorted(before.argsort()[:2].tolist())
        assert result.particles.index[result.particles.of_image(image)].tolist() == best
        report = result.of_image("polish", image)[0]
        assert report["kept"] == best and sorted(report["kept"] + report["dropped"]) == [0, 1, 2, 3]
        np.testing.assert_allclose(report["loss"], before)


def test_its_first_state_is_the_last_one_under_noise_of_its_first_level():
    loop, seen = sampler(keep=4), []
    states = {}

    def watched(particles, s, *more):
        states[s.step] = (particles, s)
        return original(particles, s, *more)

    original, loop.annealing_step = loop.annealing_step, watched
    run(loop, on_step=seen.append)
    particles, s = states[STEPS]
    noise = loop.noise.draw(particles, "annealing", STEPS - 1)
    torch.testing.assert_close(particles.z, seen[STEPS - 1].particles.z + GRID[FIRST] * noise)
    assert s.sigma.item() == pytest.approx(GRID[FIRST])
    assert s.lr.item() == pytest.approx(learning_rate(CHAIN.lr, CHAIN.lr_min_ratio, FIRST, 8))
    assert states[STEPS - 1][1].lr.item() == pytest.approx(
        learning_rate(loop.chain.lr, loop.chain.lr_min_ratio, STEPS - 1, STEPS)
    )


def test_each_stage_has_its_own_number_of_iterations():
    loop, profiler = sampler(), Profiler(torch.device("cpu"))
    loop.sample(analytic.start(MIXTURE, [0.3, 0.1, -0.2], 4, (0,)), profiler)
    further = len(GRID) - 1 - FIRST
    assert profiler.phases["annealing"].decoder_forward_backward == STEPS * loop.chain.num_steps
    assert profiler.phases["polish"].decoder_forward_backward == further * 7
    assert (profiler.phases["annealing"].particles, profiler.phases["polish"].particles) == (4, 2)


def test_no_velocity_goes_over_to_the_second_stage():
    kept, seen = analytic.chain(mc_algo="hmc", momentum=0.8, keep_velocity=True), []
    loop = sampler(chain=kept)
    starts = {}

    def watched(particles, s, *more):
        starts[s.step] = particles.velocity
        return original(particles, s, *more)

    original, loop.annealing_step = loop.annealing_step, watched
    run(loop, on_step=seen.append)
    assert starts[STEPS - 1] is not None and starts[STEPS] is None


def test_those_that_diverged_are_not_kept():
    loop = sampler()

    class Broken(type(loop.operator)):
        def loss(self, x, y):
            loss = super().loss(x, y)
            return torch.where(torch.arange(len(loss)) % 4 == 1, torch.nan, loss)

    loop.operator.__class__ = Broken
    polish = loop.mechanisms[0]
    particles = analytic.start(MIXTURE, [0.3, 0.1, -0.2], 4, (0, 1))
    particles.z = torch.randn(particles.z.shape, generator=torch.Generator().manual_seed(0)).to(particles.z)
    chosen, report = polish.after_chain(particles, None, loop)
    assert all(1 in report[image]["dropped"] and report[image]["loss"][1] is None for image in (0, 1)) and len(chosen) == 4


# in the program: three annealing steps, at sigma 10, 2.93 and 0.68

ON = ("polish.keep=2", "polish.sigma=1.0", "polish.num_steps=4", "polish.chain.num_steps=3")


def test_a_run_says_who_went_on_and_what_it_cost(run):
    folder, m = run(*ON, pictures=True)
    assert list(m["time"]["phases"]) == ["annealing", "polish"]
    steps = 4 - first_level(annealing_sigmas(4, 10.0, 0.1), 1.0)
    assert [phase["passes"] for phase in m["time"]["phases"].values()] == [4 * 3 * 2, 2 * steps * 3]
    record, arrays = read_record(folder / "records" / "00000.npz")
    assert record["survivors"] == m["polish"]["kept"][0] and len(arrays["z"]) == 2
    assert record["trace"]["timestep"][-steps:] == [0.0] * steps and len(record["trace"]["loss"]) == 3 + steps
    assert sorted(m["polish"]["kept"][0] + m["polish"]["dropped"][0]) == [0, 1, 2, 3]


def test_it_follows_a_start_from_the_bank(run):
    bank = ("start.bank=4", "start.sigma=1.0", "start.restarts=6", "start.iterations=20", "start.keep=6")
    _, m = run(*ON, *bank)
    assert list(m["time"]["phases"]) == ["bank", "annealing", "polish"]


def test_off_is_off_bit_for_bit(run):
    plain, _ = run("data.end_id=1")
    off, m = run("data.end_id=1", "name=off", "polish.keep=0", "polish.sigma=0.5", "polish.num_steps=9")
    (a, x), (b, y) = (read_record(folder / "records" / "00000.npz") for folder in (plain, off))
    assert (x["z"] == y["z"]).all() and "polish" not in m and a["fingerprint"] == b["fingerprint"]


def test_a_batch_and_shards_equal_single_images(run):
    together, _ = run(*ON, "batch_images=2")
    for shard in ("0/2", "1/2"):
        parts, _ = run(*ON, "name=parts", f"shard={shard}")
    for name in ("00000.npz", "00001.npz"):
        (a, x), (b, y) = (read_record(folder / "records" / name) for folder in (together, parts))
        np.testing.assert_allclose(x["z"], y["z"], atol=1e-4)
        assert a["polish"]["kept"] == b["polish"]["kept"]


@pytest.mark.parametrize(
    "overrides, message",
    [
        (("polish.keep=-1",), "polish.keep=-1"),
        (("polish.keep=5",), "polish.keep=5: must not exceed num_samples=4"),
        ((*ON, "polish.sigma=0.2"), "polish.sigma=0.2: must lie between the last of polish.num_steps=4 levels 0.4"),
        ((*ON, "polish.sigma=10.5"), "polish.sigma=10.5: must lie between"),
        ((*ON, "polish.num_steps=0"), "polish.num_steps=0"),
        ((*ON, "polish.chain.momentum=1"), "polish.chain.momentum=1"),
        ((*ON, "optimization_step=400"), "polish.keep=2: ends the annealing, and so does optimization_step=400"),
        ((*ON, "population=sequential"), "polish.keep=2 needs all of an image's particles at once"),
    ],
)
def test_wrong_values_are_refused_in_one_line(refused, overrides, message):
    refused(message, *overrides)
