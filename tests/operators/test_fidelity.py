"""The terms of the data term: formula, gradient, floor, masks and scales; and what an operator cannot have."""

import pytest
import torch
from scipy import stats

from operators.fidelity import TERMS, WithFidelity
from operators.gradients import multi_scale_gradient
from operators.hdr import HighDynamicRange
from operators.inpainting import Inpainting
from operators.phase_retrieval import PhaseRetrieval
from utils.config.sections import Fidelity
from utils.errors import InputError

SIDE = 16
COUNTS = dict(photons=50.0, gaussian=0.0)
CASES = {
    "gaussian": dict(gaussian=1.0),
    "poisson": dict(COUNTS, poisson=1.0),
    "amplitude": dict(COUNTS, amplitude=1.0),
    "silog": dict(gaussian=0.0, silog=1.0),
    "ssi": dict(gaussian=0.0, ssi=1.0),
    "gradient": dict(gaussian=0.0, gradient=1.0),
    "free_scale": dict(free_scale=True),
    "poisson, free_scale": dict(COUNTS, poisson=1.0, free_scale=True),
    "several": dict(gaussian=0.5, silog=2.0),
}


def with_fidelity(sigma=0.1, **keys):
    """In float64, on phase retrieval; the gradient term on a clipped image."""
    operator = HighDynamicRange(scale=1.0, sigma=sigma) if keys.get("gradient") else PhaseRetrieval(sigma=sigma)
    return WithFidelity(operator, Fidelity(**keys)).double()


