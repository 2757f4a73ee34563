"""Start from a bank: where particles begin, which they are, and what a run says of it."""

import numpy as np
import pytest
import torch

from operators.fidelity import WithFidelity
from operators.phase_retrieval import PhaseRetrieval
from utils.config.sections import Fidelity
from utils.errors import InputError
from utils.mechanisms.start.act import Start, fill
from utils.mechanisms.start.plan import OFF
from utils.noise import KeyedNoise
from utils.records.files import read_record
from utils.sampling.mechanism import Entrance
from utils.sampling.particles import Particles
from utils.sampling.schedule import StepClock, annealing_sigmas

BANK = OFF.model_copy(update={"bank": 3, "restarts": 12, "iterations": 40, "keep": 6})
QUICK = ("start.restarts=6", "start.iterations=20", "start.keep=6")  # of tiny runs: three steps, at sigma 10, 2.93 and 0.68
TWO = ("start.bank=2", "start.sigma=3.0", *QUICK)


def truths(count=2, side=16):
    generator = torch.Generator().manual_seed(4)
    coarse = torch.rand(count, 3, 4, 4, generator=generator) + 2 * torch.rand(count, 1, 4, 4, generator=generator)
    return torch.nn.functional.interpolate(coarse / 3, size=side, mode="bicubic").clamp(0, 1)


def mechanism(settings=BANK, sigma=2.93):
    grid = annealing_sigmas(3, 10.0, 0.1)
    return Start(settings, 1, sigma, StepClock(grid), None)


class FakeSampler:
    """What the mechanism uses of a sampler, with an encoder that changes nothing."""

    class prior:
        resolution = 16
        encode = staticmethod(lambda x: x)

    def __init__(self, operator):
        self.operator, self.noise = operator, KeyedNoise(7)


def particles_of(y, images, count=4):
    return Particles.start(y, images, count, 0, (3, 16, 16), torch.float32)


# what the mechanism does


def test_particle_k_begins_at_the_kth_best_picture_and_every_second_one_is_turned():
    operator = PhaseRetrieval(sigma=0.01)
    y = operator(2 * truths() - 1)
    sampler, start = FakeSampler(operator), mechanism()
    waiting = particles_of(y, [3, 8])
    waiting = waiting.select(start.waits(waiting).nonzero().flatten())
    assert waiting.index.tolist() == [0, 1, 2] * 2
    brought, report = start.brought(waiting, sampler)
    begun = (brought.z - 2.93 * sampler.noise.draw(brought, "initial") + 1) / 2
    for row, image in enumerate((3, 8)):
        pictures = fill(y[row : row + 1], image, 16, BANK, operator, sampler.noise)
        expected = pictures.x.clone()
        expected[1] = expected[1].flip(-2, -1)
        torch.testing.assert_close(begun[3 * row : 3 * row + 3], expected, atol=1e-5, rtol=0)
        assert report[image]["turned"] == [False, True, False] and report[image]["rank"] == [0, 1, 2]
        assert report[image]["residual"] == pictures.residual.tolist()
    unturned, _ = mechanism(BANK.model_copy(update={"turn": False})).brought(waiting, sampler)
    torch.testing.assert_close(unturned.z[1] - brought.z[1], 2 * (pictures_of(y, 3, operator)[1] - begun[1]), atol=1e-5, rtol=0)


def pictures_of(y, image, operator):
    return fill(y[:1], image, 16, BANK, operator, KeyedNoise(7)).x


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_bank_keeps_to_the_support_and_turns_where_the_support_is_its_own_turn(symmetric):
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[3:13, 4:12] = True
    inside[3:6, 4:7] = symmetric
    operator = PhaseRetrieval(sigma=0.01, frame=(26, 24), offset=(0.5, 0.0), inside=inside)
    sampler, waiting = FakeSampler(operator), particles_of(operator(2 * truths(1) - 1), [3], 3)
    brought, report = mechanism().brought(waiting, sampler)
    begun = (brought.z - 2.93 * sampler.noise.draw(brought, "initial") + 1) / 2
    where = inside | inside.flip(0, 1) if symmetric else inside
    assert begun[..., ~where].abs().max() < 1e-5 < begun[..., where].max()
    assert report[3]["turned"] == [False, symmetric, False]


