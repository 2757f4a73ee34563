"""With the decoder's error beside the noise: right data, a wrong centre and a wrong gain are told apart at any gain."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from operators.fidelity import WithFidelity
from operators.phase_retrieval import PhaseRetrieval
from tools.demo_prior.make_demo_data import SEEDS, demo_images
from utils.evaluation.unexplained import decoder_floor, of_measurement
from utils.metrics.r_factor import Exposure, best_factor
from utils.noise import KeyedNoise
from utils.paths import PROJECT
from utils.records.decoder_floor import read
from utils.records.verdict import MISSCALED, NOT_EXPLAINED, TO_THE_NOISE, TO_THE_PRIOR, verdict

GAINS = (1e3, 1e4, 1e5, 1e6)


def counting(gain, free=False):
    """The operator of counts, white having `gain` of them, and its data term."""
    settings = SimpleNamespace(weights={"poisson": 1.0}, photons=gain, background=0.1, free_scale=free)
    return WithFidelity(PhaseRetrieval(sigma=0.5 / gain**0.5), settings)


def kept(family):
    """What was measured of the shipped prior's colour images."""
    return read(PROJECT / "checkpoints" / f"demo-{family}" / "decoder_floor.json").measured[0]


def drawn(x, energy):
    """x (1, 3, H, W) as a decoder draws it: without detail, so that `energy` of squared residuals is left."""
    lacking = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False) - x
    share, operator = 0.1, PhaseRetrieval()
    for _ in range(6):
        share *= (energy / (operator(x + share * lacking) - operator(x)).square().sum().item()) ** 0.5
    return x + share * lacking


@pytest.fixture(scope="module", params=["faces", "scenes"])
def scene(request):
    """(image (1, 3, 64, 64) of the validation set, figures of its prior)."""
    x = torch.from_numpy(demo_images(request.param, SEEDS["val"], 1)).permute(0, 3, 1, 2) / 127.5 - 1
    return x, kept(request.param)


def counts(x, gain):
    rng = np.random.default_rng(1)
    return torch.from_numpy(rng.poisson(gain * PhaseRetrieval()(x).double().square().numpy()).astype(np.float32))


def judged(operator, loss, y, allowed):
    floor = operator.noise_floor(y).item()
    std = floor * operator.floor_spread(y).item()
    return verdict((loss - floor) / std, allowed / std)


@pytest.mark.parametrize("gain", GAINS)
def test_right_data_are_explained_at_every_gain(scene, gain):
    x, figures = scene
    operator, y = counting(gain), (counts(x, gain) / gain).sqrt()
    result = drawn(x, figures.mean)
    said = judged(operator, operator.loss(result, y).item(), y, decoder_floor(operator, result, y, figures.high))
    assert said == TO_THE_PRIOR
    assert abs(best_factor(operator(result), y).item() - 1) < MISSCALED
    assert judged(operator, operator.loss(x, y).item(), y, figures.high) == TO_THE_NOISE  # the object itself


@pytest.mark.parametrize("gain", GAINS)
def test_no_image_explains_a_frame_off_its_centre(scene, gain):
    """Of a real image opposite frequencies are equal, so whatever is sampled leaves half of what tells y from its inversion."""
    x, figures = scene
    operator, y = counting(gain), torch.roll((counts(x, gain) / gain).sqrt(), 1, -2)
    flipped = y[..., 1:, 1:].flip(-2, -1)
    least = (y[..., 1:, 1:] - flipped).square().sum().item() / 4
    assert judged(operator, least, y, decoder_floor(operator, x, y, figures.high)).startswith(NOT_EXPLAINED)


@pytest.mark.parametrize("gain", GAINS)
def test_half_the_gain_is_not_explained_and_its_brightness_tells_it(scene, gain):
    """y is as of an image sqrt(2) times as bright, and no pixel is brighter than white."""
    x, figures = scene
    operator, y = counting(gain / 2), (counts(x, gain) / (gain / 2)).sqrt()
    result = drawn((2**0.5 * (x + 1) - 1).clamp(-1, 1), figures.mean)
    said = judged(operator, operator.loss(result, y).item(), y, decoder_floor(operator, result, y, figures.high))
    assert said.startswith(NOT_EXPLAINED) and best_factor(operator(result), y).item() > 1 + MISSCALED


