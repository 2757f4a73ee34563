"""The centre of a large spectrum as the measurement of a small image: exact for squares, and the data term with it."""

import math

import pytest
import torch

from operators.fidelity import WithFidelity
from operators.phase_retrieval import PhaseRetrieval
from tests.worlds.data_terms import with_fidelity
from utils import device as devices
from utils.config.sections import Fidelity
from utils.running.build import own_terms

# sides of the object and of the image, and the pixel M / m: each side has as many zeros before as after, a quarter rounded down
WHOLE = [(64, 16, 4), (64, 32, 2), (51, 17, 3)]
BROKEN = [(50, 16, 74 / 24), (50, 17, 74 / 25), (45, 15, 67 / 21)]
COUNTS = dict(photons=400.0, gaussian=0.0)
DATA_TERMS = {
    "gaussian": dict(gaussian=1.0),
    "poisson": dict(COUNTS, poisson=1.0),
    "amplitude": dict(COUNTS, amplitude=1.0),
    "free_scale": dict(free_scale=True),
    "poisson, free_scale": dict(COUNTS, poisson=1.0, free_scale=True),
    "all": dict(COUNTS, gaussian=0.5, poisson=1.0, amplitude=0.25),
    "one's own": dict(gaussian=0.5, terms=dict(squares=dict(_target_="tests.worlds.own_terms.Squares", weight=2.0))),
}


def images(side, count=2, seed=0):
    """Of independent pixels, in float64: their spectrum has no dark part."""
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def squares(x, q):
    """Each pixel as q x q equal ones."""
    return x.repeat_interleave(q, -1).repeat_interleave(q, -2)


def blobs(side, field, pixel=1.0, sharper=0.0):
    """Gaussians on black, at the centres of `side` pixels of size `pixel`, of a field of `field` pixels.

    sharper: what is taken off their variance, their mass kept; of (q^2 - 1) / 12 boxes of q pixels blur it back, to second
    order.
    """
    generator = torch.Generator().manual_seed(3)
    place = (torch.rand(2, 3, 5, 2, 1, 1, generator=generator, dtype=torch.float64) - 0.5) * 0.4 * field
    height = torch.rand(2, 3, 5, 1, 1, generator=generator, dtype=torch.float64) / 2.5
    variance = ((0.07 + 0.03 * torch.rand(2, 3, 5, 1, 1, generator=generator, dtype=torch.float64)) * field).square()
    at = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) * pixel
    distance = (at[:, None] - place[..., 0, :, :]).square() + (at - place[..., 1, :, :]).square()
    narrow = variance - sharper
    return 2 * (height * variance / narrow * torch.exp(-distance / 2 / narrow)).sum(2) - 1


def data_term(name, side, resolution, sigma=0.05):
    """The operator of the object and that of the image, in float64."""
    full = with_fidelity(sigma=sigma, **DATA_TERMS[name])
    own = own_terms(Fidelity(**DATA_TERMS[name]), full.operator.coarse(side, resolution).sigma)
    return full, full.coarse(side, resolution, own).double()


