"""Coarse to fine: what each level is given, what it hands on, and what a run says of it."""

import dataclasses

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from operators.phase_retrieval import PhaseRetrieval
from tests.worlds.frames import frame, picture
from utils.analysis import runs
from utils.analysis.ancestry import ancestry
from utils.config.check import check
from utils.config.fingerprint import fingerprint
from utils.data import select_images
from utils.errors import InputError
from utils.mechanisms.pyramid.act import agreement, consensus
from utils.mechanisms.pyramid.act import build as build_pyramid
from utils.records.files import read_record
from utils.running.build import build, load_batch
from utils.sampling.outcome import SampleResult
from utils.sampling.pictures import enlarged

# the tiny prior, of 16 pixels, draws 32 of the object's 64; the level below is the shipped prior at 16
LEVELS = (
    "data.resolution=64",
    "model.resolution=32",
    "pyramid.levels=[16,32]",
    "pyramid.keep=2",
    "pyramid.sigma=3",
    "pyramid.chain.num_steps=3",
)
START = ("start.bank=2", "start.sigma=3", "start.restarts=6", "start.iterations=20", "start.keep=6")


def states(folder, image=0):
    return read_record(folder / "records" / f"{image:05d}.npz")


# the settings of each level


def test_each_level_has_its_own_model_noise_rate_and_chain(composed, tiny):
    final = "sampler.diffusion_scheduler_config.final_sigma=0.4"
    last = check(composed(*tiny, *LEVELS, *START, "polish.keep=3", "polish.sigma=3", final))
    first = last.below
    assert [s.sampler.diffusion_scheduler_config.final_sigma for s in (first, last)] == [0, 0.4]
    assert (first.model.resolution, last.model.resolution, first.below) == (16, 32, None)
    assert first.model.path.endswith("natural-32") and last.model.path != first.model.path
    whole = check(composed(*tiny)).chain
    assert (first.pixel, last.pixel) == (4, 2)
    assert first.chain.lr == whole.lr / 4 and first.chain.tau == whole.tau / 4 and first.chain.num_steps == whole.num_steps
    assert last.chain.lr == whole.lr / 2 and last.chain.tau == whole.tau / 2 and last.chain.num_steps == 3
    assert (first.start.bank, first.polish.keep) == (2, 3) and (last.start.bank, last.polish.keep) == (0, 0)


def test_all_mechanisms_act_at_the_first_level_alone(composed, tiny):
    asked = ("pruning_step=700", "repulsion_scale=1", "recombination_step=700")
    last = check(composed(*tiny, *LEVELS, *asked))
    assert [m.name for m in build(last, tried=False).sampler.mechanisms] == ["pyramid"]
    below = build(last, tried=False).sampler.mechanisms[0].below
    assert [m.name for m in below.mechanisms] == ["repulsion", "recombination", "pruning"]


def test_every_level_measures_the_centre_of_the_same_spectrum(composed, tiny):
    settings = check(composed(*tiny, *LEVELS))
    parts = build(settings, tried=False)
    image = select_images(settings)[0]
    particles, truth = load_batch(parts, settings, [image])
    assert truth.shape == (1, 3, 64, 64) and particles.y.shape == (4, 3, 48, 48)
    instrument = PhaseRetrieval(sigma=parts.instrument.sigma)
    noise = parts.noise.measurement(image.id, (1, 3, 96, 96))
    whole = instrument.measure(truth, noise)
    torch.testing.assert_close(particles.y[:1], instrument.centre(whole, 64, 32))
    assert parts.operator.sigma == instrument.sigma / 2
    below = parts.sampler.mechanisms[0].below
    assert below.operator.sigma == instrument.sigma / 4 and below.prior.resolution == 16
    assert below.noise.seed != parts.noise.seed


# of a detector's frame


@pytest.fixture
def measured(composed, tiny, tmp_path):
    """measured(magnitudes, overrides ...) -> (parts, y) of a run on this frame of an object of 64 pixels."""
    folder = tmp_path / "frames"
    folder.mkdir()

    def load(values, *overrides):
        np.save(folder / "y.npy", values)
        given = (*tiny, *LEVELS, "data=measurement", f"data.root={folder}", "data.end_id=1", *overrides)
        settings = check(composed(*given))
        parts = build(settings, tried=False)
        return parts, load_batch(parts, settings, select_images(settings))[0].y[0]

    return load


