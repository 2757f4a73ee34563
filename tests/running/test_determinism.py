"""Every way of dividing and disturbing a run, crossed: images a batch x shards x interrupted or not."""

import functools
import itertools

import pytest

from tests.worlds import runs

pytestmark = pytest.mark.program

IMAGES = 4
BATCHES, SHARDS, INTERRUPTED = (1, 2, 4), (1, 2, 3), (False, True)
MATRIX = list(itertools.product(BATCHES, SHARDS, INTERRUPTED))
# float32 carries 1.2e-7; a few hundred roundings deep, two kinds of kernels differ in the fifth digit of 10 dB
EXACT, FLOAT32_DB = 1e-9, 1e-4


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_prior, no_pictures):
    return runs.Place(tmp_path_factory.mktemp("determinism"), tiny_prior, images=IMAGES)


@pytest.fixture(scope="module")
def reference(place):
    """Scores of one undisturbed run, one image at a time, by the kind of prior."""
    return functools.cache(lambda kind: scores(place.run(f"reference_{kind}", *PRIORS[kind])))


COMMON = (f"data.end_id={IMAGES}",)
SHIPPED = runs.PROJECT / "checkpoints" / "demo-faces"
PRIORS = {"analytic": (*COMMON, runs.ANALYTIC), "network": COMMON}
if SHIPPED.is_dir():
    PRIORS["shipped"] = (
        *COMMON,
        f"model.path={SHIPPED}",
        "data.root=dataset/demo-faces",
        "model.resolution=64",
        "data.resolution=64",
    )
KINDS = [pytest.param(kind, marks=pytest.mark.slow if kind == "shipped" else ()) for kind in PRIORS]
TOLERANCE = {"analytic": EXACT, "network": FLOAT32_DB, "shipped": FLOAT32_DB}


def scores(folder):
    return runs.scores(runs.metrics_of(folder), memory=False)


def interrupt_once(patch, at_step):
    """Ctrl-C at the end of the `at_step`-th annealing step from now on."""
    from utils import device as devices

    mark_step, steps = devices.mark_step, itertools.count(1)

    def interrupt(device):
        mark_step(device)
        if next(steps) == at_step:
            raise KeyboardInterrupt

    patch.setattr(devices, "mark_step", interrupt)


def divided_run(place, name, kind, batch, shards, interrupted):
    """All shards of one run, the first of them interrupted in its second batch (or its only one)."""
    for k in range(shards):
        overrides = (*PRIORS[kind], f"batch_images={batch}", f"shard={k}/{shards}")
        if interrupted and k == 0:
            with pytest.MonkeyPatch.context() as patch:
                interrupt_once(patch, at_step=2 if batch * shards >= IMAGES else 5)
                with pytest.raises(KeyboardInterrupt):
                    place.run(name, *overrides)
        folder = place.run(name, *overrides)
    return folder


@pytest.mark.parametrize("batch, shards, interrupted", MATRIX)
@pytest.mark.parametrize("kind", KINDS)
def test_division_and_interruption_change_no_score(place, reference, kind, batch, shards, interrupted):
    folder = divided_run(place, f"{kind}_{batch}_{shards}_{interrupted}", kind, batch, shards, interrupted)
    same_pass_size = batch == 1
    runs.assert_close(scores(folder), reference(kind), 0.0 if same_pass_size else TOLERANCE[kind])


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_bounded_passes_change_no_score(place, reference, kind, limit):
    """8 particles in a batch, 1 to 8 in a pass; odd limits give passes of different sizes."""
    folder = place.run(f"{kind}_passes_{limit}", *PRIORS[kind], "batch_images=4", f"max_particles_per_pass={limit}")
    runs.assert_close(scores(folder), reference(kind), TOLERANCE[kind])


@pytest.mark.parametrize("place_of_force, similarity", [("chain", "rotation"), ("drift", "rotation"), ("chain", "latent")])
def test_bounded_passes_change_no_score_with_every_part_on(place, place_of_force, similarity):
    """The force between particles needs the images of all of them, however small a pass is."""
    parts = (
        *PRIORS["analytic"],
        "num_samples=4",
        "batch_images=2",
        "repulsion_scale=0.5",
        "pruning_step=700",
        "optimization_step=400",
        f"repulsion.place={place_of_force}",
        f"repulsion.similarity={similarity}",
    )
    name = f"parts_{place_of_force}_{similarity}"
    whole = scores(place.run(f"{name}_whole", *parts))
    for limit in (1, 3):
        divided = scores(place.run(f"{name}_{limit}", *parts, f"max_particles_per_pass={limit}"))
        runs.assert_close(divided, whole, EXACT)
    off = scores(place.run(f"{name}_off", *parts, "repulsion_scale=0"))
    with pytest.raises(AssertionError):  # the force is felt, so the comparison above says something
        runs.assert_close({**off, "metadata": None}, {**whole, "metadata": None}, EXACT)


def test_another_seed_changes_the_scores(place, reference):
    """The comparison of this file can fail."""
    with pytest.raises(AssertionError, match="psnr"):
        other = scores(place.run("other_seed", *PRIORS["analytic"], "seed=43"))
        other["metadata"]["seed"] = reference("analytic")["metadata"]["seed"]
        runs.assert_close(other, reference("analytic"), FLOAT32_DB)