def simulated(operator, x, seed=0):
    """y of the operator's own law."""
    noise = torch.randn(operator(x).shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return operator.measure(x, noise)


def frequencies(samples):
    """Centred, by numpy's convention and not by ours: (samples,)."""
    return torch.fft.fftshift(torch.fft.fftfreq(samples, 1 / samples)).round().long()


def only_centre(y, samples):
    """y, NaN at all frequencies that `samples` a side do not have."""
    lowest, highest = frequencies(samples)[[0, -1]]
    k = frequencies(y.shape[-1])
    inside = (k >= lowest) & (k <= highest)
    return torch.where(inside[:, None] & inside, y, torch.nan)


def distance(a, b):
    """Root mean square difference over the root mean square of b."""
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("side, resolution, q", WHOLE)
def test_the_centre_is_the_measurement_of_the_squares(side, resolution, q, channels):
    operator, x = PhaseRetrieval(channels=channels).double(), images(resolution)
    coarse = operator.coarse(side, resolution)
    centre, expected = operator.centre(operator(squares(x, q)), side, resolution), coarse(x)
    assert centre.shape == expected.shape == (2, channels, *2 * [resolution + 2 * (resolution // 4)])
    assert distance(centre, expected) < 1e-10 and (centre - expected).abs().max() < 1e-10 * expected.abs().max()
    assert coarse.pixel == pytest.approx((q, q), abs=1e-12) and coarse.oversample == operator.oversample


def test_another_oversampling():
    operator, x = PhaseRetrieval(oversample=4.0, channels=1).double(), images(16)
    centre = operator.centre(operator(squares(x, 4)), 64, 16)
    assert centre.shape == (2, 1, 32, 32) and distance(centre, operator.coarse(64, 16)(x)) < 1e-10


def test_in_two_steps_as_in_one():
    operator, x = PhaseRetrieval().double(), images(16)
    middle = operator.coarse(64, 32)
    y = middle.centre(operator.centre(operator(squares(x, 4)), 64, 32), 32, 16)
    assert distance(y, middle.coarse(32, 16)(x)) < 1e-10
    assert (middle.coarse(32, 16).pixel, middle.coarse(32, 16).sigma) == ((4.0, 4.0), operator.sigma / 4)


# samples of a detector's frame of an object of 64 pixels, and where its beam lies from a pixel
FRAMES = [((128, 128), (0.0, 0.0)), ((128, 80), (0.0, 0.0)), ((128, 80), (0.5, -0.3)), (None, (-0.5, 0.2))]


@pytest.mark.parametrize("resolution, q", [(16, 4), (32, 2)])
@pytest.mark.parametrize("frame, offset", FRAMES)
def test_the_centre_of_a_detectors_frame_is_the_measurement_of_the_squares(frame, offset, resolution, q):
    operator, x = PhaseRetrieval(frame=frame, offset=offset, sigma=0.05).double(), images(resolution)
    coarse = operator.coarse(64, resolution)
    centre, expected = operator.centre(operator(squares(x, q)), 64, resolution), coarse(x)
    assert centre.shape[-2:] == expected.shape[-2:] == tuple(samples // q for samples in frame or (96, 96))
    assert (centre - expected).abs().max() < 1e-10 * expected.abs().max()
    assert (coarse.pixel, coarse.sigma, coarse.offset) == ((q, q), 0.05 / q, offset)
    assert (coarse.attenuation(expected) <= 1).all()


def test_a_detectors_frame_in_two_steps_as_in_one():
    operator, x = PhaseRetrieval(frame=(128, 160), offset=(0.4, 0.0), inside=box(64, 24, 40)).double(), images(16)
    middle = operator.coarse(64, 32)
    y = middle.centre(operator.centre(operator(squares(x, 4)), 64, 32), 32, 16)
    last = middle.coarse(32, 16)
    assert distance(y, last(x)) < 1e-10
    assert (last.pixel, last.frame) == ((4.0, 4.0), (32, 40)) and torch.equal(last.inside, box(16, 6, 10))


@pytest.mark.parametrize("samples, pixel", [(97, 97 / 48), (131, 131 / 65)])
def test_a_smooth_object_in_a_frame_that_no_pixel_divides(samples, pixel):
    """Mismatch measured: 7.2e-5 and 6.1e-5 of y; with pixels of 2 from 1.2e-2."""
    operator = PhaseRetrieval(frame=(samples, samples)).double()
    coarse = operator.coarse(64, 32)
    y = operator.centre(operator(blobs(64, 64)), 64, 32)
    image = blobs(32, 64, pixel, (pixel**2 - 1) / 12)
    assert coarse.pixel == pytest.approx((pixel, pixel), rel=1e-12)
    assert 32 * coarse.pixel[0] >= 64, "the image's field holds the object"
    assert distance(coarse(image), y) < 2e-4
    wrong = PhaseRetrieval(frame=coarse.frame, pixel=(2.0, 2.0))
    assert distance(wrong(blobs(32, 64, 2.0, 0.25)), y) > 1e-2  # negative control


def box(side, rows, columns):
    """Booleans (side, side), a support of rows x columns in the middle."""
    where = torch.zeros(side, side, dtype=torch.bool)
    top, left = (side - rows) // 2, (side - columns) // 2
    where[top : top + rows, left : left + columns] = True
    return where


def test_a_pixel_lies_in_the_support_where_the_support_meets_it():
    whole = PhaseRetrieval(inside=box(64, 40, 24)).coarse(64, 16)
    assert torch.equal(whole.inside, box(16, 10, 6)) and whole.turns
    parted = PhaseRetrieval(inside=box(64, 42, 22)).coarse(64, 16)
    assert torch.equal(parted.inside, box(16, 12, 6)), "pixels that the border cuts may hold a part of the object"
    broken = PhaseRetrieval(inside=box(50, 28, 28)).coarse(50, 16)  # pixels of 3.08
    assert torch.equal(broken.inside, box(16, 10, 10))
    inside = box(16, 16, 16)
    inside[3, 5] = False
    assert torch.equal(PhaseRetrieval(inside=squares(inside[None], 4)[0]).coarse(64, 16).inside, inside)


@pytest.mark.parametrize("channels", [3, 1])
def test_what_turns_within_the_support_follows_its_level(channels):
    """A corner that lacks one pixel tells an image from its turn; at four times larger pixels nothing lacks."""
    inside = box(64, 40, 40)
    inside[12, 12] = False
    operator, x = PhaseRetrieval(inside=inside, channels=channels), images(16)
    coarse = operator.coarse(64, 16)
    assert not operator.rotation_ambiguity and not operator.turns
    assert coarse.rotation_ambiguity and coarse.turns == (channels == 3)
    torch.testing.assert_close(coarse(x.flip(-2, -1)), coarse(x))
    inside[12:16, 12:16] = False
    assert not operator.coarse(64, 32).rotation_ambiguity


def test_the_support_of_a_level_is_that_of_the_squares():
    operator, x = PhaseRetrieval(inside=box(64, 40, 24), frame=(128, 128)).double(), images(16)
    y = operator.centre(operator(squares(x, 4)), 64, 16)
    assert distance(operator.coarse(64, 16)(x), y) < 1e-10
    assert distance(PhaseRetrieval(frame=(128, 128)).double().coarse(64, 16)(x), y) > 0.1  # negative control


@pytest.mark.parametrize("side, resolution, pixel", BROKEN)
def test_a_smooth_object_of_a_side_that_is_no_multiple(side, resolution, pixel):
    """Mismatch measured: 2.9e-4, 2.5e-4, 6.5e-4 of y; without D from 1.9e-2, with a pixel larger by one from 1.2e-3."""
    operator = PhaseRetrieval().double()
    coarse = operator.coarse(side, resolution)
    y = operator.centre(operator(blobs(side, side)), side, resolution)
    image = blobs(resolution, side, pixel, (pixel**2 - 1) / 12)
    assert coarse.pixel == pytest.approx((pixel, pixel), rel=1e-12)
    assert distance(coarse(image), y) < 1e-3
    for wrong in (1.0, pixel + 1):
        assert distance(PhaseRetrieval(pixel=(wrong, wrong))(image), y) > 1.2e-3  # negative control


@pytest.mark.parametrize("side, resolution, q", WHOLE)
def test_what_is_missing_is_missing_in_the_centre(side, resolution, q):
    """At the same frequencies: a beam stop, a beam that falls to one side, and single samples of one object."""
    operator, x = PhaseRetrieval().double(), images(resolution)
    coarse = operator.coarse(side, resolution)

    def missing(samples):
        k = frequencies(samples)
        stop = (k[:, None].square() + k.square() <= 9) | ((k[:, None] == 0) & (k > 2))
        single = (k[:, None] == -5) & (k == 7)
        return torch.stack([stop, stop | single])[:, None].expand(2, 3, -1, -1)

    whole = operator(squares(x, q))
    y = operator.centre(torch.where(missing(whole.shape[-1]), torch.nan, whole), side, resolution)
    assert torch.equal(torch.isnan(y), missing(y.shape[-1]))
    assert torch.equal(torch.isnan(coarse.magnitudes(y)), missing(y.shape[-1]))
    assert (coarse.loss(x, y) < 1e-18).all() and (coarse.loss(x, torch.nan_to_num(y)) > 1).all()
    assert coarse.noise_floor(y)[0].item() == pytest.approx((~missing(y.shape[-1]))[0].sum().item() * coarse.sigma**2)


@pytest.mark.parametrize("side, resolution, q", WHOLE)
def test_the_noise_of_the_centre_is_of_the_size_that_is_said(side, resolution, q):
    operator, x = PhaseRetrieval(sigma=0.05).double(), images(resolution, count=8)
    coarse = operator.coarse(side, resolution)
    y = operator.centre(simulated(operator, squares(x, q)), side, resolution)
    assert coarse.sigma == pytest.approx(0.05 / q, rel=1e-12)
    assert coarse.loss(x, y).mean().item() == pytest.approx(
        coarse.noise_floor(y)[0].item(), rel=5 * coarse.floor_spread(y)[0].item() / 8**0.5
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [3, 1])
def test_pixels_of_the_object_itself_change_no_bit(dtype, channels):
    x = images(16).to(dtype)
    grey = (torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1).to(dtype) * x).sum(1, keepdim=True) if channels == 1 else x
    expected = devices.spectrum_magnitude(0.5 * grey + 0.5, (grey.shape[-2] + 8, grey.shape[-1] + 8))
    operator = PhaseRetrieval(channels=channels, sigma=0.05)
    for same in (operator, PhaseRetrieval(channels=channels, pixel=(1, 1)), operator.coarse(16, 16)):
        assert torch.equal(same(x), expected) and torch.equal(same.magnitudes(expected), expected) and same.sigma == 0.05
    assert torch.equal(operator.centre(expected, 16, 16), expected)


@pytest.mark.parametrize("side, resolution", [pair[:2] for pair in WHOLE + BROKEN] + [(256, 32)])
def test_magnitudes_are_those_of_the_images_own_spectrum(side, resolution):
    coarse, x = PhaseRetrieval().double().coarse(side, resolution), images(resolution)
    own = PhaseRetrieval().double()(x)
    torch.testing.assert_close(coarse.magnitudes(coarse(x)), own, rtol=1e-12, atol=0)
    attenuation = coarse(x) / own
    assert attenuation.min() > 4 / math.pi**2 and attenuation.max() == pytest.approx(1)
    assert (attenuation.flatten(2).argmax(2) == own.flatten(2).argmax(2)).all()  # at frequency 0, where F is largest


def test_each_axis_has_its_own_kernel():
    """An image that is no square, whose axes have other numbers of samples."""
    x = images(16)[..., :12]
    y = PhaseRetrieval().double()(squares(x, 2))  # 48 x 36 samples
    torch.testing.assert_close(PhaseRetrieval(pixel=(2.0, 2.0))(x), y[..., 12:36, 9:27] / 2, rtol=1e-10, atol=1e-12)


def test_single_precision_is_double_rounded():
    coarse, x = PhaseRetrieval().coarse(64, 16), images(16)
    single = coarse(x.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), coarse(x), rtol=1e-5, atol=1e-6)


def test_gradient():
    """Against finite differences, and finite where the spectrum is zero."""
    coarse, x = PhaseRetrieval().double().coarse(32, 8), images(8, count=1).requires_grad_()
    y = coarse(images(8, count=1, seed=1)).detach()
    assert torch.autograd.gradcheck(lambda v: coarse.loss(v, y), x)
    black = torch.full((1, 3, 8, 8), -1.0, dtype=torch.float64, requires_grad=True)
    y[..., 3:5] = torch.nan
    assert torch.isfinite(torch.autograd.grad(coarse.loss(black, y).sum(), black)[0]).all()


def test_an_image_larger_than_the_object():
    with pytest.raises(ValueError, match="resolution=65: must not exceed the object's side 64"):
        PhaseRetrieval().coarse(64, 65)


def test_the_object_keeps_its_operator():
    full, coarse = data_term("all", 64, 16)
    assert (full.sigma, full.operator.sigma, full.operator.pixel) == (0.05, 0.05, (1.0, 1.0))
    assert full.terms["poisson"].photons == full.settings.photons == 400.0 and coarse.terms["poisson"].photons == 6400.0


@pytest.mark.parametrize("name", DATA_TERMS)
@pytest.mark.parametrize("side, resolution, q", WHOLE)
def test_the_data_term_means_the_same(name, side, resolution, q):
    """All of it is that of the object's operator, of which the centre alone was measured, in units of q^2."""
    full, coarse = data_term(name, side, resolution)
    truth, x = images(resolution), images(resolution, seed=5)
    y = simulated(full, squares(truth, q))
    y[0, :, ::5] = torch.nan
    centre, y = full.centre(y, side, resolution), only_centre(y, full.operator.samples(resolution))
    for image in (x, truth):
        large = squares(image, q)
        torch.testing.assert_close(q**2 * coarse.loss(image, centre), full.loss(large, y), rtol=1e-9, atol=0)
        torch.testing.assert_close(q**2 * coarse.channel_loss(image, centre), full.channel_loss(large, y), rtol=1e-9, atol=0)
        for term, part in full.components(large, y).items():
            torch.testing.assert_close(q**2 * coarse.components(image, centre)[term], part, rtol=1e-9, atol=0)
        handicaps = coarse.handicap(image, centre), full.handicap(large, y)
        if handicaps[1] is None:
            assert handicaps[0] is None
        else:
            torch.testing.assert_close(q**2 * handicaps[0], handicaps[1], rtol=1e-7, atol=1e-12)
    for axis in (1, 2):
        torch.testing.assert_close(q**2 * coarse.noise_floor(centre, axis), full.noise_floor(y, axis), rtol=1e-9, atol=0)
        torch.testing.assert_close(coarse.floor_spread(centre, axis), full.floor_spread(y, axis), rtol=1e-9, atol=0)
    assert (coarse.weights, coarse.free_scale, coarse.separable) == (full.weights, full.free_scale, full.separable)
    assert [term.free_scale for term in coarse.terms.values()] == [term.free_scale for term in full.terms.values()]


def test_a_free_exposure_stays_free():
    """Of Gaussian noise the loss does not see it; counts become others, by the same share."""
    x, truth = images(16), images(16, seed=1)
    for name, rtol in (("free_scale", 1e-9), ("poisson, free_scale", None), ("gaussian", None)):
        full, coarse = data_term(name, 64, 16)
        y = only_centre(simulated(full, squares(truth, 4)), 24)
        centre, large = full.centre(y, 64, 16), squares(x, 4)
        share = full.loss(large, 1.3 * y) / full.loss(large, y)
        torch.testing.assert_close(coarse.loss(x, 1.3 * centre) / coarse.loss(x, centre), share, rtol=1e-9, atol=0)
        assert rtol is None or torch.allclose(share, torch.ones_like(share), rtol=rtol, atol=0)
        assert rtol is not None or ((share - 1).abs() > 0.01).all()  # negative control


@pytest.mark.parametrize("name", ["gaussian", "poisson", "amplitude", "all", "poisson, free_scale"])
def test_the_true_image_of_simulated_counts_is_near_the_floor_at_both_sizes(name):
    """The squared residual too where the counts are large: their root has the standard deviation 1/2."""
    sigma = 0.5 / 400**0.5
    (full, coarse), x = data_term(name, 64, 16, sigma), images(16, count=16)
    law = with_fidelity(sigma=sigma, **DATA_TERMS["poisson"])
    y = simulated(law, squares(x, 4))
    counts = 400 * y.square()
    assert (counts - counts.round()).abs().max() < 1e-9
    centre = full.centre(y, 64, 16)
    bright = 400 * law(squares(x, 4)).square() > 20
    if "gaussian" in full.weights:
        y, centre = torch.where(bright, y, torch.nan), full.centre(torch.where(bright, y, torch.nan), 64, 16)
    for operator, image, measured in ((full, squares(x, 4), y), (coarse, x, centre)):
        assert (operator.loss(image, measured) / operator.noise_floor(measured)).mean().item() == pytest.approx(1, abs=0.03)
    drawn = simulated(coarse, x)
    assert (coarse.loss(x, drawn) / coarse.noise_floor(drawn)).mean().item() == pytest.approx(1, abs=0.03)


def test_counts_of_the_centre_are_the_counts():
    full, coarse = data_term("poisson", 64, 16)
    y = simulated(full, squares(images(16), 4))
    counts = full.terms["poisson"].counts(only_centre(y, 24))
    found = coarse.terms["poisson"].counts(full.centre(y, 64, 16))
    torch.testing.assert_close(found.flatten(), counts[~torch.isnan(counts)], rtol=1e-12, atol=1e-12)
    assert coarse.terms["poisson"].background == full.terms["poisson"].background == 0.1


@pytest.mark.parametrize("name", DATA_TERMS)
def test_the_data_terms_gradient_is_finite(name):
    full, coarse = data_term(name, 64, 16)
    y = full.centre(simulated(full, squares(images(16, seed=1), 4)), 64, 16)
    y[..., 10:14, 9:] = torch.nan
    for x in (images(16), torch.full((2, 3, 16, 16), -1.0, dtype=torch.float64)):
        (gradient,) = torch.autograd.grad(coarse.loss(x.requires_grad_(), y).sum(), x)
        assert torch.isfinite(gradient).all()


def test_a_data_term_passes_centre_and_magnitudes_on():
    full, coarse = data_term("gaussian", 64, 16)
    assert (
        isinstance(coarse, WithFidelity)
        and coarse.operator.pixel == (4.0, 4.0)
        and coarse.sigma == coarse.operator.sigma == 0.0125
    )
    y = full(images(64))
    assert torch.equal(full.magnitudes(y), y)
    centre = full.centre(y, 64, 16)
    assert torch.equal(centre, full.operator.centre(y, 64, 16))
    assert torch.equal(coarse.magnitudes(centre), coarse.operator.magnitudes(centre))


def test_terms_of_ones_own_are_made_anew():
    full, coarse = data_term("one's own", 64, 16)
    assert coarse.terms["squares"].sigma == 0.0125 and full.terms["squares"].sigma == 0.05
    with pytest.raises(ValueError, match="squares of one's own must be made for the coarse operator"):
        full.coarse(64, 16)
