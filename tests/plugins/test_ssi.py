"""The term ssi: the laws of every term, the scales and offsets that it is blind to, and a run by its YAML alone."""

import pytest
import torch

from tests.worlds import data_terms
from tests.worlds.data_terms import deviation, images, measured, with_fidelity
from tests.worlds.plugins import experiment, started_elsewhere
from utils.errors import InputError

ALONE = dict(gaussian=0.0, terms=dict(ssi=dict(_target_="docs.examples.plugins.ssi.ScaleShiftInvariant", weight=1.0)))


@pytest.fixture(params=[False, True], ids=["of a spectrum", "of an image"])
def operator(request):
    return with_fidelity(image=request.param, **ALONE)


def test_it_keeps_the_laws_of_a_term(operator):
    data_terms.a_batch_with_different_masks_equals_singles(operator)
    data_terms.what_is_missing_has_no_say(operator)


def test_its_gradient_counts_the_scale_as_a_constant(operator):
    def with_the_middles_scale(x, y, middle):
        return operator.loss(x, y) * (deviation(operator(middle), y) / deviation(operator(x), y)) ** 2

    data_terms.the_gradient_equals_finite_differences(operator, with_the_middles_scale)


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.3])  # the true m varies by about 0.35
def test_floor_and_spread_are_those_of_the_true_images_loss(sigma):
    data_terms.floor_and_spread_are_those_of_the_true_images_loss(with_fidelity(sigma=sigma, **ALONE))


def test_another_exposure_or_offset_gives_the_same_result():
    operator = with_fidelity(**ALONE)
    (_, y), x = measured(operator, 2), images(2, seed=5).requires_grad_()
    results = [(loss := operator.loss(x, c), torch.autograd.grad(loss.sum(), x)[0]) for c in (y, 7 * y, 3 * y + 1)]
    for changed in results[1:]:
        for here, there in zip(results[0], changed):
            torch.testing.assert_close(here, there, rtol=1e-9, atol=1e-12)
    fixed = with_fidelity()
    assert not torch.allclose(fixed.loss(x, y), fixed.loss(x, 7 * y))  # negative control


@pytest.mark.heavy
def test_a_run_asks_for_it(run):
    _, metrics = run(*experiment("ssi"), "recombination_step=700", "data.end_id=1")
    assert list(metrics["loss"]["terms"]) == ["ssi"]


def test_alone_it_fits_no_free_scale(run):
    with pytest.raises(InputError, match=r"^fidelity\.free_scale: none of these terms knows a scale"):
        run(*experiment("ssi"), "fidelity.free_scale=true")


@pytest.mark.program
def test_it_starts_from_any_folder(tiny, tmp_path):
    started_elsewhere("ssi", tiny, tmp_path, "data.end_id=1")