def test_the_residual_is_in_units_of_the_noise():
    operator = PhaseRetrieval(sigma=0.02)
    x = 2 * truths(1) - 1
    y = operator.measure(x, KeyedNoise(1).measurement(3, operator(x).shape))
    settings = BANK.model_copy(update={"restarts": 48, "iterations": 400})
    residual = fill(y, 3, 16, settings, operator, KeyedNoise(7)).residual
    assert 0.3 < residual[0] < 1.5  # fitted to the noise: below 1


@pytest.mark.parametrize("channels", [1, 3])
def test_missing_pixels_negative_magnitudes_and_one_channel(channels):
    operator = PhaseRetrieval(sigma=0.01, channels=channels)
    y = operator(2 * truths(1) - 1)
    y[..., 10:14, 10:14] = torch.nan
    y[..., 0, 0] = -0.01
    pictures = fill(y, 3, 16, BANK, operator, KeyedNoise(7))
    assert (
        pictures.x.shape == (3, channels, 16, 16)
        and torch.isfinite(pictures.x).all()
        and torch.isfinite(pictures.residual).all()
    )


def test_counts_are_magnitudes_over_a_background_with_noise_of_their_own():
    """What the solvers are given, and what a residual is compared with."""
    photons, background = 400.0, 3.0
    settings = Fidelity(gaussian=0, poisson=1, photons=photons, background=background)
    operator = WithFidelity(PhaseRetrieval(sigma=0.05), settings)
    clean = PhaseRetrieval()(2 * truths(1) - 1)
    counts = (clean.square() * photons + background) / photons
    torch.testing.assert_close(operator.magnitudes(counts.sqrt()), clean, atol=2e-3, rtol=1e-3)
    assert operator.magnitude_variance == 1 / (4 * photons) and PhaseRetrieval(sigma=0.05).magnitude_variance == 0.05**2


def test_the_bank_is_keyed_by_image_and_seed():
    operator = PhaseRetrieval(sigma=0.01)
    y = operator(2 * truths(1) - 1)
    first = fill(y, 3, 16, BANK, operator, KeyedNoise(7)).x
    assert torch.equal(first, fill(y, 3, 16, BANK, operator, KeyedNoise(7)).x)
    assert not torch.equal(first, fill(y, 4, 16, BANK, operator, KeyedNoise(7)).x)
    assert not torch.equal(first, fill(y, 3, 16, BANK, operator, KeyedNoise(8)).x)


def test_it_waits_by_number():
    start = mechanism()
    y = torch.zeros(1, 3, 24, 24)
    assert start.waits(particles_of(y, [0], 5)).tolist() == [True, True, True, False, False]
    assert start.entrance == Entrance(1, ("bank",))


# in the program: three annealing steps, of which those from the bank join at the second


def states(folder, image=0):
    return read_record(folder / "records" / f"{image:05d}.npz")


def test_a_run_says_who_began_where(run):
    folder, m = run(*TWO, pictures=True)
    assert list(m["time"]["phases"]) == ["bank", "above_start", "below_start"]
    phases = m["time"]["phases"].values()
    assert [phase["steps"] for phase in phases] == [0, 2 * 1, 2 * 2]
    assert [phase["encoder_forward"] for phase in phases] == [1, 0, 0]
    assert [phase["decoder_forward_backward"] for phase in phases] == [0, 2, 4]
    assert [phase["passes"] for phase in phases] == [0, 2 * 2, 4 * 4]  # two particles, and then four
    assert m["start"]["particles"] == [[0, 1]] * 2 and m["start"]["turned"] == [[False, True]] * 2
    assert (m["start"]["step_index"], m["start"]["timestep"]) == (1, pytest.approx(2000 / 3))
    record, _ = states(folder)
    assert record["trace"]["loss"][0][:2] == [None, None] and None not in record["trace"]["loss"][0][2:]
    assert None not in record["trace"]["loss"][1] and len(record["time"]["step_s"]) == 3


