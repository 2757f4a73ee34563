"""Coupled families: how children are born, who draws whom and where the gradient stops, and what a run says of them."""

import math
from types import SimpleNamespace

import pytest
import torch

from tests.worlds import analytic
from tests.worlds.analytic import ANNEALING, MIXTURE
from utils.errors import InputError
from utils.records.files import read_record
from utils.sampling.events import Events
from utils.sampling.particles import Particles
from utils.sampling.profiler import Profiler
from utils.sampling.pruning import Pruning
from utils.sampling.schedule import StepClock, annealing_sigmas, ode_sigmas
from utils.sampling.tree import Family, Tree, child_weights, drawn_down, drawn_up, family_of

PRUNING = SimpleNamespace(near_distance=0.5, loss_tolerance=1.0, fill="next_best")
SIGMAS = annealing_sigmas(ANNEALING.num_steps, ANNEALING.sigma_max, ANNEALING.sigma_min)
EVENTS = Events(StepClock("progress", SIGMAS), pruning_step=600)  # steps 2, 3 and 4 of five come after it


def particles(images, numbers, parents=None, levels=None):
    count = len(images)
    return Particles(
        z=torch.arange(float(count)).view(-1, 1, 1, 1),
        y=torch.zeros(count, 1),
        image=torch.tensor(images),
        index=torch.tensor(numbers),
        **({} if parents is None else {"parent": torch.tensor(parents), "level": torch.tensor(levels)}),
    )


# branching


@pytest.mark.parametrize("stay", [False, True], ids=["in their place", "beside them"])
def test_each_particle_becomes_so_many_children(stay):
    tree = particles([5, 5, 7], [1, 3, 0]).branch(2, 4, stay)
    rows = list(zip(*(t.tolist() for t in (tree.image, tree.index, tree.parent, tree.level, tree.z.flatten()))))
    born = {5: [(5, 4, 1, 1, 0), (5, 5, 1, 1, 0), (5, 6, 3, 1, 1), (5, 7, 3, 1, 1)], 7: [(7, 4, 0, 1, 2), (7, 5, 0, 1, 2)]}
    roots = {5: [(5, 1, -1, 0, 0), (5, 3, -1, 0, 1)], 7: [(7, 0, -1, 0, 2)]}
    assert rows == [row for image in (5, 7) for row in (*(roots[image] if stay else []), *born[image])]


def test_nobody_branches_into_nobody():
    nobody = particles([5, 5], [1, 3]).select(torch.tensor([], dtype=torch.long))
    assert len(nobody.branch(3, 4, True)) == 0


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


def tree(scale=0.0, children=2, sigma=None, events=EVENTS):
    return Tree(children, 4, scale, SimpleNamespace(branch_sigma=sigma), events)


@pytest.mark.parametrize(
    "left, legs", [(1, [None]), (2, ["down", "up"]), (3, ["down", None, "up"]), (4, ["down", "down", "up", "up"])]
)
def test_the_steps_that_are_left_make_one_v(left, legs):
    events = Events(EVENTS.clock, pruning_step=200 * left)
    assert [tree(0.5, events=events).direction(step) for step in range(5)] == [None] * (5 - left) + legs


def run(mechanism, images=(0, 1), keep=2, chain=None, on_step=lambda info: None):
    loop = analytic.sampler(MIXTURE, chain, seed=42)
    loop.events, loop.mechanisms = EVENTS, (Pruning(keep, PRUNING, EVENTS), *([mechanism] if mechanism else []))
    return loop.sample(analytic.start(MIXTURE, [0.3, 0.1, -0.2], 4, images), Profiler(torch.device("cpu")), on_step)


def latent_of(result):
    return dict(zip(zip(result.particles.image.tolist(), result.particles.index.tolist()), result.particles.z))


@pytest.mark.parametrize("mechanism", [tree(), tree(sigma=3.0), tree(0.3)], ids=["children", "restarted", "coupled"])
def test_images_of_a_batch_equal_single_images(mechanism):
    together, alone = latent_of(run(mechanism)), {}
    for image in (0, 1):
        alone |= latent_of(run(mechanism, images=(image,)))
    assert together.keys() == alone.keys() and len(alone) == 2 * (6 if mechanism.scale else 4)
    for key, z in alone.items():
        torch.testing.assert_close(together[key], z, rtol=0, atol=1e-9)