def noiseless(x, shape=(96, 96), center=None):
    return frame(x, shape, center, sigma=0)


@pytest.mark.parametrize("center", [(50, 47), (38, 57)])
@pytest.mark.parametrize("found", [False, True])
def test_a_beam_off_the_middle_leaves_the_coarse_measurement(measured, center, found):
    """Up to the samples that the detector lacks, which the coarse levels do not need."""
    x = picture()
    _, right = measured(noiseless(x))
    parts, y = measured(noiseless(x, center=center), "data.center=auto" if found else f"data.center=[{center[0]},{center[1]}]")
    below = parts.sampler.mechanisms[0].below.operator
    torch.testing.assert_close(y, right, rtol=1e-5, atol=1e-5)
    assert parts.operator.offset == below.offset == (0, 0)
    _, wrong = measured(noiseless(x, center=center), f"data.center=[{center[0] + 1},{center[1]}]")
    assert (wrong - right).nan_to_num(9).abs().max() > 1  # negative control


@pytest.mark.parametrize("shape", [(96, 96), (128, 128), (128, 80)])
@pytest.mark.parametrize("off", [(0.0, 0.0), (0.5, -1.3)])
def test_the_levels_measure_what_they_are_given_of_any_frame(measured, shape, off):
    """An object of squares leaves nothing unexplained at any level."""
    small = np.kron(np.random.default_rng(0).uniform(0.2, 1, (3, 16, 16)), np.ones((4, 4)))
    center = tuple(side // 2 + there for side, there in zip(shape, off))
    parts, y = measured(noiseless(small, shape, center), "data.center=[{},{}]".format(*center))
    below = parts.sampler.mechanisms[0].below.operator
    x = 2 * torch.from_numpy(small[None, :, ::4, ::4]).float() - 1
    for operator, image, seen in (
        (parts.operator, x.repeat_interleave(2, -1).repeat_interleave(2, -2), y[None]),
        (below, x, parts.operator.centre(y[None], 32, 16)),
    ):
        assert operator.residual(image, seen).norm() < 1e-5 * seen.nan_to_num().norm()


def test_the_support_of_the_object_is_that_of_each_level(measured):
    parts, _ = measured(noiseless(picture(0, 40, 24), (128, 128)), "data.support=auto")
    supports = [parts.instrument.support, parts.operator.support, parts.sampler.mechanisms[0].below.operator.support]
    assert [tuple(int(each.any(axis).sum()) for axis in (1, 0)) for each in supports] == [(40, 24), (20, 12), (10, 6)]


def test_a_run_of_frames_off_the_middle_with_a_support_goes_through_its_levels(run, tmp_path):
    (tmp_path / "frames").mkdir()
    np.save(tmp_path / "frames/y.npy", frame(picture(0, 40, 40), (97, 97), (50.5, 46)))
    keys = ("data=measurement", f"data.root={tmp_path / 'frames'}", "data.end_id=1", "data.center=auto", "data.support=40")
    folder, m = run(*LEVELS, *START, *keys)
    assert m["pyramid"]["levels"][0][0]["resolution"] == 16 and states(folder)[1]["y"].shape == (3, 48, 48)
    log = (folder / "run.log").read_text()
    assert "frames of 97 x 97 samples are no whole number of times those of 32 pixels of 64" in log


# what a level hands on


def test_pictures_are_scaled_up_without_a_shift():
    ramp = torch.linspace(-0.9, 0.9, 8)
    x = (ramp[:, None] + 0.1 * ramp).expand(1, 3, 8, 8)
    large = enlarged(x, 32)
    torch.testing.assert_close(
        large.unflatten(2, (8, 4)).unflatten(4, (8, 4)).mean((3, 5))[..., 2:-2, 2:-2], x[..., 2:-2, 2:-2]
    )
    assert enlarged(x, 8) is x


def test_agreement_is_of_the_nearest_in_either_orientation():
    generator = torch.Generator().manual_seed(0)
    x, other = (torch.rand(3, 8, 8, generator=generator) for _ in range(2))
    assert agreement(x[None], "channels") is None
    assert agreement(torch.stack([x, x.flip(-2, -1), other]), "channels") == pytest.approx(1.0)
    assert abs(agreement(torch.stack([x, other]), "channels")) < 0.5


def test_where_the_measurement_sees_a_turn_nothing_is_turned_to_agree():
    x = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert abs(agreement(torch.stack([x, x.flip(-2, -1)]), None)) < 0.5


def test_one_that_diverged_agrees_with_nobody_and_hides_no_other():
    x = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    broken = torch.full_like(x, torch.nan)
    assert agreement(torch.stack([x, broken, x]), "image") == pytest.approx(1.0)
    assert agreement(torch.stack([x, broken]), "image") is None and agreement(torch.stack([broken, x]), "image") is None


def test_the_mean_is_handed_on_in_the_orientation_of_each():
    generator = torch.Generator().manual_seed(0)
    truth, noise = torch.rand(3, 8, 8, generator=generator), 0.1 * torch.randn(3, 3, 8, 8, generator=generator)
    x = truth + noise
    turned = torch.stack([x[0].flip(-2, -1), x[1], x[2]])
    for turns in ("channels", "image"):
        handed = consensus(turned, 1, turns)
        torch.testing.assert_close(handed[0], x.mean(0).flip(-2, -1))
        torch.testing.assert_close(handed[1:], x.mean(0).expand(2, -1, -1, -1))
    torch.testing.assert_close(consensus(turned, 1, None), turned.mean(0).expand(3, -1, -1, -1))
    torch.testing.assert_close(consensus(x[:1], 0, "channels"), x[:1])


def test_channels_turned_against_the_best_are_put_right():
    x = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    mixed = torch.stack([x[0].flip(-2, -1), x[1], x[2]])
    torch.testing.assert_close(consensus(torch.stack([mixed, x]), 1, "channels"), x.expand(2, -1, -1, -1))
    assert not torch.allclose(consensus(torch.stack([mixed, x]), 1, "image")[0], x, atol=0.05)  # of such an operator they stay


def test_a_diverged_particle_begins_at_the_mean_of_the_others():
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        consensus(torch.stack([x[0], torch.full_like(x[1], torch.nan), x[2]]), 0, None), x[[0, 2]].mean(0).expand(3, -1, -1, -1)
    )
    assert consensus(torch.full_like(x, torch.nan), 0, "channels").isnan().all()


