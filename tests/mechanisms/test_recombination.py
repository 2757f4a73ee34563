"""Recombination by channel: who gives what to whom, which orientation is chosen, and that nothing else changes."""

from types import SimpleNamespace

import pytest
import torch

from operators.base import Operator
from operators.phase_retrieval import PhaseRetrieval
from utils.mechanisms.recombination.act import (
    Recombination,
    candidates_of,
    donors_of,
    held_channel,
    turn_patterns,
)
from utils.records.files import read_record
from utils.sampling.denoising import denoising_loss
from utils.sampling.particles import Particles
from utils.sampling.schedule import StepClock, annealing_sigmas

FLOOR, SPREAD = 100.0, 0.1
ONE_IMAGE = torch.ones(3, 3, dtype=torch.bool)


def settings(**changes):
    defaults = dict(every=2, excess=1.0, deviation=1.0, turns=True, donors=True, sigmas=[0.5, 1.0])
    return SimpleNamespace(**{**defaults, **changes})


def sources(loss, same_image=ONE_IMAGE, **changes):
    floor = torch.full((len(loss), len(loss[0])), FLOOR)
    return donors_of(torch.tensor(loss), floor, SPREAD * torch.ones_like(floor), same_image, settings(**changes))[0].tolist()


def test_a_bad_channel_comes_from_the_particle_that_fits_it_best():
    loss = [[101.0, 300.0, 105.0], [250.0, 102.0, 108.0], [104.0, 109.0, 400.0]]
    assert sources(loss) == [[0, 1, 0], [0, 1, 1], [2, 2, 0]]


def test_what_lies_within_the_noise_of_the_best_is_kept():
    assert sources([[100.0] * 3, [109.9] * 3, [110.1] * 3]) == [[0] * 3, [1] * 3, [0] * 3]  # one deviation is 10


def test_the_tolerance_grows_with_the_excess_of_the_best():
    assert sources([[150.0], [209.0], [211.0]], excess=1.0) == [[0], [1], [0]]  # 50 + 10 above the best
    assert sources([[150.0], [209.0], [211.0]], excess=0.0) == [[0], [0], [0]]


def test_donors_are_of_the_same_image():
    two_images = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    assert sources([[300.0], [100.0], [900.0]], two_images) == [[1], [1], [2]]
    assert sources([[300.0], [100.0], [900.0]]) == [[1], [1], [1]]  # negative control


def test_a_particle_that_diverged_takes_everything_and_gives_nothing():
    nan = float("nan")
    assert sources([[nan, nan], [100.0, 300.0], [300.0, 100.0]]) == [[1, 2], [1, 2], [1, 2]]
    assert sources([[nan], [nan], [nan]]) == [[0], [1], [2]]


def test_without_donors_every_channel_is_its_own():
    assert sources([[300.0], [100.0], [200.0]], donors=False) == [[0], [1], [2]]


def test_the_best_own_channel_is_held():
    source = torch.tensor([[0, 1, 0], [1, 1, 1], [0, 0, 0]])
    behind = torch.tensor([[0.3, 5.0, 0.1], [0.2, 0.0, 0.3], [9.0, 8.0, 7.0]])
    assert held_channel(source, behind).tolist() == [2, 1, 0]  # the last has none of its own


@pytest.mark.parametrize("channels, ways", [(1, 1), (2, 2), (3, 4)])
def test_the_turns_are_all_that_differ_beyond_turning_the_whole(channels, ways):
    patterns = turn_patterns(channels).tolist()
    assert len(patterns) == ways and not any(patterns[0])
    assert len({tuple(row) for p in patterns for row in (p, [not x for x in p])}) == 2**channels


def test_candidates_hold_donated_channels_in_all_relative_turns():
    image = torch.arange(2 * 3 * 2 * 2.0).view(2, 3, 2, 2)
    source, held = torch.tensor([[0, 1, 0], [1, 1, 1]]), torch.tensor([2, 0])
    children, turned = candidates_of(image, source, held, turns=True)
    assert children.shape == (2, 4, 3, 2, 2)
    for p in range(2):
        for k in range(4):
            for c in range(3):
                expected = image[source[p, c], c]
                assert torch.equal(children[p, k, c], expected.flip(-2, -1) if turned[p, k, c] else expected)
        assert not turned[p, :, held[p]].any() and len({tuple(row) for row in turned[p].tolist()}) == 4
    alone, unturned = candidates_of(image, source, held, turns=False)
    assert torch.equal(alone, children[:, :1]) and not unturned.any()


