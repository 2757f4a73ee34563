"""The plug-in of coupled families: who draws whom, where the gradient stops, and what a run says of them."""

import json
import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from docs.examples.plugins.coupling import Coupling, Family, child_weights, drawn_down, drawn_up, family_of
from tests.worlds import analytic, runs
from tests.worlds.analytic import ANNEALING, MIXTURE
from utils.analysis import runs as finished_runs
from utils.analysis.comparison import summarise
from utils.analysis.experiments import gather
from utils.errors import InputError
from utils.figures.style import particle_title
from utils.mechanisms.children.act import Children
from utils.mechanisms.pruning.act import Pruning
from utils.paths import PROJECT
from utils.records.births import births
from utils.records.files import read_record
from utils.sampling.mechanism import census
from utils.sampling.particles import Particles
from utils.sampling.profiler import Profiler
from utils.sampling.schedule import StepClock, annealing_sigmas

PRUNING = SimpleNamespace(near_distance=0.5, loss_tolerance=1.0, fill="next_best")
CLOCK = StepClock(annealing_sigmas(ANNEALING.num_steps, ANNEALING.sigma_max, ANNEALING.sigma_min))
STEP = 2  # the first annealing step after the pruning, at t = 600 of five
PLUGINS = PROJECT / "docs/examples/plugins"


def particles(images, numbers, parents=None, levels=None):
    count = len(images)
    return Particles(
        z=torch.arange(float(count)).view(-1, 1, 1, 1),
        y=torch.zeros(count, 1),
        image=torch.tensor(images),
        index=torch.tensor(numbers),
        **({} if parents is None else {"parent": torch.tensor(parents), "level": torch.tensor(levels)}),
    )


# families


def test_a_parent_is_found_by_its_number_within_the_image():
    """Numbers with gaps, and the same ones in two images."""
    tree = particles([5, 7, 5, 7, 5], [3, 3, 8, 8, 9], [-1, -1, 3, 3, 6], [0, 0, 1, 1, 1])
    family = family_of(tree)
    assert list(zip(family.child.tolist(), family.parent.tolist())) == [(2, 0), (3, 1)]  # the parent of 9 has gone


@pytest.mark.parametrize("level", [0, 2])
def test_a_child_stands_one_level_below_its_parent(level):
    with pytest.raises(InputError) as caught:
        family_of(particles([5, 5], [0, 4], [-1, 0], [0, level]))
    assert str(caught.value).startswith(f"level={level}: particle 4 is a child of particle 0 of level 0;")
    assert "\n" not in str(caught.value)


# who draws whom: particle 0 has the children 1 and 3, particle 2 the child 4, particle 5 has none
FAMILY = Family(torch.tensor([1, 3, 4]), torch.tensor([0, 0, 2]))
LOSS = torch.tensor([1.0, 12.0, 1.0, 14.0, 50.0, 1.0], dtype=torch.float64)


def weights_of(loss, family, floor, deviation):
    """Of particles that share one measurement."""
    return child_weights(loss, family, torch.full_like(loss, floor), torch.full_like(loss, deviation))


def test_weights_sum_to_one_for_each_parent_and_halve_by_the_excess():
    weights = weights_of(LOSS, FAMILY, floor=10.0, deviation=1.0)
    assert weights[:2].sum() == pytest.approx(1) and weights[2] == 1
    assert weights[1] / weights[0] == pytest.approx(math.exp(-1))  # twice the excess of the best


def test_below_the_floor_its_standard_deviation_is_the_scale():
    weights = weights_of(LOSS, FAMILY, floor=11.5, deviation=4.0)
    assert weights[1] / weights[0] == pytest.approx(math.exp(-0.5))
    exact = weights_of(torch.where(LOSS == 12.0, 0.0, LOSS), FAMILY, floor=0.0, deviation=0.0)
    assert exact.tolist() == [1.0, 0.0, 1.0]  # no noise, and a child that fits exactly


def test_a_child_that_diverged_has_no_weight():
    loss = LOSS.clone()
    loss[1], loss[4] = math.nan, math.inf
    assert weights_of(loss, FAMILY, 10.0, 1.0).tolist() == [0.0, 1.0, 0.0]


def latents(requires_grad=False):
    z = torch.tensor([0.0, 1.0, 10.0, 3.0, 20.0, 7.0], dtype=torch.float64).view(-1, 1, 1, 1)
    return z.expand(-1, 2, 2, 2).clone().requires_grad_(requires_grad)


WEIGHTS = torch.tensor([0.75, 0.25, 1.0], dtype=torch.float64)


def test_parents_are_drawn_to_the_weighted_mean_of_their_children():
    moved = drawn_down(latents(), FAMILY, WEIGHTS, 0.5)
    assert moved[:, 0, 0, 0].tolist() == [0.75, 1.0, 15.0, 3.0, 20.0, 7.0]


