"""The terms of the data term: formula, gradient, floor, masks and scales; and what an operator cannot have."""

import pytest
import torch
from scipy import stats

from operators.fidelity import BUILT_IN, WithFidelity
from operators.gradients import multi_scale_gradient
from operators.hdr import HighDynamicRange
from operators.inpainting import Inpainting
from operators.phase_retrieval import PhaseRetrieval
from tests.worlds import data_terms
from tests.worlds.data_terms import images, measured, with_fidelity
from utils.config.sections import Fidelity
from utils.errors import InputError
from utils.running.build import own_terms

COUNTS = dict(photons=50.0, gaussian=0.0)
CASES = {
    "gaussian": dict(gaussian=1.0),
    "poisson": dict(COUNTS, poisson=1.0),
    "amplitude": dict(COUNTS, amplitude=1.0),
    "free_scale": dict(free_scale=True),
    "poisson, free_scale": dict(COUNTS, poisson=1.0, free_scale=True),
    "several": dict(gaussian=0.5, terms=dict(squares=dict(_target_="tests.worlds.own_terms.Squares", weight=2.0))),
}


def own(name, **arguments):
    """The block `fidelity` of a term of one's own beside the squared residual."""
    return dict(terms=dict(mine=dict(_target_=f"tests.worlds.own_terms.{name}", **arguments)))


@pytest.fixture(params=CASES)
def operator(request):
    return with_fidelity(**CASES[request.param])


def test_every_term_has_a_case():
    assert set(BUILT_IN) <= set(CASES)


def test_batch_with_different_masks_equals_singles(operator):
    data_terms.a_batch_with_different_masks_equals_singles(operator)


def test_what_is_missing_has_no_say(operator):
    data_terms.what_is_missing_has_no_say(operator)


def test_gradient_equals_finite_differences(operator):
    """The exposure of gaussian noise counts as a constant, at which the likelihood with its normalisation has no slope."""

    def likelihood(x, y, middle):
        return operator.loss(x, y) + operator.handicap(x, y)

    profiled = operator.free_scale and "gaussian" in operator.weights
    data_terms.the_gradient_equals_finite_differences(operator, likelihood if profiled else None)


@pytest.mark.heavy
def test_floor_and_spread_are_those_of_the_true_images_loss(operator):
    data_terms.floor_and_spread_are_those_of_the_true_images_loss(operator)


@pytest.mark.heavy
@pytest.mark.parametrize("term", ["poisson", "amplitude"])
@pytest.mark.parametrize("photons, background", [(1.0, 0.1), (1.0, 1.0), (10.0, 0.1), (100.0, 0.01)])
def test_floor_and_spread_of_few_photons(term, photons, background):
    operator = with_fidelity(gaussian=0.0, photons=photons, background=background, **{term: 1.0})
    data_terms.floor_and_spread_are_those_of_the_true_images_loss(operator)