def test_a_level_begins_at_the_best_of_the_level_below(composed, tiny, monkeypatch):
    settings = check(composed(*tiny, *LEVELS))
    parts = build(settings, tried=False)
    particles, _ = load_batch(parts, settings, select_images(settings)[:2])
    pyramid = parts.sampler.mechanisms[0]
    sampled, seen = {}, []
    sample = pyramid.below.sample

    def watched(start, *rest):
        sampled["result"] = sample(start, *rest)
        return sampled["result"]

    monkeypatch.setattr(pyramid.below, "sample", watched)
    result = parts.sampler.sample(particles, on_step=seen.append)
    below = sampled["result"]
    for image in (0, 1):
        rows = below.particles.of_image(image)
        best = rows[below.loss[rows].argsort()[:2]].sort().values
        assert result.particles.index[result.particles.of_image(image)].tolist() == below.particles.index[best].tolist()
        assert pyramid.block(result.of_image("pyramid", image), range(4))["levels"][0]["kept"] == [
            int(i) for i in below.particles.index[rows[below.loss[rows].argsort()[:2]]]
        ]
    first = next(info for info in seen if info.level is None)
    assert first.step == 1 and {info.level for info in seen} == {None, "16 of 64 pixels"}


@pytest.mark.parametrize("meet", [True, False])
def test_particles_of_a_level_begin_at_their_mean_turned_onto_the_best(composed, tiny, meet):
    settings = check(composed(*tiny, *LEVELS, f"pyramid.consensus={str(meet).lower()}"))
    parts = build(settings, tried=False)
    particles, _ = load_batch(parts, settings, select_images(settings)[:1])
    pyramid = parts.sampler.mechanisms[0]
    y = parts.operator.centre(particles.y, 32, 16)
    x = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    mixed = torch.stack([x[0].flip(-2, -1), x[1], x[2]])
    at_end = dataclasses.replace(particles, y=y)
    pictures = torch.stack([mixed, mixed, x, mixed])
    below = SampleResult(at_end, pictures, torch.tensor([3.0, 2.0, 1.0, 4.0]), [], {})
    rows, handed_on, report = pyramid.chosen(below)
    assert rows.tolist() == [1, 2] and report[0]["kept"] == [2, 1]
    torch.testing.assert_close(handed_on, torch.stack([x, x] if meet else [mixed, x]))