def images(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.rand(count, 3, SIDE // 2, SIDE // 2, generator=generator, dtype=torch.float64) * 2 - 1
    fine = torch.rand(count, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)  # else a spectrum has exact zeros
    return 0.8 * smooth.repeat_interleave(2, -1).repeat_interleave(2, -2) + 0.2 * fine


def measured(operator, count, seed=1, lost=0.2):
    """Of as many images, with other pixels missing in each."""
    generator = torch.Generator().manual_seed(seed)
    x = images(count, seed)
    noise = torch.randn(operator(x).shape, generator=generator, dtype=torch.float64)
    y = operator.measure(x, noise)
    return x, torch.where(torch.rand(y.shape, generator=generator) < lost, torch.nan, y)


@pytest.fixture(params=CASES)
def operator(request):
    return with_fidelity(**CASES[request.param])


def test_every_term_has_a_case():
    assert set(TERMS) <= set(CASES)


def test_batch_with_different_masks_equals_singles(operator):
    (_, y), x = measured(operator, 3), images(3, seed=5)
    for quantity in (operator.loss, operator.channel_loss):
        singles = torch.cat([quantity(x[i : i + 1], y[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(quantity(x, y), singles, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(operator.channel_loss(x, y).sum(1), operator.loss(x, y), rtol=1e-12, atol=0)
    for axis in (1, 2):
        singles = torch.cat([operator.noise_floor(y[i : i + 1], axis) for i in range(3)])
        torch.testing.assert_close(operator.noise_floor(y, axis), singles, rtol=1e-12, atol=0)
    torch.testing.assert_close(operator.noise_floor(y, 2).sum(1), operator.noise_floor(y), rtol=1e-12, atol=0)


def test_what_is_missing_has_no_say(operator):
    """Nor makes it a gradient infinite, also where nothing at all was measured."""
    (_, y), x = measured(operator, 2), images(2, seed=5).requires_grad_()
    (gradient,) = torch.autograd.grad(operator.loss(x, y).sum(), x)
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0
    nothing = torch.full_like(y, torch.nan)
    assert torch.isfinite(torch.autograd.grad(operator.loss(x, nothing).sum(), x)[0]).all()


def potential(operator, x, y):
    """What the gradient belongs to where a factor of the loss counts as a constant."""
    if operator.free_scale and "gaussian" in operator.weights:
        known, m = ~torch.isnan(y), operator(x)
        y = torch.where(known, y, 0.0)
        t = operator.exposure(m, y, known).flatten()
        scaled = torch.where(known, m - t.view(-1, 1, 1, 1) * y, 0.0)
        return scaled.square().flatten(1).sum(1) - 2 * known.flatten(1).sum(1) * operator.sigma**2 * t.log()
    return operator.loss(x, y)


def test_gradient_equals_finite_differences(operator):
    (_, y), x = measured(operator, 1), 0.9 * images(1, seed=5).requires_grad_()
    (gradient,) = torch.autograd.grad(operator.loss(x, y).sum(), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    step = 1e-6
    with torch.no_grad():
        up, down = (potential(operator, x + s * direction, y) for s in (step, -step))
        if "ssi" in operator.weights:  # sd(m)^2 of the middle in both
            scales = [deviation(operator(x + s * direction), y) ** 2 for s in (0, step, -step)]
            up, down = up * scales[0] / scales[1], down * scales[0] / scales[2]
    assert (gradient * direction).sum().item() == pytest.approx(((up - down) / (2 * step)).item(), rel=2e-5)


def deviation(m, y):
    return m[~torch.isnan(y)].std(correction=0)


def test_floor_and_spread_are_those_of_the_true_images_loss(operator):
    """Over draws of the measurement; the floor itself depends on the draw where the noise depends on the image."""
    draws = 300
    x = images(1).expand(draws, -1, -1, -1)
    noise = torch.randn(operator(x).shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    y = operator.measure(x, noise)
    y[..., :7, 3:] = torch.nan
    loss, floor = operator.loss(x, y), operator.noise_floor(y)
    several = len(operator.weights) > 1
    first_order = (
        0.75 * operator.sigma**2 / deviation(operator(x[:1]), y[:1]).item() ** 2 if "ssi" in operator.weights else 0.03
    )
    # 5 deviations of the mean, and what is known to first order or by a table only
    assert loss.mean().item() == pytest.approx(
        floor.mean().item(), rel=5 * (loss.std() / loss.mean()).item() / draws**0.5 + first_order
    )
    ratio = loss.std() / (floor * operator.floor_spread(y)).mean()
    assert 0.8 < ratio < 1.2 or several and 0.5 < ratio <= 1.1
    per_channel = operator.channel_loss(x, y).mean(0) / operator.noise_floor(y, 2).mean(0)
    assert ((per_channel - 1).abs() < 0.08).all()


def test_gaussian_alone_is_the_operator_itself_bit_for_bit():
    plain, wrapped = PhaseRetrieval(), WithFidelity(PhaseRetrieval(), Fidelity())
    (_, y), x = measured(plain, 2), images(2, seed=5).requires_grad_()
    assert torch.equal(plain.loss(x, y), wrapped.loss(x, y))
    assert torch.equal(*(torch.autograd.grad(o.loss(x, y).sum(), x)[0] for o in (plain, wrapped)))
    assert torch.equal(plain.channel_loss(x, y), wrapped.channel_loss(x, y))


@pytest.mark.parametrize("name", ["free_scale", "ssi"])
def test_another_exposure_gives_the_same_result(name):
    operator = with_fidelity(**CASES[name])
    (_, y), x = measured(operator, 2), images(2, seed=5).requires_grad_()
    results = [(loss := operator.loss(x, c * y), torch.autograd.grad(loss.sum(), x)[0]) for c in (1.0, 7.0)]
    for here, there in zip(*results):
        torch.testing.assert_close(here, there, rtol=1e-9, atol=1e-12)
    fixed = with_fidelity(**CASES["gaussian"])
    assert not torch.allclose(fixed.loss(x, y), fixed.loss(x, 7 * y))  # negative control


def test_another_offset_gives_the_same_ssi():
    operator = with_fidelity(**CASES["ssi"])
    (_, y), x = measured(operator, 2), images(2, seed=5)
    torch.testing.assert_close(operator.loss(x, y), operator.loss(x, 3 * y + 1), rtol=1e-9, atol=0)


def test_another_exposure_far_above_the_noise_gives_the_same_silog():
    """Sigma is also the logarithm's epsilon, so the invariance is a limit."""
    operator, coarse = (with_fidelity(sigma=sigma, **CASES["silog"]) for sigma in (1e-9, 0.1))
    (_, y), x = measured(operator, 2), images(2, seed=5)
    torch.testing.assert_close(operator.loss(x, y), operator.loss(x, 7 * y), rtol=1e-4, atol=0)
    assert not torch.allclose(coarse.loss(x, y), coarse.loss(x, 7 * y), rtol=1e-2)  # negative control


def test_another_number_of_photons_gives_the_same_poisson_with_a_free_scale():
    (_, y), x = measured(with_fidelity(**CASES["poisson"]), 2), images(2, seed=5)
    free, more = (with_fidelity(**CASES["poisson, free_scale"]) for _ in range(2))
    more.photons = 7 * free.photons
    torch.testing.assert_close(free.loss(x, y), more.loss(x, y / 7**0.5), rtol=1e-6, atol=0)


def test_the_free_exposure_neither_brightens_nor_darkens_the_truth():
    """On average over the noise the gradient has no part along m, which plain least squares in t would have."""
    operator, x = with_fidelity(sigma=0.2, free_scale=True), images(1)
    m = operator(x)
    noise = torch.randn(2000, *m.shape[1:], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, known = m + 0.2 * noise, torch.ones(2000, *m.shape[1:], dtype=torch.bool)
    along = ((m - operator.exposure(m.expand_as(y), y, known) * y) * m).flatten(1).sum(1) / m.square().sum()
    plain = 1 - (m * y).flatten(1).sum(1).square() / y.square().flatten(1).sum(1) / m.square().sum()
    assert abs(along.mean()) < 5 * along.std() / 2000**0.5 < plain.mean() / 5


@pytest.mark.parametrize("name", ["poisson", "amplitude"])
def test_simulated_counts_follow_the_poisson_law_and_the_noise(name):
    operator, x = with_fidelity(**CASES[name]), images(1).expand(400, -1, -1, -1)
    noise = torch.randn(operator(x).shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = operator.photons * operator.measure(x, noise).square()
    assert (counts - counts.round()).abs().max() < 1e-9
    mean = operator.photons * operator(x[:1]).square() + operator.background
    z = (counts.mean(0) - mean[0]) / (mean[0] / 400) ** 0.5
    assert z.mean().abs() < 5 / z.numel() ** 0.5 and z.std() == pytest.approx(1, abs=0.1)
    dispersion = (counts.var(0) / mean[0]).mean()
    assert dispersion == pytest.approx(1, abs=0.02)
    assert torch.equal(operator.measure(x[:1], noise[:1]), operator.measure(x[:1], noise[:1]))


def test_poisson_is_the_deviance_of_the_log_likelihood():
    operator, x = with_fidelity(**CASES["poisson"]), images(1)
    _, y = measured(operator, 1, lost=0.0)
    counts, mean = (operator.photons * y.square()).round(), operator.photons * operator(x).square() + operator.background
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
        (HighDynamicRange(), dict(silog=1.0), "fidelity.silog"),
        (Inpainting(16, "random", mask_prob_range=[0.1, 0.2]), dict(free_scale=True), "fidelity.free_scale"),
        (PhaseRetrieval(), dict(gradient=0.1), "fidelity.gradient"),
    ],
)
def test_a_term_that_an_operator_cannot_have_is_refused(operator, keys, key):
    with pytest.raises(InputError, match=f"^{key}: "):
        WithFidelity(operator, Fidelity(**keys))


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