def test_children_are_drawn_to_their_parents():
    moved = drawn_up(latents(), FAMILY, 0.25)
    assert moved[:, 1, 1, 1].tolist() == [0.0, 0.75, 10.0, 2.25, 17.5, 7.0]


def gradients(move, of):
    """d (sum of the particles `of` after the move) / d z, one number per particle."""
    z = latents(requires_grad=True)
    (gradient,) = torch.autograd.grad(move(z)[of].sum(), z)
    return gradient[:, 0, 0, 0].tolist()


def test_downwards_the_gradient_reaches_parents_alone():
    assert gradients(lambda z: drawn_down(z, FAMILY, WEIGHTS, 0.25), [0, 2]) == [0.75, 0, 0.75, 0, 0, 0]


def test_upwards_the_gradient_reaches_children_alone():
    assert gradients(lambda z: drawn_up(z, FAMILY, 0.25), [1, 3, 4]) == [0, 0.75, 0, 0.75, 0.75, 0]


def test_a_share_of_zero_moves_nothing_bit_for_bit():
    z = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn_down(z, FAMILY, WEIGHTS.float(), 0.0), z) and torch.equal(drawn_up(z, FAMILY, 0.0), z)
    assert not torch.equal(drawn_up(z, FAMILY, 0.1), z)  # negative control


@pytest.mark.parametrize("count", [0, 3], ids=["nobody", "nobody related"])
def test_where_there_is_no_family_nothing_moves(count):
    z, none = latents()[:count], Family(*torch.empty(2, 0, dtype=torch.long))
    weights = weights_of(LOSS[:count], none, 10.0, 1.0)
    assert weights.shape == (0,)
    assert torch.equal(drawn_down(z, none, weights, 0.5), z) and torch.equal(drawn_up(z, none, 0.5), z)


def test_what_diverged_draws_nobody():
    z = latents()
    z[1], z[2], z[4] = math.nan, math.inf, math.nan
    down = drawn_down(z, FAMILY, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), 0.5)
    assert down[0, 0, 0, 0] == 1.5 and down[3, 0, 0, 0] == 3
    z = latents()
    z[0] = math.nan
    up = drawn_up(z, FAMILY, 0.5)[:, 0, 0, 0]
    assert up[1:].tolist() == [1.0, 10.0, 3.0, 15.0, 7.0] and up[0].isnan()


# the mechanism in a closed-form world


def coupling(share=0.3, children=2, sigma=None, step=600, kind=Coupling):
    return kind(CLOCK, children, share, step, sigma)


@pytest.mark.parametrize(
    "left, legs", [(1, [None]), (2, ["down", "up"]), (3, ["down", None, "up"]), (4, ["down", "down", "up", "up"])]
)
def test_the_steps_that_are_left_make_one_v(left, legs):
    mechanism = coupling(0.5, step=200 * left)
    assert [mechanism.direction(step) for step in range(5)] == [None] * (5 - left) + legs


def sampled(*mechanisms, images=(0, 1), chain=None):
    loop = analytic.sampler(MIXTURE, chain, seed=42)
    loop.mechanisms = (Pruning(2, PRUNING, STEP, CLOCK), *mechanisms)
    for mechanism in mechanisms:
        mechanism.name = "families"
    census(loop.mechanisms, 0, 4, 4, 5)
    return loop.sample(analytic.start(MIXTURE, [0.3, 0.1, -0.2], 4, images), Profiler(torch.device("cpu")), lambda info: None)


def latent_of(result):
    return dict(zip(zip(result.particles.image.tolist(), result.particles.index.tolist()), result.particles.z))


@pytest.mark.parametrize("sigma", [None, 3.0], ids=["at z0y", "restarted"])
def test_images_of_a_batch_equal_single_images(sigma):
    together, alone = latent_of(sampled(coupling(sigma=sigma))), {}
    for image in (0, 1):
        alone |= latent_of(sampled(coupling(sigma=sigma), images=(image,)))
    assert together.keys() == alone.keys() and len(alone) == 2 * 6
    for key, z in alone.items():
        torch.testing.assert_close(together[key], z, rtol=0, atol=1e-9)


class Watched(Coupling):
    """What it made of the particles at the pruning."""

    def after_chain(self, particles, s, sampler):
        after, report = super().after_chain(particles, s, sampler)
        if report:
            self.before, self.after, self.sampler = particles, after, sampler
        return after, report