@pytest.fixture
def near(composed, tiny):
    """near(overrides ...) -> (pyramid, sampler, truth, particles) of the level of 32 pixels, which the truth has."""

    def load(*overrides):
        settings = check(composed(*tiny, *LEVELS, "pyramid.solutions=8", "task.demo_langevin.operator.sigma=0", *overrides))
        parts = build(settings, tried=False)
        particles, _ = load_batch(parts, settings, select_images(settings)[:1])
        truth = 2 * torch.from_numpy(picture()).float()[None, :, ::2, ::2] - 1
        y = parts.operator(truth).expand(4, -1, -1, -1)
        return parts.sampler.mechanisms[0], parts.sampler, truth, dataclasses.replace(particles, y=y)

    return load


def error(x, truth):
    return float((x - truth).square().mean().sqrt())


def test_a_level_begins_half_way_to_the_mean_of_classical_solutions(near):
    pyramid, sampler, truth, particles = near()
    x = (truth + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    met = torch.cat([x, x.flip(-2, -1), x, x])
    settled = pyramid.settled(met, particles, sampler)
    for each, turned in zip(settled, (False, True, False, False)):
        remaining = error(each, truth[0].flip(-2, -1) if turned else truth[0]) / error(x, truth)
        assert 0.45 < remaining < 0.65  # the solutions have next to no error here
    torch.testing.assert_close(settled[0], settled[1].flip(-2, -1))


def test_without_a_consensus_each_particle_goes_to_solutions_near_its_own_picture(near):
    pyramid, sampler, truth, particles = near("pyramid.consensus=false")
    lost = torch.rand(truth.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    x = (truth + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    settled = pyramid.settled(torch.cat([x, lost, x, lost]), particles, sampler)
    assert error(settled[0], truth[0]) < 0.7 * error(x, truth) and error(settled[2], truth[0]) < 0.7 * error(x, truth)
    assert error(settled[1], truth[0]) > 0.3


@pytest.mark.parametrize("consensus", ["true", "false"])
def test_solutions_of_an_image_are_those_it_has_alone(near, consensus):
    pyramid, sampler, truth, particles = near(f"pyramid.consensus={consensus}")
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = torch.stack([particles.y[0], particles.y[0] + 1] * 2)
    mixed = dataclasses.replace(particles, image=torch.tensor([0, 7, 0, 7]), y=y)
    together = pyramid.settled(x, mixed, sampler)
    for rows in (torch.tensor([0, 2]), torch.tensor([1, 3])):
        torch.testing.assert_close(together[rows], pyramid.settled(x[rows], mixed.select(rows), sampler))
    assert not torch.allclose(together[0], x[0], atol=0.1)


def test_solutions_need_a_spectrum(composed, tiny):
    class Counts(PhaseRetrieval):
        spectrum = False

    settings = check(composed(*tiny, *LEVELS, "pyramid.solutions=4"))
    with pytest.raises(InputError, match="pyramid.solutions=4: Counts measures no spectrum"):
        build_pyramid(settings, None, None, Counts())


def test_of_the_luminance_alone_the_colours_stay(near):
    pyramid, sampler, truth, particles = near("+task.demo_langevin.operator.channels=1")
    x = (truth + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))).clamp(-0.9, 0.9)
    moved = pyramid.settled(x.expand(4, -1, -1, -1), particles, sampler) - x
    inside = moved.abs().amax(1, keepdim=True) < 0.1
    torch.testing.assert_close((moved * inside)[:, 0], (moved * inside)[:, 2], atol=1e-5, rtol=0)
    luminance = sampler.operator.visible
    assert error(luminance(x + moved), luminance(truth)) < 0.8 * error(luminance(x), luminance(truth))


def test_what_is_off_leaves_a_run_what_it_was_before_there_was_a_choice(composed, tiny):
    configs = [composed(*tiny, *LEVELS, f"pyramid.consensus={meet}") for meet in ("true", "false")]
    met, apart = (OmegaConf.to_container(config, resolve=True) for config in configs)
    before = apart | {"pyramid": {key: value for key, value in apart["pyramid"].items() if key != "consensus"}}
    assert fingerprint(before) == fingerprint(apart) != fingerprint(met)
    solved = met | {"pyramid": met["pyramid"] | {"solutions": 16}}
    unsolved = met | {"pyramid": {key: value for key, value in met["pyramid"].items() if key != "solutions"}}
    assert fingerprint(unsolved) == fingerprint(met) != fingerprint(solved)


# in the program: three annealing steps at each level


def test_a_run_says_what_each_level_found_and_cost(run):
    folder, m = run(*LEVELS, *START, pictures=True)
    assert list(m["time"]["phases"]) == [
        "level_16_bank",
        "level_16_above_start",
        "level_16_below_start",
        "scaling_up",
        "sampling",
    ]
    assert [p["passes"] for p in m["time"]["phases"].values()] == [0, 2 * 2, 4 * 4, 0, 2 * 2 * 3]
    (level,) = m["pyramid"]["levels"][0]
    assert level["resolution"] == 16 and len(level["kept"]) == 2 and None not in level["loss"]
    assert level["blocks"]["start"]["particles"] == [0, 1] and -1 <= level["agreement"] <= 1
    record, arrays = states(folder)
    assert record["survivors"] == sorted(level["kept"]) and record["resolved"] == {"pixels": 32, "of": 64}
    assert (
        arrays["images"].shape == (2, 64, 64, 3) and arrays["truth"].shape == (64, 64, 3) and arrays["y"].shape == (3, 48, 48)
    )
    assert m["resolved"] == {"pixels": 32, "of": 64}
    assert "resolved to 32 of 64 pixels" in (folder / "eval.md").read_text()


def test_one_level_alone_asks_nothing_of_what_is_handed_on(composed, tiny):
    check(composed(*tiny, "data.resolution=64", "model.resolution=16", "pyramid.levels=[16]", "num_samples=1"))


def test_one_level_alone_is_a_run_at_the_centre_of_the_spectrum(run):
    folder, m = run("data.resolution=64", "model.resolution=16", "pyramid.levels=[16]", *START)
    assert list(m["time"]["phases"]) == ["bank", "above_start", "below_start"] and "pyramid" not in m
    assert m["resolved"] == {"pixels": 16, "of": 64} and states(folder)[1]["images"].shape == (4, 64, 64, 3)


def test_the_report_says_who_began_where_at_the_coarser_level(run):
    folder, m = run(*LEVELS, *START)
    tables = {table.title: table for table in ancestry(runs.load(folder / "metrics.json"), 1)}
    assert list(tables) == ["Coarse to fine: run", "Starts from the bank at 16 pixels: run"]
    start = m["pyramid"]["levels"][0][0]["blocks"]["start"]
    rows = tables["Starts from the bank at 16 pixels: run"].rows
    assert rows == [
        [0, f"p{index}", rank, f"{residual:.2f}", "yes" if turned else "no"]
        for index, rank, residual, turned in zip(*(start[key] for key in ("particles", "rank", "residual", "turned")))
    ]


def test_three_levels(run):
    sizes = ("data.resolution=64", "model.resolution=64", "pyramid.levels=[16,32,64]", *LEVELS[3:])
    _, m = run(*sizes, "pyramid.solutions=3")
    assert [level["resolution"] for level in m["pyramid"]["levels"][0]] == [16, 32]
    assert "level_32_level_16_sampling" in m["time"]["phases"] and "resolved" not in m


def test_a_model_of_256_pixels_is_the_last_level(run):
    """As a public one would be, in small: a random one of that size over the shipped prior at 32 and 64 pixels."""
    sizes = ("data.resolution=256", "model.resolution=256", "pyramid.levels=[32,64,256]", "pyramid.keep=1", "pyramid.sigma=3")
    folder, m = run(*sizes, "pyramid.chain.num_steps=1", "num_samples=2", "data.end_id=1")
    assert [(level["resolution"], len(level["kept"])) for level in m["pyramid"]["levels"][0]] == [(32, 1), (64, 1)]
    assert "resolved" not in m and states(folder)[1]["images"].shape == (1, 256, 256, 3)


def test_a_batch_and_shards_equal_single_images(run):
    together, _ = run(*LEVELS, *START, "batch_images=2")
    for shard in ("0/2", "1/2"):
        parts, _ = run(*LEVELS, *START, "name=parts", f"shard={shard}")
    for image in (0, 1):
        (a, x), (b, y) = (states(folder, image) for folder in (together, parts))
        np.testing.assert_allclose(x["z"], y["z"], atol=1e-3)
        assert a["survivors"] == b["survivors"]


def test_off_is_off_bit_for_bit(run):
    plain, _ = run("data.end_id=1")
    off, m = run("data.end_id=1", "name=off", "pyramid.keep=3", "pyramid.sigma=2")
    (a, x), (b, y) = states(plain), states(off)
    assert (x["z"] == y["z"]).all() and "pyramid" not in m and a["fingerprint"] == b["fingerprint"] and a.keys() == b.keys()


def test_counts_and_a_free_exposure_follow(run):
    terms = ("fidelity.gaussian=0", "fidelity.poisson=1", "fidelity.photons=500", "data.end_id=1")
    _, m = run(*LEVELS, *terms, "pyramid.solutions=4")
    assert m["loss"]["sample"][0].count(None) == 2
    _, m = run(*LEVELS, "fidelity.free_scale=true", "name=free", "data.end_id=1")
    assert m["loss"]["sample"][0].count(None) == 2


@pytest.mark.parametrize(
    "overrides, message",
    [
        (("pyramid.levels=[32,16]",), "pyramid.levels=[32, 16]: write rising sizes"),
        (("pyramid.levels=[16,16]",), "pyramid.levels=[16, 16]: write rising sizes"),
        (("pyramid.levels=[4,32]",), "pyramid.levels[0]=4"),
        (("pyramid.levels=[16,64]",), "the last must be model.resolution=32"),
        (("data.resolution=24",), "the last must not exceed data.resolution=24"),
        (("pyramid.models=[]",), "pyramid.models=[]: name one for each of the levels [16]"),
        (("pyramid.models=[nobody]",), "model nobody: no such file"),
        (("pyramid.keep=5",), "pyramid.keep=5: must not exceed num_samples=4"),
        (("pyramid.keep=0",), "pyramid.keep=0"),
        (("pyramid.sigma=0.1",), "pyramid.sigma=0.1: must lie between"),
        (("pyramid.levels=[18,32]",), "model.resolution=18: the prior in"),
        (("pyramid.levels=[]",), "data.resolution=64: the prior takes images of 32 pixels"),
        (("population=sequential",), "pyramid.levels=[16, 32] needs all of an image's particles at once; switch it off"),
        (("pruning_step=700", "children=1"), "children=1: a run that solves its image at several sizes adds no particles"),
        (("pyramid.models=[own]",), "names no path; copy the file"),
        (("pyramid.chain.mc_algo=langevin", "sampler.chain.keep_velocity=true"), "mc_algo=langevin has no velocity"),
        (("task=gaussian_blur",), "measures no spectrum"),
        (("pyramid.solutions=1", "pyramid.consensus=false"), "pyramid.solutions=1: without a consensus each of pyramid.keep=2"),
        (("pyramid.solutions=-1",), "pyramid.solutions=-1"),
        (("pyramid.solutions=4", "fidelity.free_scale=true"), "pyramid.solutions=4: the classical solver knows the range"),
    ],
)
def test_wrong_values_are_refused_in_one_line(refused, overrides, message):
    refused(message, *LEVELS, *overrides)


def test_without_noise_the_smallest_losses_go_on(run):
    _, m = run(*LEVELS, "task.demo_langevin.operator.sigma=0", "data.end_id=1")
    assert m["pyramid"]["levels"][0][0]["loss"] == [None] * 4 and len(m["pyramid"]["levels"][0][0]["kept"]) == 2


def test_a_side_that_no_level_divides_is_said(composed, tiny, caplog):
    with caplog.at_level("INFO", logger="latentdaps"):
        build(check(composed(*tiny, *LEVELS, "data.resolution=72")), tried=False)
    assert "72 pixels are no multiple of 32: an image's pixel is 2.25 of the object's" in caplog.text