def test_the_decoders_share_follows_the_data_term_and_the_mask(scene):
    x, _ = scene
    plain = PhaseRetrieval(sigma=0.005)
    y = plain(x)
    assert decoder_floor(plain, x, y, 0.4) == pytest.approx(0.4, rel=0.05)
    assert decoder_floor(counting(1e4), x, (y.square() + 1e-5).sqrt(), 0.4) == pytest.approx(0.4, rel=0.3)
    settings = SimpleNamespace(weights={"gaussian": 3.0}, photons=None, background=0.1, free_scale=False)
    assert decoder_floor(WithFidelity(plain, settings), x, y, 0.4) == pytest.approx(1.2, rel=0.05)
    half = y.clone()
    half[:, :, :, : y.shape[-1] // 2] = torch.nan  # half of the plane, and its opposite half is left
    assert decoder_floor(plain, x, half, 0.4) == pytest.approx(0.2, rel=0.1)
    assert decoder_floor(plain, torch.zeros_like(x), y, 0.4) == 0.0  # of one colour: nothing to draw


def test_the_r_factor_of_noise_alone_is_that_of_a_right_result(scene):
    x, _ = scene
    operator, noise = PhaseRetrieval(sigma=0.01), KeyedNoise(0)
    y = operator.measure(x, torch.randn(3, 96, 96, generator=torch.Generator().manual_seed(3))[None])
    y[0, :, 40:56, 40:56] = torch.nan
    said = of_measurement(operator, x, y, noise, 0)
    known = ~torch.isnan(y)
    assert said["r_factor_noise"] == pytest.approx(
        ((operator(x) - y)[known].abs().sum() / y[known].abs().sum()).item(), rel=0.02
    )
    assert said["scale"] == pytest.approx(1, abs=0.01)
    assert of_measurement(operator, x, 1.3 * y, noise, 0)["scale"] == pytest.approx(1.3, abs=0.01)


@pytest.mark.parametrize("exposure", [0.05, 1.0, 20.0])
def test_the_r_factor_of_noise_alone_is_that_of_the_fitted_exposure(scene, exposure):
    """Twenty times as many counts have a smaller share of noise, however bright the picture is that explains them."""
    x, _ = scene
    gain = 1e3
    mean = exposure * gain * PhaseRetrieval()(x).square() + 0.1
    y = (torch.poisson(mean, generator=torch.Generator().manual_seed(1)) / gain).sqrt()
    said = of_measurement(counting(gain, free=True), x, y, KeyedNoise(0), 0)
    calculated = exposure**0.5 * PhaseRetrieval()(x)
    assert said["r_factor_noise"] == pytest.approx(((calculated - y).abs().sum() / y.sum()).item(), rel=0.03)
    assert said["scale"] == pytest.approx(exposure**0.5, rel=0.02)


def test_noise_of_one_size_has_the_same_share_at_each_exposure(scene):
    x, _ = scene
    settings = SimpleNamespace(weights={"gaussian": 1.0}, photons=None, background=0.1, free_scale=True)
    operator = WithFidelity(PhaseRetrieval(sigma=0.05), settings)
    y = 3 * operator.measure(x, torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1)))
    said = of_measurement(operator, x, y, KeyedNoise(0), 0)
    assert said["r_factor_noise"] == pytest.approx(((3 * operator(x) - y).abs().sum() / y.abs().sum()).item(), rel=0.03)


def test_the_fitted_exposure_is_a_number_where_a_factor_is_free(scene):
    x, _ = scene
    operator = counting(1e4, free=True)
    y = 0.7 * operator(x)  # and the same share of the background is missing, which shifts the fit a little
    assert Exposure()(x, y, operator).tolist() == pytest.approx([0.49], rel=1e-3)
    assert Exposure()(x, y, counting(1e4)) is None
