"""Parts of one's own that break a contract end in one line before anything is sampled; those that keep it run."""

import pytest
import torch

from sampler import LatentDAPS
from tests.worlds import runs
from utils.errors import InputError

pytestmark = pytest.mark.program

OPERATORS = {
    "Complex": "forward gives complex numbers for (2, 3, 16, 16); return real ones",
    "Averaging": "forward gives (2, 2, 16, 16) for two images and (1, 1, 16, 16) for one",
    "Dropping": "forward gives (3, 16, 16) for (2, 3, 16, 16); the first axis belongs to the particles",
    "Detached": "forward gives a result without a gradient (conversion to NumPy at tests/worlds/broken.py:",
    "Rounding": "forward gives a gradient that is zero everywhere (round() has no or a zero gradient at ",
    "Crashing": "forward fails for (2, 3, 16, 16) (RuntimeError: ",
    "NoTensor": "forward gives no tensor but ndarray",
    "Counting": "forward gives torch.int64",
    "NoOperator": "is no operators.base.Operator; subclass it",
    "TotalLoss": "loss gives () for (2, 3, 16, 16)",
}
PRIORS = {
    "flat_decoder": "decode gives (2, 8) for two latents; return (2, 3, 16, 16)",
    "detached_decoder": "decode gives a result without a gradient",
    "summed_denoiser": "denoise gives (2, 1, 1) for latents (2, 8, 1, 1)",
    "shapeless": "'object' object has no attribute",
}
SIMILARITIES = {
    "detached_colour": "it gives a result without a gradient",
    "one_colour": "it gives (2,) for two images; return a row of numbers for each, (P, D)",
    "framed_colour": "it gives (2, 3, 1) for two images; return a row of numbers for each, (P, D)",
    "crashing_colour": "it fails for (2, 3, 16, 16) (ValueError: no colour in this image)",
}


def own_operator(name):
    """Overrides for tests.worlds.broken.NAME, which takes sigma alone."""
    return f"task.demo_langevin.operator._target_=tests.worlds.broken.{name}", "~task.demo_langevin.operator.oversample"


@pytest.fixture
def refused(run, monkeypatch):
    """refused(*overrides) -> the one line, of a run that has sampled nothing."""
    monkeypatch.setattr(LatentDAPS, "sample", lambda *_, **__: pytest.fail("sampled"))

    def start(*overrides):
        with pytest.raises(InputError) as caught:
            run(*overrides)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return start


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_that_breaks_its_contract(refused, name):
    line = refused(*own_operator(name))
    assert f"_target_=tests.worlds.broken.{name}: {OPERATORS[name]}" in line


@pytest.mark.parametrize("name", PRIORS)
def test_a_prior_that_breaks_its_contract(refused, name):
    line = refused(f"model._target_=tests.worlds.broken.{name}")
    assert f"model._target_=tests.worlds.broken.{name}: {PRIORS[name]}" in line


@pytest.mark.parametrize("name", SIMILARITIES)
def test_a_similarity_that_breaks_its_contract(refused, name):
    line = refused("repulsion_scale=0.3", f"repulsion.similarity=tests.worlds.broken.{name}")
    assert f"repulsion.similarity=tests.worlds.broken.{name}: {SIMILARITIES[name]}" in line


def test_parts_that_keep_their_contracts_run(run):
    own = (*own_operator("Plain"), runs.ANALYTIC, "repulsion_scale=0.3", "repulsion.similarity=tests.worlds.broken.mean_colour")
    _, metrics = run(*own, "data.end_id=1")
    assert metrics["psnr"]["max"][0] is not None


def test_the_noise_level_is_one_number_for_all_particles(run):
    run("model._target_=tests.worlds.broken.one_level", "max_particles_per_pass=2", "data.end_id=1")


def test_a_similarity_that_does_not_act_is_not_tried(run):
    run("repulsion_scale=0", "repulsion.similarity=tests.worlds.broken.crashing_colour", "data.end_id=1")


def test_our_own_parts_are_not_tried(run, monkeypatch):
    for part in ("operator", "prior", "similarity"):
        monkeypatch.setattr(f"utils.running.build.try_{part}", lambda *_: pytest.fail("tried"))
    run("repulsion_scale=0.3", "data.end_id=1")


def test_a_full_device_is_no_fault_of_the_part(run, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("tests.worlds.broken.Plain.forward", full)
    with pytest.raises(Exception, match="out of memory") as caught:
        run(*own_operator("Plain"))
    assert "_target_" not in str(caught.value)