def test_where_all_particles_come_from_the_bank_nothing_is_run_before(run):
    folder, m = run("start.bank=4", "start.sigma=1.0", *QUICK, pictures=True)
    assert list(m["time"]["phases"]) == ["bank", "sampling"]
    assert m["time"]["phases"]["sampling"]["steps"] == 2 * 1 and m["time"]["phases"]["sampling"]["passes"] == 4 * 2
    record, _ = states(folder)
    assert record["time"]["step_s"][:2] == [0.0, 0.0] < record["time"]["step_s"][2:]
    assert record["trace"]["loss"][:2] == [[None] * 4] * 2 and record["trace"]["pairwise_distance"][:2] == [None] * 2


def test_particles_from_noise_do_not_know_of_the_bank(run):
    """Also those of a chain whose velocity goes on from step to step."""
    chain = ("sampler.chain.mc_algo=hmc", "sampler.chain.momentum=0.8", "sampler.chain.keep_velocity=true")
    plain, _ = run(*chain)
    mixed, _ = run(*chain, *TWO, "name=mixed")
    (_, x), (_, y) = states(plain), states(mixed)
    np.testing.assert_allclose(y["z"][2:], x["z"][2:], atol=1e-4)
    assert np.abs(y["z"][:2] - x["z"][:2]).max() > 1e-2


def test_a_single_particle_equals_that_of_a_batch(run):
    """Of two images at once, one image alone, and one particle alone."""
    short = (*TWO, "task.demo_langevin.mcmc_sampler_config.num_steps=1")  # each further iteration amplifies rounding
    batch, _ = run(*short, "batch_images=2")
    alone, _ = run(*short, "name=alone", "data.start_id=1")
    single, m = run(*short, "name=single", "data.start_id=1", "num_samples=2", "first_particle=1")
    assert list(m["time"]["phases"]) == ["bank", "above_start", "below_start"]  # particle 2 begins in noise
    x, y, z = (states(folder, 1)[1]["z"] for folder in (batch, alone, single))
    np.testing.assert_allclose(x, y, atol=1e-5)
    np.testing.assert_allclose(x[1:3], z, atol=1e-5)


@pytest.mark.parametrize("number, phases", [(1, ["bank", "sampling"]), (2, ["sampling"])])
def test_a_particle_of_a_bank_of_two_can_be_run_by_itself(run, number, phases):
    """The second begins at the bank, the third in noise."""
    short = (*TWO, "task.demo_langevin.mcmc_sampler_config.num_steps=1", "data.end_id=1")
    batch, _ = run(*short)
    single, m = run(*short, "name=single", "num_samples=1", f"first_particle={number}")
    np.testing.assert_allclose(states(batch)[1]["z"][[number]], states(single)[1]["z"], atol=1e-5)
    assert list(m["time"]["phases"]) == phases and ("start" in m) == (number == 1)


def test_off_is_off_bit_for_bit(run):
    plain, _ = run("data.end_id=1")
    off, m = run("data.end_id=1", "name=off", "start.bank=0", "start.sigma=2", "start.solver=er")
    (a, x), (b, y) = states(plain), states(off)
    assert (x["z"] == y["z"]).all() and "start" not in m and a.keys() == b.keys() and a["fingerprint"] == b["fingerprint"]


def test_shards_and_a_resumed_run_equal_one_that_went_through(run):
    through, _ = run(*TWO)
    for shard in ("0/2", "1/2", "1/2"):
        parts, _ = run(*TWO, "name=parts", f"shard={shard}")
    for image in (0, 1):
        (a, x), (b, y) = (states(folder, image) for folder in (through, parts))
        assert (x["z"] == y["z"]).all() and a["start"] == b["start"] and a["scores"] == b["scores"]