@pytest.mark.parametrize("every, expected", [(1, [5, 6, 7, 8]), (2, [5, 7]), (4, [5])])
def test_it_acts_from_its_timestep_on_and_never_at_the_last_step(every, expected):
    clock = StepClock(annealing_sigmas(10, 10.0, 0.1))
    mechanism = Recombination(500, settings(every=every), clock, PhaseRetrieval())
    assert [step for step in range(10) if mechanism.acts(step)] == expected


class World:
    """A sampler whose decoder is the identity on 3-channel latents; its prior likes channels that equal each other."""

    passes = None

    def __init__(self):
        self.operator, self.prior = PhaseRetrieval(sigma=0.05), self
        self.encoded = 0

    def decode(self, z):
        return z

    def encode(self, x):
        self.encoded += len(x)
        return x + 1e-3  # a real autoencoder changes what passes through it

    def denoise(self, z, sigma):
        return z.mean(1, keepdim=True).expand(z.shape)  # all channels alike

    class noise:
        @staticmethod
        def draw(particles, purpose, step=0, count=None):
            shape = particles.z.shape if count is None else (count, *particles.z.shape)
            return torch.zeros(shape) if purpose != "velocity" else torch.full(shape, 7.0)


def solved_in_parts(velocity=False):
    """Three particles of a grey image: solved; with blue turned; with red solved and green and blue lost."""
    generator = torch.Generator().manual_seed(3)
    grey = torch.rand(1, 1, 16, 16, generator=generator) * 2 - 1
    truth = grey.expand(1, 3, -1, -1).clone()
    y = PhaseRetrieval(sigma=0.05)(truth)
    particles = Particles.start(y, [9], 3, 0, (3, 16, 16), torch.float32)
    z = truth.repeat(3, 1, 1, 1)
    z[1, 2] = z[1, 2].flip(-2, -1)
    z[2, 1:] = torch.rand(2, 16, 16, generator=generator) * 2 - 1
    particles = particles.at(z)
    if velocity:
        particles.velocity = torch.zeros_like(z)
    return truth, particles


def recombined(particles, operator=None, **changes):
    """operator: of the run, None for phase retrieval."""
    clock, world = StepClock(annealing_sigmas(10, 10.0, 0.1)), World()
    world.operator = operator or world.operator
    mechanism = Recombination(500, settings(**changes), clock, world.operator)
    new, report = mechanism.after_chain(particles, SimpleNamespace(step=5), world)
    return new, mechanism.block([report[9]], range(3))["events"][0]


def test_what_is_solved_in_parts_becomes_whole():
    truth, particles = solved_in_parts()
    new, event = recombined(particles)
    assert torch.equal(new.z[0], particles.z[0])  # bit for bit: it did not pass through the autoencoder
    torch.testing.assert_close(new.z[1:], truth.repeat(2, 1, 1, 1), atol=2e-3, rtol=0)
    assert [p["accepted"] for p in event["particles"]] == [False, True, True]
    assert event["particles"][1]["turned"] == [False, False, True]
    donors = event["particles"][2]["donors"]
    assert donors[0] == 2 and set(donors[1:]) <= {0, 1}


def test_a_single_particle_turns_its_channels_alone():
    truth, particles = solved_in_parts()
    new, event = recombined(particles.select(torch.tensor([1])))
    torch.testing.assert_close(new.z, truth, atol=2e-3, rtol=0)
    assert event["particles"][0]["donors"] == [1, 1, 1]


def test_only_a_child_has_a_new_velocity():
    _, particles = solved_in_parts(velocity=True)
    new, _ = recombined(particles)
    assert not new.velocity[0].any() and (new.velocity[1:] == 7).all()


def test_turns_and_donors_have_their_own_switches():
    _, particles = solved_in_parts()
    new, event = recombined(particles, turns=False)
    assert torch.equal(new.z[1], particles.z[1]) and event["particles"][2]["accepted"]
    new, event = recombined(particles, donors=False)
    assert event["particles"][1]["accepted"] and event["particles"][2]["donors"] == [2, 2, 2]


def test_nothing_is_turned_where_the_operator_sees_a_turn():
    class Upright(PhaseRetrieval):
        turns = False

    _, particles = solved_in_parts()
    new, event = recombined(particles, Upright(sigma=0.05), donors=False)
    assert torch.equal(new.z, particles.z) and not any(any(p["turned"]) for p in event["particles"])


