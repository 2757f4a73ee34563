"""The term silog: the laws of every term, what it is blind to, where it does not fit, and a run by its YAML alone."""

import pytest
import torch

from tests.worlds import data_terms
from tests.worlds.data_terms import images, measured, with_fidelity
from tests.worlds.plugins import experiment, started_elsewhere
from utils.errors import InputError

TERM = dict(terms=dict(silog=dict(_target_="docs.examples.plugins.silog.Silog", weight=1.0)))
WEIGHTS = {"alone": dict(gaussian=0.0, **TERM), "beside gaussian": dict(gaussian=0.5, **TERM)}


@pytest.fixture(params=WEIGHTS)
def operator(request):
    return with_fidelity(**WEIGHTS[request.param])


def test_it_keeps_the_laws_of_a_term(operator):
    data_terms.a_batch_with_different_masks_equals_singles(operator)
    data_terms.what_is_missing_has_no_say(operator)
    data_terms.the_gradient_equals_finite_differences(operator)


@pytest.mark.heavy
def test_floor_and_spread_are_those_of_the_true_images_loss(operator):
    data_terms.floor_and_spread_are_those_of_the_true_images_loss(operator)


def test_another_exposure_far_above_the_noise_gives_the_same():
    """Sigma is also the logarithm's epsilon, so the invariance is a limit."""
    fine, coarse = (with_fidelity(sigma=sigma, **WEIGHTS["alone"]) for sigma in (1e-9, 0.1))
    (_, y), x = measured(fine, 2), images(2, seed=5)
    torch.testing.assert_close(fine.loss(x, y), fine.loss(x, 7 * y), rtol=1e-4, atol=0)
    assert not torch.allclose(coarse.loss(x, y), coarse.loss(x, 7 * y), rtol=1e-2)  # negative control


def test_it_compares_by_the_loss_and_knows_no_exposure(operator):
    assert operator.handicap(images(2), torch.ones_like(operator(images(2)))) is None
    assert not operator.terms["silog"].knows_scale


@pytest.mark.heavy
def test_a_run_with_every_mechanism_asks_for_it(run):
    switches = ("pruning_step=500", "optimization_step=400", "recombination_step=700", "data.end_id=1")
    _, metrics = run(*experiment("silog"), *switches)
    terms = metrics["loss"]["terms"]
    assert list(terms) == ["silog"] and metrics["loss"]["noise_floor"] == pytest.approx(terms["silog"]["noise_floor"])
    for total, part in zip(metrics["loss"]["sample"][0], terms["silog"]["sample"][0]):
        assert total is None and part is None or total == pytest.approx(part, rel=1e-5)


@pytest.mark.heavy
def test_a_task_without_a_magnitude_is_refused(run):
    with pytest.raises(InputError, match=r"^fidelity\.terms\.silog: the measurement of HighDynamicRange is no magnitude"):
        run(*experiment("silog"), "task=hdr")


@pytest.mark.program
def test_it_starts_from_any_folder(tiny, tmp_path):
    started_elsewhere("silog", tiny, tmp_path, "data.end_id=1")