@pytest.mark.parametrize("photons", [3e5, 1e7, 1e9])
@pytest.mark.parametrize("free_scale", [False, True])
def test_many_photons_lose_no_digits(photons, free_scale):
    """mu, k and k log(k / mu) are as large as the counts, and what they leave is of order 1."""
    operator = with_fidelity(gaussian=0.0, photons=photons, background=0.1, poisson=1.0, free_scale=free_scale)
    x = images(8)
    noise = torch.randn(operator(x).shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    y = operator.measure(x, noise)
    deviation = (operator.loss(x, y) / operator.noise_floor(y) - 1) / operator.floor_spread(y)
    assert deviation.mean().abs() < 5 / 8**0.5
    single = operator.float().loss(x.float(), y.float()).double()
    of_rounding = ((single / operator.noise_floor(y) - 1) / operator.floor_spread(y) - deviation).abs()
    assert of_rounding.max() < 0.05  # standard deviations


@pytest.mark.parametrize("photons", [1e4, 1e8])
@pytest.mark.parametrize("free_scale", [False, True])
def test_a_model_of_hardly_any_counts_where_many_were_measured_is_far_off_and_finite(photons, free_scale):
    """In single precision mu / k - 1 is -1 there: the deviance was infinite, its gradient no number, and the particle lost."""
    operator = with_fidelity(gaussian=0.0, photons=photons, background=0.1, poisson=1.0, free_scale=free_scale)
    term, k = operator.terms["poisson"], photons * torch.tensor([[[400.0, 0.25, 0.0]]], dtype=torch.float64)
    y, known = (k / photons).sqrt(), torch.ones_like(k, dtype=torch.bool)
    for m in (torch.tensor([[[0.0, 0.5, 0.1]]]), torch.tensor([[[1e-5, 1e-6, 1.0]]])):
        values, gradients = [], []
        for dtype in (torch.float64, torch.float32):
            x = m.to(dtype).requires_grad_()
            value = term.value(x, y.to(dtype), known)
            values.append(value.double())
            gradients.append(torch.autograd.grad(value.sum(), x)[0].double())
        mu = term.model(m.double(), y, known)
        deviance = 2 * operator.sigma**2 * (mu - k + torch.special.xlogy(k, k) - torch.special.xlogy(k, mu))
        for value, gradient in zip(values, gradients):
            torch.testing.assert_close(value, deviance, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(gradient, gradients[0], rtol=1e-2, atol=1e-3 * float(gradients[0].abs().max()))
        assert torch.isfinite(gradients[0]).all()


def test_gaussian_alone_is_the_operator_itself_bit_for_bit():
    plain, wrapped = PhaseRetrieval(), WithFidelity(PhaseRetrieval(), Fidelity())
    (_, y), x = measured(plain, 2), images(2, seed=5).requires_grad_()
    assert torch.equal(plain.loss(x, y), wrapped.loss(x, y))
    assert torch.equal(*(torch.autograd.grad(o.loss(x, y).sum(), x)[0] for o in (plain, wrapped)))
    assert torch.equal(plain.channel_loss(x, y), wrapped.channel_loss(x, y))


def test_another_exposure_gives_the_same_result():
    operator = with_fidelity(**CASES["free_scale"])
    (_, y), x = measured(operator, 2), images(2, seed=5).requires_grad_()
    results = [(loss := operator.loss(x, c * y), torch.autograd.grad(loss.sum(), x)[0]) for c in (1.0, 7.0)]
    for here, there in zip(*results):
        torch.testing.assert_close(here, there, rtol=1e-9, atol=1e-12)
    fixed = with_fidelity(**CASES["gaussian"])
    assert not torch.allclose(fixed.loss(x, y), fixed.loss(x, 7 * y))  # negative control


def test_another_number_of_photons_gives_the_same_poisson_with_a_free_scale():
    (_, y), x = measured(with_fidelity(**CASES["poisson"]), 2), images(2, seed=5)
    free, more = (with_fidelity(**CASES["poisson, free_scale"]) for _ in range(2))
    more.terms["poisson"].photons = 7 * 50.0
    torch.testing.assert_close(free.loss(x, y), more.loss(x, y / 7**0.5), rtol=1e-6, atol=0)


def test_counts_of_the_model_at_another_exposure_are_met_exactly():
    """k = 7 photons m^2 + background at the pixels that are known: the exposure is 7, and nothing is left of the deviance."""
    operator, x = with_fidelity(**CASES["poisson, free_scale"], background=20.0), images(2)
    m = operator(x)
    y = (7 * m.square() + 20.0 / 50.0).sqrt()
    known = torch.rand(y.shape, generator=torch.Generator().manual_seed(4)) < 0.7
    model = operator.terms["poisson"].model(m, torch.where(known, y, 0.0), known)
    torch.testing.assert_close(model, 50.0 * 7 * m.square() + 20.0)
    assert operator.loss(x, torch.where(known, y, torch.nan)).max() < 1e-9


def test_squared_residuals_add_up_to_the_weighted_loss():
    operator = with_fidelity(gaussian=0.25)
    (_, y), x = measured(operator, 2), images(2, seed=5)
    torch.testing.assert_close(operator.residual(x, y).square().sum(1), operator.loss(x, y))


@pytest.mark.parametrize("keys", [dict(), dict(COUNTS, photons=1e6, poisson=1.0), dict(COUNTS, photons=1e6, amplitude=1.0)])
def test_the_fitted_exposure_is_the_intensity_of_y_over_that_of_the_picture(keys):
    operator, x = with_fidelity(sigma=1e-3, free_scale=True, **keys), images(2)
    y = operator(x) * torch.tensor([3.0, 0.5], dtype=torch.float64).sqrt().view(2, 1, 1, 1)
    y[:, :, 2] = torch.nan
    torch.testing.assert_close(operator.exposure(x, y), torch.tensor([3.0, 0.5], dtype=torch.float64), rtol=2e-3, atol=0)
    assert with_fidelity(sigma=1e-3, **keys).exposure(x, y) is None


def test_the_free_exposure_neither_brightens_nor_darkens_the_truth():
    """On average over the noise the gradient has no part along m, which plain least squares in t would have."""
    operator, x = with_fidelity(sigma=0.2, free_scale=True), images(1)
    m = operator(x)
    noise = torch.randn(2000, *m.shape[1:], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, known = m + 0.2 * noise, torch.ones(2000, *m.shape[1:], dtype=torch.bool)
    along = ((m - operator.terms["gaussian"].exposure(m.expand_as(y), y, known) * y) * m).flatten(1).sum(1) / m.square().sum()
    plain = 1 - (m * y).flatten(1).sum(1).square() / y.square().flatten(1).sum(1) / m.square().sum()
    assert abs(along.mean()) < 5 * along.std() / 2000**0.5 < plain.mean() / 5


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["poisson", "amplitude"])
def test_simulated_counts_follow_the_poisson_law_and_the_noise(name):
    operator, x = with_fidelity(**CASES[name]), images(1).expand(400, -1, -1, -1)
    noise = torch.randn(operator(x).shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = 50.0 * operator.measure(x, noise).square()
    assert (counts - counts.round()).abs().max() < 1e-9
    mean = 50.0 * operator(x[:1]).square() + 0.1
    z = (counts.mean(0) - mean[0]) / (mean[0] / 400) ** 0.5
    assert z.mean().abs() < 5 / z.numel() ** 0.5 and z.std() == pytest.approx(1, abs=0.1)
    dispersion = (counts.var(0) / mean[0]).mean()
    assert dispersion == pytest.approx(1, abs=0.02)
    assert torch.equal(operator.measure(x[:1], noise[:1]), operator.measure(x[:1], noise[:1]))


def test_poisson_is_the_deviance_of_the_log_likelihood():
    operator, x = with_fidelity(**CASES["poisson"]), images(1)
    _, y = measured(operator, 1, lost=0.0)
    counts, mean = (50.0 * y.square()).round(), 50.0 * operator(x).square() + 0.1
    logp = lambda mu: torch.from_numpy(stats.poisson.logpmf(counts.numpy(), mu.numpy())).sum()  # noqa: E731
    saturated = torch.from_numpy(stats.poisson.logpmf(counts.numpy(), counts.numpy())).nan_to_num().sum()
    assert operator.loss(x, y).item() == pytest.approx(2 * operator.sigma**2 * (saturated - logp(mean)).item(), rel=1e-9)


def test_a_ramp_has_the_gradient_error_of_its_slope():
    ramp = 0.5 * torch.arange(32.0, dtype=torch.float64).expand(1, 3, 32, 32)
    everything = torch.ones(1, 3, 32, 32, dtype=torch.bool)
    found = multi_scale_gradient(ramp, everything)
    assert found.shape == (1, 3)
    # a pixel of a reduced image is 1, 2, 4, 8 pixels wide; each channel is a third of the valid pixels
    assert found.sum().item() == pytest.approx(0.5 * (1 + 2 + 4 + 8) / 4) and found[0, 0] == pytest.approx(
        found.sum().item() / 3
    )


def test_the_gradient_error_is_blind_to_brightness_and_to_what_is_missing():
    residual = torch.full((1, 1, 32, 32), 0.3, dtype=torch.float64)
    known = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    assert multi_scale_gradient(residual, known) < 1e-12
    residual[..., 5:8, 5:8] = 9.0  # what is missing there
    assert multi_scale_gradient(residual, known) > 0.1
    known[..., 2:13, 2:13] = False
    assert multi_scale_gradient(residual, known)[0] < 0.2  # of the reduced images' blending only
    assert multi_scale_gradient(residual, torch.zeros_like(known)).item() == 0  # no scale has valid pixels


def gradient_error_pixel_by_pixel(residual, known):
    """Each channel's share, (C,), of one particle (C, H, W). Halving bilinearly is a mean of the middle 2 x 2 of each block."""
    total, scales = torch.zeros(len(residual), dtype=residual.dtype), 0
    for reduction in (1, 2, 4, 8):
        middle = slice(0, 1) if reduction == 1 else slice(reduction // 2 - 1, reduction // 2 + 1)
        rows, columns = (side // reduction for side in residual.shape[1:])
        slopes, valid = torch.zeros_like(total), 0
        for c in range(len(residual)):
            blocks = residual[c].unflatten(1, (columns, reduction)).unflatten(0, (rows, reduction))[:, middle, :, middle]
            scaled = blocks.mean((1, 3)).tolist()
            for i in range(1, rows - 1):
                for j in range(1, columns - 1):
                    if known[c, reduction * i, reduction * j]:
                        valid += 1
                        above, here, below = (scaled[i + k][j - 1 : j + 2] for k in (-1, 0, 1))
                        across = sum(w * (row[2] - row[0]) for w, row in zip((1, 2, 1), (above, here, below)))
                        down = sum(w * (low - high) for w, high, low in zip((1, 2, 1), above, below))
                        slopes[c] += (abs(across) + abs(down)) / 8
        if valid:
            total, scales = total + slopes / valid, scales + 1
    return total / scales


def test_the_gradient_error_is_the_mean_over_the_pixels_that_are_known():
    generator = torch.Generator().manual_seed(4)
    residual = torch.randn(2, 3, 24, 32, generator=generator, dtype=torch.float64)
    known = torch.rand(2, 3, 24, 32, generator=generator) < torch.tensor([0.8, 0.3])[:, None, None, None]
    expected = torch.stack([gradient_error_pixel_by_pixel(*one) for one in zip(residual, known)])
    torch.testing.assert_close(multi_scale_gradient(residual, known), expected, rtol=1e-9, atol=0)


def test_a_scale_without_valid_pixels_is_skipped_for_that_particle_alone():
    ramp = torch.arange(32.0, dtype=torch.float64).expand(2, 1, 32, 32)
    known = torch.ones(2, 1, 32, 32, dtype=torch.bool)
    known[1] = False
    known[1, :, 1::2, 9] = True  # pixels that no reduced image samples
    assert multi_scale_gradient(ramp, known).flatten().tolist() == pytest.approx([(1 + 2 + 4 + 8) / 4, 1.0])


def test_soft_edges_are_worse_than_their_mean_square():
    """Two errors of equal mean square: a changed brightness, and noise."""
    flat = torch.full((1, 3, 32, 32), 0.1)
    noise = 0.1 * torch.sign(torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    known = torch.ones_like(flat, dtype=torch.bool)
    assert flat.square().mean() == pytest.approx(noise.square().mean().item())
    assert multi_scale_gradient(flat, known).sum() < 1e-6 < multi_scale_gradient(noise, known).sum()


@pytest.mark.parametrize(
    "operator, keys, key",
    [
        (HighDynamicRange(), dict(COUNTS, poisson=1.0), "fidelity.poisson"),
        (Inpainting(16, "random", mask_prob_range=[0.1, 0.2]), dict(free_scale=True), "fidelity.free_scale"),
        (HighDynamicRange(), own("OfSpectra"), "fidelity.terms.mine"),
        (PhaseRetrieval(), own("OfImages"), "fidelity.terms.mine"),
        (PhaseRetrieval(), dict(own("Squares"), gaussian=0.0, free_scale=True), "fidelity.free_scale"),
    ],
)
def test_a_term_that_an_operator_cannot_have_is_refused(operator, keys, key):
    settings = Fidelity(**keys)
    with pytest.raises(InputError, match=f"^{key}: [^\n]*$"):
        WithFidelity(operator, settings, own_terms(settings, operator.sigma))


def test_a_term_of_ones_own_is_one_among_the_others():
    """Bit for bit that which it repeats; it is told of a free scale only where it knows one."""
    x, (_, y) = images(2, seed=5), measured(with_fidelity(), 2)
    plain = with_fidelity()
    repeated = with_fidelity(gaussian=0.0, **own("Squares"))
    assert repeated.weights == {"mine": 1.0} and repeated.separable
    for quantity in ("loss", "channel_loss", "residual"):
        assert torch.equal(getattr(plain, quantity)(x, y), getattr(repeated, quantity)(x, y))
    for axis in (1, 2):
        assert torch.equal(plain.noise_floor(y, axis), repeated.noise_floor(y, axis))
        assert torch.equal(plain.floor_spread(y, axis), repeated.floor_spread(y, axis))
    whole = with_fidelity(gaussian=0.0, **own("Whole"))
    torch.testing.assert_close(whole.loss(x, y), plain.loss(x, y), rtol=1e-12, atol=0)
    assert not whole.separable
    both = with_fidelity(free_scale=True, **own("Scaled", factor=3.0))
    assert both.terms["mine"].free_scale and both.terms["gaussian"].free_scale and both.terms["mine"].factor == 3.0
    assert not with_fidelity(free_scale=True, **own("Squares")).terms["mine"].free_scale


def test_a_darker_copy_of_the_truth_fits_better_and_compares_worse():
    """Its exposure shrinks the noise with it, to 0.49 n sigma^2; the handicap makes that 0.49 - 2 log 0.7 = 1.20."""
    operator, x = with_fidelity(free_scale=True), images(1)
    noise = torch.randn(operator(x).shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = 7 * operator.measure(x, noise)
    y[..., :2] = torch.nan
    both = torch.cat([x, 0.7 * (x + 1) - 1])
    loss, handicap = operator.loss(both, y), operator.handicap(both, y)
    assert loss[1] < 0.6 * loss[0]
    assert (loss + handicap)[1] - (loss + handicap)[0] == pytest.approx(0.20 * operator.noise_floor(y).item(), rel=0.3)


@pytest.mark.parametrize("name", [name for name in CASES if name != "free_scale"])
def test_what_fits_no_exposure_of_gaussian_noise_compares_by_the_loss(name):
    operator, x = with_fidelity(**CASES[name]), images(2)
    assert operator.handicap(x, torch.ones_like(operator(x))) is None