class Pixels(Operator):
    """A(x) = x. Of the first channel 2 pixels are measured, of the others 16 each: deviations of 1, 0.35 and 0.35 floors."""

    separable = True

    def forward(self, x):
        return x

    def handicap(self, x, y):
        return torch.tensor([0.0, 34.0]) if self.exposed else None


def of_pixels(*losses, exposed=False):
    """Donors and channels' losses of particles with these losses, in floors."""
    operator = Pixels(1.0)
    operator.exposed, y = exposed, torch.zeros(len(losses), 3, 4, 4)
    y[:, 0, 1:], y[:, 0, 0, 2:] = torch.nan, torch.nan
    particles = Particles.start(y[:1], [9], len(losses), 0, (3, 4, 4), torch.float32)
    z = torch.tensor(losses).sqrt()[:, :, None, None].expand(-1, -1, 4, 4).clone()  # a residual of one size
    _, event = recombined(particles.at(z), operator)
    return [p["donors"] for p in event["particles"]], torch.tensor([p["loss"] for p in event["particles"]])


def test_each_channel_is_judged_by_the_spread_of_its_own_measurements():
    donors, loss = of_pixels([1.0, 1.0, 1.0], [1.9, 1.3, 1.4])
    torch.testing.assert_close(loss[1], torch.tensor([1.9 * 2, 1.3 * 16, 1.4 * 16]))
    assert donors == [[0, 0, 0], [1, 1, 0]]


def test_a_handicap_is_shared_by_the_channels_as_their_measurements_are():
    _, loss = of_pixels([1.0, 1.0, 1.0], [0.5, 0.5, 0.5], exposed=True)
    torch.testing.assert_close(loss, torch.tensor([[2.0, 16.0, 16.0], [1.0 + 2, 8.0 + 16, 8.0 + 16]]))


def test_the_denoising_loss_weighs_each_level_by_its_variance():
    """A denoiser that returns what it is given errs by sigma e: each level adds the mean square of its noise."""
    prior = SimpleNamespace(denoise=lambda z, sigma: z)
    noise = torch.stack([torch.full((2, 1, 2, 2), 3.0), torch.full((2, 1, 2, 2), 0.5)])
    noise[0, 1] = 1.0
    loss = denoising_loss(prior, torch.zeros(2, 1, 2, 2), noise, torch.tensor([0.1, 2.0]))
    torch.testing.assert_close(loss, torch.tensor([9.25, 1.25]))


def test_candidates_of_an_image_are_judged_under_one_noise():
    """Else the score would compare draws, not candidates."""
    _, particles = solved_in_parts()
    world, heard = World(), []
    world.noise = SimpleNamespace(draw=lambda particles, *key, count: heard.append(particles.index.tolist()) or draw(particles))

    def draw(particles):  # another number for each particle
        level = torch.arange(len(particles), dtype=torch.float32).view(1, -1, 1, 1, 1)
        return level.expand(2, -1, 3, 16, 16)

    seen = []
    world.denoise = lambda z, sigma: seen.append(z) or z
    mechanism = Recombination(500, settings(), StepClock(annealing_sigmas(10, 10.0, 0.1)), PhaseRetrieval())
    children = torch.zeros(3, 4, 3, 16, 16)
    z, score = mechanism.judge(children, particles, SimpleNamespace(step=5), world)
    assert heard == [[0, 0, 0]] and z.shape == children.shape and score.shape == (3, 4)
    added = (seen[0] - 1e-3).flatten(1).mean(1).view(3, 4)  # at sigma 0.5
    torch.testing.assert_close(added, torch.tensor([0.0, 0.5, 1.0])[:, None].expand(3, 4))


def test_the_new_velocity_is_that_of_the_step_to_come():
    _, particles = solved_in_parts(velocity=True)
    world, keys = World(), []

    def draw(particles, purpose, step=0, count=None):
        keys.append((purpose, step))
        return World.noise.draw(particles, purpose, step, count)

    world.noise = SimpleNamespace(draw=draw)
    mechanism = Recombination(500, settings(), StepClock(annealing_sigmas(10, 10.0, 0.1)), PhaseRetrieval())
    mechanism.after_chain(particles, SimpleNamespace(step=5), world)
    assert keys == [("exchange", 5), ("velocity", 6)]  # step 5 has used its own


OVERRIDES = ("num_samples=3", "sampler.annealing_scheduler_config.num_steps=6", "recombination.every=1")