def test_parents_stay_as_they_are_before_their_children():
    mechanism = coupling(kind=Watched)
    sampled(mechanism, chain=analytic.chain(mc_algo="hmc", momentum=0.8, keep_velocity=True))
    before, after = mechanism.before, mechanism.after
    kept = before.index.tolist()
    assert after.image.tolist() == [0] * 6 + [1] * 6 and after.level.tolist() == [0, 0, 1, 1, 1, 1] * 2
    assert after.index.tolist() == [*kept[:2], 4, 5, 6, 7, *kept[2:], 4, 5, 6, 7]
    assert after.parent.tolist() == [j for a, b in (kept[:2], kept[2:]) for j in (-1, -1, a, a, b, b)]
    for image in (0, 1):
        was, now = before.select(before.of_image(image)), after.select(after.of_image(image))
        assert torch.equal(now.z, was.z[[0, 1, 0, 0, 1, 1]]) and torch.equal(now.velocity[:2], was.velocity)
        children = now.select(torch.arange(2, 6))
        assert torch.equal(children.velocity, mechanism.sampler.noise.draw(children, "velocity", 2))


def test_a_coupling_of_strength_zero_is_none():
    """Parents then follow the trajectory that they have without children, and children that of children without parents."""
    alone, beside = latent_of(sampled()), latent_of(sampled(coupling(0)))
    replaced, coupled = (
        latent_of(sampled(Children(2, SimpleNamespace(branch_sigma=None), STEP, CLOCK))),
        latent_of(sampled(coupling())),
    )
    assert beside.keys() == coupled.keys() == {*alone, *replaced}
    for key, z in {**alone, **replaced}.items():
        torch.testing.assert_close(beside[key], z, rtol=0, atol=1e-12)
        assert (coupled[key] - z).abs().max() > 1e-6, "negative control"


def test_parents_move_first_and_children_at_the_end():
    """Of the three steps that are left, parents move in the first, children in the last."""

    class Guided(Coupling):
        def guide(self, z0hat, particles, s, sampler):
            after = super().guide(z0hat, particles, s, sampler)
            moved = ((after - z0hat).flatten(1).abs().amax(1) > 0).tolist()
            seen[s.step] = [index for index, m in zip(particles.index.tolist(), moved) if m]
            return after

    seen = {}
    sampled(coupling(kind=Guided), images=(0,))
    assert seen.pop(1) == []  # at the pruning itself
    assert set(seen) == {2, 4} and seen[4] == [4, 5, 6, 7]
    assert len(seen[2]) == 2 and set(seen[2]) < {0, 1, 2, 3}


def test_children_are_weighed_by_what_they_lose_at_z0hat():
    """The loss is z itself: less than a deviation above the floor of 2, so the scale is the deviation, 0.5 x 2."""
    pair = particles([5, 5, 5], [0, 4, 5], [-1, 0, 0], [0, 1, 1])
    operator = SimpleNamespace(noise_floor=lambda y: torch.full((3,), 2.0), floor_spread=lambda y: torch.full((3,), 0.5))
    sampler = SimpleNamespace(operator=operator, exact_loss=lambda p: p.z.flatten())
    mechanism = coupling(0.5)
    mechanism.name = "families"
    z0hat = torch.tensor([4.0, 2.5, 3.0]).view(-1, 1, 1, 1)
    moved = mechanism.guide(z0hat, pair, SimpleNamespace(step=STEP, strengths={"families": 0.5}), sampler)
    weight = 1 / (1 + math.exp(-0.5))  # of the better child: the other is half a deviation behind it
    assert moved.flatten().tolist() == pytest.approx([0.5 * 4.0 + 0.5 * (2.5 * weight + 3.0 * (1 - weight)), 2.5, 3.0])


# in the program: three annealing steps, pruned after the first

HERE = (f"hydra.searchpath=[file://{PLUGINS}]", "experiment=coupling", "pruning_step=700", "mechanisms.coupling.share=0.3")


