"""The term multiscale_gradient: the laws of every term, where it does not fit, and a run by its YAML alone."""

import pytest

from tests.worlds import data_terms
from tests.worlds.data_terms import images, measured, with_fidelity
from tests.worlds.plugins import experiment, started_elsewhere
from utils.errors import InputError

TERM = dict(edges=dict(_target_="docs.examples.plugins.multiscale_gradient.MultiscaleGradient", weight=1.0))
WEIGHTS = {"alone": dict(gaussian=0.0, terms=TERM), "beside gaussian": dict(gaussian=0.5, terms=TERM)}


@pytest.fixture(params=WEIGHTS)
def operator(request):
    return with_fidelity(image=True, **WEIGHTS[request.param])


def test_it_keeps_the_laws_of_a_term(operator):
    data_terms.a_batch_with_different_masks_equals_singles(operator)
    data_terms.what_is_missing_has_no_say(operator)
    data_terms.the_gradient_equals_finite_differences(operator)


@pytest.mark.heavy
def test_floor_and_spread_are_those_of_the_true_images_loss(operator):
    data_terms.floor_and_spread_are_those_of_the_true_images_loss(operator)


def test_it_adds_no_residual():
    alone, beside = (with_fidelity(image=True, **WEIGHTS[name]) for name in WEIGHTS)
    (_, y), x = measured(alone, 2), images(2, seed=5)
    assert not alone.residual(x, y).any() and beside.residual(x, y).any()


BLUR = ("task=down_sampling", "task.demo_langevin.operator.scale_factor=2", "data.end_id=1")


@pytest.mark.heavy
def test_a_run_asks_for_it(run):
    _, metrics = run(*experiment("multiscale_gradient"), *BLUR, "recombination_step=700")
    assert list(metrics["loss"]["terms"]) == ["gaussian", "multiscale_gradient"]
    parts = [metrics["loss"]["terms"][name]["noise_floor"][0] for name in ("gaussian", "multiscale_gradient")]
    assert metrics["loss"]["noise_floor"][0] == pytest.approx(parts[0] + 0.2 * parts[1])


@pytest.mark.heavy
def test_a_spectrum_has_no_edges(run):
    with pytest.raises(InputError, match=r"^fidelity\.terms\.multiscale_gradient: the measurement of PhaseRetrieval is a spec"):
        run(*experiment("multiscale_gradient"))


@pytest.mark.program
def test_it_starts_from_any_folder(tiny, tmp_path):
    started_elsewhere("multiscale_gradient", tiny, tmp_path, *BLUR)