@pytest.mark.program
def test_a_run_reports_its_events_and_their_cost(run):
    folder, m = run(*OVERRIDES, "recombination_step=500", "name=recombined")
    events = m["recombination"]["events"]
    assert len(events) == 2 and [event["step_index"] for event in events[0]] == [3, 4]
    first = events[0][0]["particles"]
    assert [p["index"] for p in first] == [0, 1, 2] and all(len(p["score"]) == 4 and len(p["loss"]) == 3 for p in first)
    phase = m["time"]["phases"]["sampling"]
    assert phase["encoder_forward"] == 2 * 4 and phase["denoiser_calls"] == 6 * 2 + 2 * 4 * 3
    assert phase["decoder_forward"] == 1 + 2


@pytest.mark.program
def test_off_is_off_bit_for_bit_and_before_its_step_nothing_differs(run):
    plain, _ = run("data.end_id=1", *OVERRIDES)
    off, metrics = run("data.end_id=1", *OVERRIDES, "name=off", "recombination_step=-1", "recombination.deviation=3")
    on, _ = run(
        "data.end_id=1",
        *OVERRIDES,
        "name=on",
        "recombination_step=500",
        "recombination.deviation=1e9",
        "recombination.turns=false",
    )
    latents = [read_record(folder / "records" / "00000.npz")[1]["z"] for folder in (plain, off, on)]
    assert (latents[0] == latents[1]).all() and metrics["recombination"] is None
    assert (latents[0] == latents[2]).all(), "an unchanged particle is what it would have been"


@pytest.mark.program
def test_images_of_a_batch_equal_single_images(run):
    """In passes of bounded size too; the tiny decoder is chaotic, so decisions are compared, not pixels."""
    _, together = run(*OVERRIDES, "recombination_step=500", "batch_images=2", "max_particles_per_pass=3", "name=together")
    _, alone = run(*OVERRIDES, "recombination_step=500", "name=alone")
    for one, other in zip(together["recombination"]["events"], alone["recombination"]["events"]):
        for a, b in zip(one[0]["particles"], other[0]["particles"]):
            assert (a["donors"], a["turned"], a["accepted"]) == (b["donors"], b["turned"], b["accepted"])
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-2)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (("recombination_step=100",), "recombination_step=100: the last of 3 annealing steps is at t = 333.333"),
        (("recombination_step=400",), "recombination_step=400: the last of 3 annealing steps"),
        (
            ("recombination_step=1000", "sampler.annealing_scheduler_config.num_steps=1"),
            "recombination_step=1000: the last of 1 annealing steps is at t = 1000, and it acts before that one",
        ),
        (("recombination.every=0",), "recombination.every=0"),
        (("recombination.excess=-1",), "recombination.excess=-1"),
        (("recombination.sigmas=[]",), "recombination.sigmas=[]"),
    ],
)
def test_wrong_values_are_refused_in_one_line(composed, tiny, overrides, message):
    import posterior_sample
    from utils.errors import InputError

    with pytest.raises(InputError) as caught:
        posterior_sample.run(composed(*tiny, *overrides))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_operator_whose_loss_is_no_sum_over_channels_is_refused(composed):
    from utils.config.check import check
    from utils.errors import InputError

    with pytest.raises(InputError, match="recombination_step=500: the loss of .*NonlinearBlur is no sum over channels"):
        check(composed("task=nonlinear_blur", "task_group=ldm", "recombination_step=500"))


@pytest.mark.program
def test_nothing_is_decided_by_the_truth(run, monkeypatch):
    """With a poisoned truth the same measurement leads to the same latents and the same exchanges, bit for bit."""
    from utils.running import sampling

    load_batch = sampling.load_batch
    honest, with_truth = run(*OVERRIDES, "recombination_step=500", "name=honest")

    def poisoned(*arguments):
        particles, truth = load_batch(*arguments)
        return particles, torch.full_like(truth, float("nan"))

    monkeypatch.setattr(sampling, "load_batch", poisoned)
    blind, without = run(*OVERRIDES, "recombination_step=500", "name=blind")
    assert without["psnr"]["sample"] != with_truth["psnr"]["sample"]  # the poison is there
    assert without["recombination"] == with_truth["recombination"]
    for name in ("00000.npz", "00001.npz"):
        latents = [read_record(folder / "records" / name)[1]["z"] for folder in (honest, blind)]
        assert (latents[0] == latents[1]).all()