@pytest.mark.heavy
def test_a_coupled_run_keeps_its_parents_and_pays_a_decoding_for_each_step_down(run):
    folder, m = run(*HERE, pictures=True)
    assert m["metadata"]["num_samples"] == 4 and m["metadata"]["num_children"] == 4 and "tree" not in m
    for kept, labels, found in zip(m["pruning"]["kept"], m["modes"]["label"], m["mechanisms"]["coupling"]):
        assert found == {"step_index": 1, "timestep": pytest.approx(2000 / 3), "stay": True, "parent": found["parent"]}
        assert found["parent"] == {str(4 + c): kept[c // 2] for c in range(4)}
        assert [k for k, label in enumerate(labels) if label is not None] == [*kept, 4, 5, 6, 7]
    after = m["time"]["phases"]["post_pruning"]
    assert after["decoder_forward"] == 1 + 1 and after["decoder_forward_backward"] == 4  # the result, and one step down
    record, arrays = read_record(folder / "records" / "00000.npz")
    assert record["particles"] == list(range(8)) and len(record["survivors"]) == len(arrays["z"]) == 6
    assert "num_children" not in record["run"]  # of what is known before torch is imported
    text = (folder / "eval.md").read_text()
    assert "4 particles and 4 born later" in text and "best of 6" in text


@pytest.mark.heavy
def test_tables_and_pictures_know_its_families(run):
    """Three annealing steps of two passes each, pruned to two of four particles after the first."""
    folder, _ = run(*HERE, "pruning.fill=drop", "pruning.near_distance=1e9", "name=dropped")
    few = summarise(gather([finished_runs.load(folder / "metrics.json", from_records=True)])[0])
    assert few["particles"] == "4 → 3"
    folder, _ = run(*HERE)
    (experiment,) = gather([finished_runs.load(folder / "metrics.json", from_records=True)])
    row = summarise(experiment)
    assert row["particles"] == "4 → 6" and row["cost"]["passes"] == 4 * 2 + 6 * 4
    assert experiment.clusters("surviving") == [[6], [6]]


@pytest.mark.heavy
def test_a_place_without_a_picture_says_why(run):
    folder, _ = run(*HERE, "pruning.fill=drop", "pruning.near_distance=1e9", "data.end_id=1")
    record, _ = read_record(folder / "records" / "00000.npz")
    (kept,) = record["pruning"]["kept"]
    titles = [particle_title(record, position) for position in range(8)]
    assert "\n" in titles[kept] and sum(title.endswith("pruned") for title in titles) == 3
    assert titles[6:] == ["p6: not born", "p7: not born"]


@pytest.mark.heavy
def test_children_of_the_core_have_children_of_their_own(run):
    _, m = run(*HERE, "children=2", "data.end_id=1")
    (core,), (own,) = m["tree"]["parent"], m["mechanisms"]["coupling"]
    assert list(core) == ["4", "5", "6", "7"] and own["parent"] == {str(8 + c): 4 + c // 2 for c in range(8)}
    assert m["metadata"]["num_children"] == 12
    assert [k for k, label in enumerate(m["modes"]["label"][0]) if label is not None] == list(range(4, 16))
    assert sum(birth.gain for birth in births([{"parent": core, "stay": False}, own])) == 2 + 8


@pytest.mark.heavy
def test_shards_and_a_resumed_run_equal_one_that_went_through(run):
    switches = (*HERE, "mechanisms.coupling.branch_sigma=5")
    through, _ = run(*switches)
    for shard in ("0/2", "1/2", "1/2"):
        parts, _ = run(*switches, "name=parts", f"shard={shard}")
    for name in ("00000.npz", "00001.npz"):
        (a, x), (b, y) = (read_record(folder / "records" / name) for folder in (through, parts))
        assert (x["z"] == y["z"]).all() and a["mechanisms"] == b["mechanisms"] and a["scores"] == b["scores"]


@pytest.mark.program
def test_it_runs_from_any_working_directory_without_a_path(tmp_path, tiny):
    small = [word for word in tiny if not word.startswith("name=")]
    done = subprocess.run(
        [sys.executable, str(PROJECT / "posterior_sample.py"), "--config-dir", str(PLUGINS), "experiment=coupling", *small],
        cwd=tmp_path,
        env={key: value for key, value in runs.environment().items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (metrics,) = tmp_path.rglob("metrics.json")
    assert len(json.loads(metrics.read_text())["mechanisms"]["coupling"]) == 2


@pytest.mark.heavy
@pytest.mark.parametrize(
    "overrides, message",
    [
        (("mechanisms.coupling.children=0",), "mechanisms.coupling.children=0: must be a whole number"),
        (("mechanisms.coupling.children=1.5",), "mechanisms.coupling.children=1.5: must be a whole number"),
        (("mechanisms.coupling.share=-0.1",), "mechanisms.coupling.share=-0.1: must lie in [0, 1]"),
        (("mechanisms.coupling.share=1.1",), "mechanisms.coupling.share=1.1: must lie in [0, 1]"),
        (("pruning_step=-1",), "mechanisms.coupling.pruning_step=-1: families begin at a step between"),
        (("mechanisms.coupling.branch_sigma=2",), "mechanisms.coupling.branch_sigma=2: must lie between 2.93, the annealing's"),
        (("mechanisms.coupling.branch_sigma=10.1",), "mechanisms.coupling.branch_sigma=10.1: must lie between 2.93"),
        (("population=sequential", "pruning_step=-1", "mechanisms.coupling.pruning_step=700"), "(needs_all)"),
    ],
)
def test_wrong_values_are_refused_in_one_line(run, overrides, message):
    with pytest.raises(InputError) as caught:
        run(*HERE, *overrides)
    assert message in str(caught.value) and "\n" not in str(caught.value)