CHAINS = [analytic.chain(), analytic.chain(mc_algo="hmc", momentum=0.8, keep_velocity=True)]


@pytest.mark.parametrize("chain", CHAINS, ids=["langevin", "velocity kept"])
def test_siblings_differ_from_the_first_step_on(chain):
    seen = []
    run(tree(), images=(0,), chain=chain, on_step=lambda info: seen.append(info.particles))
    first = seen[2]
    assert first.index.tolist() == [4, 5, 6, 7] and len(seen[1]) == 4
    assert torch.pdist(first.z.flatten(1)).min() > 1e-3
    if first.velocity is not None:
        assert torch.pdist(first.velocity.flatten(1)).min() > 1e-3


class Watched(Tree):
    """What it made of the particles at the pruning."""

    def after_chain(self, particles, s, sampler):
        after, report = super().after_chain(particles, s, sampler)
        if report:
            self.before, self.after, self.sampler = particles, after, sampler
        return after, report


def test_children_start_at_their_parents_latent_with_a_velocity_of_their_own():
    mechanism = Watched(2, 4, 0.3, SimpleNamespace(branch_sigma=None), EVENTS)
    run(mechanism, images=(0,), chain=CHAINS[1])
    before, after = mechanism.before, mechanism.after
    assert torch.equal(after.z, before.z[[0, 1, 0, 0, 1, 1]])
    assert torch.equal(after.velocity[:2], before.velocity)
    children = after.select(torch.arange(2, 6))
    assert torch.equal(children.velocity, mechanism.sampler.noise.draw(children, "velocity", 2))


def test_under_branch_sigma_children_start_where_the_flow_from_there_ends():
    mechanism = Watched(2, 4, 0.3, SimpleNamespace(branch_sigma=3.0), EVENTS)
    run(mechanism, images=(0,))
    before, after = mechanism.before, mechanism.after
    assert torch.equal(after.z[:2], before.z)
    children = after.select(torch.arange(2, 6))
    z = before.z[[0, 0, 1, 1]] + 3.0 * mechanism.sampler.noise.draw(children, "branch", 1)
    for a, b in zip(*(lambda grid: (grid[:-1], grid[1:]))(ode_sigmas(3.0, 2, 0.01))):
        z = z + (b - a) * (z - MIXTURE.denoise(z, torch.tensor(a, dtype=torch.float64))) / a
    torch.testing.assert_close(children.z, z, rtol=0, atol=1e-12)


def test_a_coupling_of_strength_zero_is_none():
    """Parents then follow the trajectory that they have without children."""

    class Silent(Tree):
        def strength(self, step):
            return 0.0

    alone, beside = latent_of(run(None)), latent_of(run(Silent(2, 4, 0.3, SimpleNamespace(branch_sigma=None), EVENTS)))
    replaced, coupled = latent_of(run(tree())), latent_of(run(tree(0.3)))
    assert beside.keys() == coupled.keys() == {*alone, *replaced}
    for key, z in {**alone, **replaced}.items():
        torch.testing.assert_close(beside[key], z, rtol=0, atol=1e-12)
        assert (coupled[key] - z).abs().max() > 1e-6, "negative control"


def test_parents_move_first_and_children_at_the_end():
    """Of the three steps that are left, parents move in the first, children in the last."""

    class Guided(Tree):
        def guide(self, z0hat, particles, s, sampler):
            after = super().guide(z0hat, particles, s, sampler)
            moved = ((after - z0hat).flatten(1).abs().amax(1) > 0).tolist()
            seen[s.step] = [index for index, m in zip(particles.index.tolist(), moved) if m]
            return after

    seen = {}
    run(Guided(2, 4, 0.3, SimpleNamespace(branch_sigma=None), EVENTS), images=(0,))
    assert seen.pop(1) == []  # at the pruning itself
    assert set(seen) == {2, 4} and seen[4] == [4, 5, 6, 7]
    assert len(seen[2]) == 2 and set(seen[2]) < {0, 1, 2, 3}


# in the program: three annealing steps, pruned after the first

OVERRIDES = ("pruning_step=700", "children=2")


