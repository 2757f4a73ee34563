"""Children: how they are born, where they start, and what a run says of them."""

from types import SimpleNamespace

import pytest
import torch

from tests.worlds import analytic
from tests.worlds.analytic import ANNEALING, MIXTURE
from utils.mechanisms.children.act import Children
from utils.mechanisms.pruning.act import Pruning
from utils.records.files import read_record
from utils.sampling.particles import Particles
from utils.sampling.profiler import Profiler
from utils.sampling.schedule import StepClock, annealing_sigmas, ode_sigmas

PRUNING = SimpleNamespace(near_distance=0.5, loss_tolerance=1.0, fill="next_best")
SIGMAS = annealing_sigmas(ANNEALING.num_steps, ANNEALING.sigma_max, ANNEALING.sigma_min)
CLOCK, STEP = StepClock(SIGMAS), 2  # steps 2, 3 and 4 of five come after the pruning


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


def test_each_particle_becomes_so_many_children():
    tree = particles([5, 5, 7], [1, 3, 0]).branch(2, 4)
    rows = list(zip(*(t.tolist() for t in (tree.image, tree.index, tree.parent, tree.level, tree.z.flatten()))))
    assert rows[:4] == [(5, 4, 1, 1, 0), (5, 5, 1, 1, 0), (5, 6, 3, 1, 1), (5, 7, 3, 1, 1)]
    assert rows[4:] == [(7, 4, 0, 1, 2), (7, 5, 0, 1, 2)]


def test_children_of_images_in_turn_stand_image_by_image():
    mixed = particles([5, 7, 5], [1, 0, 3])
    assert mixed.image_by_image().index.tolist() == [1, 3, 0]
    assert mixed.branch(2, 4).index.tolist() == [4, 5, 6, 7, 4, 5] and mixed.branch(2, 4).image.tolist() == [5] * 4 + [7] * 2


def test_nobody_branches_into_nobody():
    nobody = particles([5, 5], [1, 3]).select(torch.tensor([], dtype=torch.long))
    assert len(nobody.branch(3, 4)) == 0


# the mechanism in a closed-form world


def tree(sigma=None, kind=Children):
    mechanism = kind(2, SimpleNamespace(branch_sigma=sigma), STEP, CLOCK)
    mechanism.first_newborn = 4
    return mechanism


def run(mechanism, images=(0, 1), chain=None, on_step=lambda info: None):
    loop = analytic.sampler(MIXTURE, chain, seed=42)
    loop.mechanisms = (Pruning(2, PRUNING, STEP, CLOCK), mechanism)
    return loop.sample(analytic.start(MIXTURE, [0.3, 0.1, -0.2], 4, images), Profiler(torch.device("cpu")), on_step)


def latent_of(result):
    return dict(zip(zip(result.particles.image.tolist(), result.particles.index.tolist()), result.particles.z))


@pytest.mark.parametrize("mechanism", [tree(), tree(sigma=3.0)], ids=["children", "restarted"])
def test_images_of_a_batch_equal_single_images(mechanism):
    together, alone = latent_of(run(mechanism)), {}
    for image in (0, 1):
        alone |= latent_of(run(mechanism, images=(image,)))
    assert together.keys() == alone.keys() and len(alone) == 2 * 4
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


class Watched(Children):
    """What it made of the particles at the pruning."""

    def after_chain(self, particles, s, sampler):
        self.before, self.sampler = particles, sampler
        self.after, report = super().after_chain(particles, s, sampler)
        return self.after, report


def test_children_start_at_their_parents_latent_with_a_velocity_of_their_own():
    mechanism = tree(kind=Watched)
    run(mechanism, images=(0,), chain=CHAINS[1])
    children = mechanism.after
    assert torch.equal(children.z, mechanism.before.z[[0, 0, 1, 1]])
    assert torch.equal(children.velocity, mechanism.sampler.noise.draw(children, "velocity", 2))


def test_under_branch_sigma_children_start_where_the_flow_from_there_ends():
    mechanism = tree(sigma=3.0, kind=Watched)
    run(mechanism, images=(0,))
    children = mechanism.after
    z = mechanism.before.z[[0, 0, 1, 1]] + 3.0 * mechanism.sampler.noise.draw(children, "branch", 1)
    for a, b in zip(*(lambda grid: (grid[:-1], grid[1:]))(ode_sigmas(3.0, 2, 0.01))):
        z = z + (b - a) * (z - MIXTURE.denoise(z, torch.tensor(a, dtype=torch.float64))) / a
    torch.testing.assert_close(children.z, z, rtol=0, atol=1e-12)


# in the program: three annealing steps, pruned after the first

OVERRIDES = ("pruning_step=700", "children=2")


@pytest.mark.heavy
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
    assert "4 particles and 4 born later" in text and "best of 4" in text


@pytest.mark.heavy
def test_dropped_slots_have_no_children(run):
    folder, m = run(*OVERRIDES, "pruning.fill=drop", "pruning.near_distance=1e9", pictures=True)
    assert [len(parent) for parent in m["tree"]["parent"]] == [2, 2]
    assert all(labels[6:] == [None, None] for labels in m["modes"]["label"])
    assert (folder / "grid_results.png").is_file()


@pytest.mark.heavy
def test_off_is_off_bit_for_bit(run):
    plain, _ = run("data.end_id=1", "pruning_step=700")
    off, m = run("data.end_id=1", "pruning_step=700", "name=off", "children=0", "tree.branch_sigma=9")
    (a, x), (b, y) = (read_record(folder / "records" / "00000.npz") for folder in (plain, off))
    assert (x["z"] == y["z"]).all() and "tree" not in m and a.keys() == b.keys() and a["fingerprint"] == b["fingerprint"]


@pytest.mark.heavy
def test_shards_and_a_resumed_run_equal_one_that_went_through(run):
    through, _ = run(*OVERRIDES, "tree.branch_sigma=5")
    for shard in ("0/2", "1/2", "1/2"):
        parts, _ = run(*OVERRIDES, "tree.branch_sigma=5", "name=parts", f"shard={shard}")
    for name in ("00000.npz", "00001.npz"):
        (a, x), (b, y) = (read_record(folder / "records" / name) for folder in (through, parts))
        assert (x["z"] == y["z"]).all() and a["tree"] == b["tree"] and a["scores"] == b["scores"]


@pytest.mark.heavy
@pytest.mark.parametrize(
    "overrides, message",
    [
        (("children=-1",), "children=-1"),
        (("children=65",), "children=65"),
        (("children=1.5",), "children=1.5"),
        (("tree.branch_sigma=0",), "tree.branch_sigma=0"),
        (("children=2",), "children=2: they are born at the pruning, and pruning_step=-1"),
        ((*OVERRIDES, "tree.branch_sigma=2"), "tree.branch_sigma=2.0: must lie between 2.93, the annealing's own level"),
        ((*OVERRIDES, "tree.branch_sigma=10.1"), "tree.branch_sigma=10.1: must lie between 2.93"),
    ],
)
def test_wrong_values_are_refused_in_one_line(refused, overrides, message):
    refused(message, *overrides)