def test_in_a_sequential_population_the_first_rounds_are_from_the_bank(run):
    rounds = ("population=sequential", "sequential.start=2", "sequential.add=2", "num_samples=6")
    folder, m = run(*TWO, *rounds, "sequential.thresholds={deviation: -1.0e9, denoising: null, agreement: null}")
    assert m["start"]["particles"] == [[0, 1]] * 2 and [len(r) for r in m["population"]["rounds"]] == [3, 3]
    assert list(m["time"]["phases"]) == ["bank", "above_start", "below_start"]
    record, _ = states(folder)
    assert None not in record["trace"]["loss"][0][2:] and len(record["time"]["step_s"]) == 3
    phases = m["time"]["phases"]  # two particles of the bank join at the second of three steps, four begin at the first
    assert phases["above_start"]["passes"] == 4 * 2 and phases["below_start"]["passes"] == 6 * 2 * 2


def bringing(clock):
    """A mechanism of one's own that brings in all particles at the second step."""
    from utils.sampling.mechanism import Entrance, Mechanism

    mechanism = Mechanism()
    mechanism.entrance = Entrance(1, ("mine",))
    return mechanism


BRINGING = "tests.mechanisms.test_start.bringing"


@pytest.mark.parametrize(
    "overrides, message",
    [
        ((f"+mechanisms.start={{_target_:{BRINGING}}}",), "mechanisms.start: one of the program's own has this name already"),
        (("start.bank=-1",), "start.bank=-1"),
        (("start.bank=1.5",), "start.bank=1.5"),
        (("start.bank=5",), "start.bank=5: must not exceed num_samples=4"),
        ((*TWO, "start.sigma=0.5"), "start.sigma=0.5: must lie between the annealing's last level 0.6"),
        ((*TWO, "start.sigma=11"), "start.sigma=11.0: must lie between"),
        (("start.bank=2", "start.sigma=1", *QUICK, "pruning_step=700"), "pruning_step=700: must not lie above start.sigma=1;"),
        ((*TWO, "start.keep=300", "start.restarts=300"), "start.keep=300"),
        ((*TWO, "fidelity.free_scale=true"), "start.bank=2: the bank's solvers know the object's range"),
        (
            ("start.bank=4", "start.sigma=1", "start.restarts=6", "start.keep=6", "pruning_step=700"),
            "start.bank=4: its particles join at t = 333, and what opens the phase post_pruning acts before",
        ),
        (
            ("start.bank=2", "start.sigma=3", *QUICK, "pruning_step=700"),
            "start.bank=2: its particles join at t = 667, and what opens the phase post_pruning acts before",
        ),
        ((*TWO, "start.keep=1"), "start.keep=1: must lie between start.bank=2 and start.restarts=6"),
        ((*TWO, "start.keep=7"), "start.keep=7: must lie between start.bank=2 and start.restarts=6"),
        ((*TWO, "start.beta=0"), "start.beta=0"),
        ((*TWO, "start.solver=dm"), "start.solver=dm"),
        ((*TWO, "start.iterations=0"), "start.iterations=0"),
        ((*TWO, "start.restarts=0"), "start.restarts=0"),
        ((*TWO, "task=gaussian_blur"), "start.bank=2: operators.blur.GaussianBlur measures no spectrum"),
    ],
)
def test_wrong_values_are_refused_in_one_line(refused, overrides, message):
    refused(message, *overrides)


def test_only_one_mechanism_may_bring_in_particles(run):
    with pytest.raises(InputError, match=r"^start and mine: both bring in particles \(Mechanism\.entrance\), and one may"):
        run(*TWO, f"+mechanisms.mine={{_target_:{BRINGING}}}")