def test_a_run_reports_families_and_their_cost(run):
    folder, m = run(*OVERRIDES, pictures=True)
    assert m["metadata"]["num_samples"] == 4 and m["metadata"]["num_children"] == 4
    for i in range(2):
        kept, labels = m["pruning"]["kept"][i], m["modes"]["label"][i]
        assert m["tree"]["parent"][i] == {str(4 + c): kept[c // 2] for c in range(4)}
        assert [label is not None for label in labels] == [False] * 4 + [True] * 4
        assert m["selection"]["picked"][i] >= 4 and len(m["loss"]["sample"][i]) == 8 and len(m["pruning"]["loss"][i]) == 4
    assert (m["tree"]["step_index"], m["tree"]["stay"]) == (1, False)
    phases = m["time"]["phases"]
    assert [phases[name]["decoder_forward_backward"] for name in phases] == [2, 4]
    record, arrays = read_record(folder / "records" / "00000.npz")
    assert record["particles"] == list(range(8)) and record["survivors"] == [4, 5, 6, 7] and len(arrays["z"]) == 4
    assert record["trace"]["loss"][0][4:] == [None] * 4 and record["trace"]["loss"][1][:4] == [None] * 4
    text = (folder / "eval.md").read_text()
    assert "4 particles and 4 children" in text and "best of 4" in text


def test_a_coupled_run_keeps_its_parents_and_pays_a_decoding_for_each_step_down(run):
    _, m = run(*OVERRIDES, "coupling_scale=0.3")
    assert m["tree"]["stay"] is True
    for kept, labels in zip(m["pruning"]["kept"], m["modes"]["label"]):
        assert [k for k, label in enumerate(labels) if label is not None] == [*kept, 4, 5, 6, 7]
    after = m["time"]["phases"]["post_pruning"]
    assert after["decoder_forward"] == 1 + 1 and after["decoder_forward_backward"] == 4  # the result, and one step down


def test_dropped_slots_have_no_children(run):
    folder, m = run(*OVERRIDES, "pruning.fill=drop", "pruning.near_distance=1e9", pictures=True)
    assert [len(parent) for parent in m["tree"]["parent"]] == [2, 2]
    assert all(labels[6:] == [None, None] for labels in m["modes"]["label"])
    assert (folder / "grid_results.png").is_file()


def test_off_is_off_bit_for_bit(run):
    plain, _ = run("data.end_id=1", "pruning_step=700")
    off, m = run("data.end_id=1", "pruning_step=700", "name=off", "children=0", "coupling_scale=0", "tree.branch_sigma=9")
    (a, x), (b, y) = (read_record(folder / "records" / "00000.npz") for folder in (plain, off))
    assert (x["z"] == y["z"]).all() and "tree" not in m and a.keys() == b.keys() and a["fingerprint"] == b["fingerprint"]


def test_shards_and_a_resumed_run_equal_one_that_went_through(run):
    through, _ = run(*OVERRIDES, "coupling_scale=0.3", "tree.branch_sigma=5")
    for shard in ("0/2", "1/2", "1/2"):
        parts, _ = run(*OVERRIDES, "coupling_scale=0.3", "tree.branch_sigma=5", "name=parts", f"shard={shard}")
    for name in ("00000.npz", "00001.npz"):
        (a, x), (b, y) = (read_record(folder / "records" / name) for folder in (through, parts))
        assert (x["z"] == y["z"]).all() and a["tree"] == b["tree"] and a["scores"] == b["scores"]


@pytest.mark.parametrize(
    "overrides, message",
    [
        (("children=-1",), "children=-1"),
        (("children=65",), "children=65"),
        (("children=1.5",), "children=1.5"),
        (("coupling_scale=-0.1",), "coupling_scale=-0.1"),
        (("coupling_scale=1.1",), "coupling_scale=1.1"),
        (("tree.branch_sigma=0",), "tree.branch_sigma=0"),
        (("children=2",), "children=2: they are born at the pruning, and pruning_step=-1"),
        (("coupling_scale=0.5", "pruning_step=700"), "coupling_scale=0.5: it couples parents and children, and children=0"),
        ((*OVERRIDES, "tree.branch_sigma=2"), "tree.branch_sigma=2.0: must lie between 2.93, the annealing's own level"),
        ((*OVERRIDES, "tree.branch_sigma=10.1"), "tree.branch_sigma=10.1: must lie between 2.93"),
    ],
)
def test_wrong_values_are_refused_in_one_line(composed, tiny, tmp_path, overrides, message):
    import posterior_sample

    with pytest.raises(InputError) as caught:
        posterior_sample.run(composed(*tiny, *overrides))
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()
