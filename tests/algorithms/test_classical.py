"""Classical phase retrieval as an algorithm: through the program, with missing pixels and one channel, and what is refused."""

import pytest
import torch

from operators.hdr import HighDynamicRange
from operators.phase_retrieval import PhaseRetrieval
from utils.algorithms.classical import Classical
from utils.config.check import check
from utils.errors import InputError
from utils.noise import KeyedNoise
from utils.records.files import read_record
from utils.sampling.particles import Particles

SMALL = ("sampler=classical", "sampler.restarts=8", "sampler.iterations=40")


@pytest.fixture
def classical(composed, tiny, tmp_path, monkeypatch):
    """classical(*overrides) -> (folder, metrics) of a tiny run of two images."""
    import posterior_sample
    from tests.worlds import runs

    def start(*overrides):
        cfg = composed(*(text for text in tiny if not text.startswith("sampler.")), *SMALL, *overrides)
        with monkeypatch.context() as patch:
            runs.without_pictures(patch)
            posterior_sample.run(cfg)
        folder = tmp_path / "results" / cfg.name
        return folder, runs.metrics_of(folder)

    return start


def pictures(folder, image):
    return read_record(folder / "records" / f"{image:05d}.npz")[1]["images"]


@pytest.mark.program
def test_a_particle_is_the_same_alone_and_in_a_batch(classical):
    folder, metrics = classical("name=batch", "batch_images=2")
    phase = metrics["time"]["phases"]["sampling"]
    assert phase["steps"] == 2 * 10 and phase["decoder_forward_backward"] == phase["denoiser_calls"] == 0
    assert len(metrics["time"]["per_step_s"][0]) == 10
    single, _ = classical("name=single", "num_samples=1", "first_particle=2", "data.start_id=1")
    assert (pictures(single, 1)[0] == pictures(folder, 1)[2]).all()
    more, _ = classical("name=more", "sampler.restarts=6")
    assert not (pictures(more, 0)[-1] == pictures(folder, 0)[-1]).all()  # another bank, other ranks


@pytest.mark.program
def test_error_reduction_is_another_answer_and_another_fingerprint(classical):
    hio, er = (classical(f"name={solver}", f"sampler.solver={solver}")[0] for solver in ("hio", "er"))
    assert not (pictures(hio, 0) == pictures(er, 0)).all()
    fingerprints = {read_record(folder / "records" / "00000.npz")[0]["fingerprint"] for folder in (hio, er)}
    assert len(fingerprints) == 2


def test_what_another_image_of_the_batch_lacks_changes_nothing(network_prior):
    """What noise leaves is counted for each image: so loud that looks decide, beside an image with half its pixels."""
    operator = PhaseRetrieval(sigma=0.5)
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = operator(x)
    y[1, :, ::2] = torch.nan
    loop = Classical(network_prior, operator, KeyedNoise(1), solver="hio", restarts=12, iterations=30, beta=0.9)
    both, alone = (
        loop.sample(Particles.start(y[: len(ids)], ids, 6, 0, network_prior.latent_shape, network_prior.dtype))
        for ids in ([3, 8], [3])
    )
    torch.testing.assert_close(both.image[:6], alone.image, rtol=0, atol=1e-5)


@pytest.mark.program
def test_one_level_is_the_same_at_the_centre_of_a_large_spectrum(classical):
    """The size alone: what it solves is the measurement of a small image, and what it hands out says so."""
    folder, m = classical("name=level", "data.resolution=64", "model.resolution=16", "pyramid.levels=[16]")
    assert m["resolved"] == {"pixels": 16, "of": 64} and pictures(folder, 0).shape == (4, 64, 64, 3)
    assert read_record(folder / "records" / "00000.npz")[1]["y"].shape == (3, 24, 24)


@pytest.mark.parametrize("channels", [1, 3])
def test_missing_pixels_and_one_channel(network_prior, channels):
    """What was not measured is no zero: the answer does not change with what stands there."""
    operator = PhaseRetrieval(channels=channels)
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = operator(x)
    y[..., 10:14, 10:14] = torch.nan
    loop = Classical(network_prior, operator, KeyedNoise(1), solver="hio", restarts=4, iterations=30, beta=0.9)
    result = loop.sample(Particles.start(y, [3], 2, 0, network_prior.latent_shape, network_prior.dtype))
    assert torch.isfinite(result.image).all() and result.image.shape == (2, 3, 16, 16)
    assert (result.image[:, 0] == result.image[:, 1]).all().item() == (channels == 1)
    torch.testing.assert_close(result.loss, operator.loss(result.image, y))
    filled = loop.sample(Particles.start(y.nan_to_num(), [3], 2, 0, network_prior.latent_shape, network_prior.dtype))
    assert not torch.equal(filled.image, result.image)


def test_an_operator_of_ones_own_without_a_spectrum_is_refused(network_prior):
    with pytest.raises(InputError, match="sampler=classical: HighDynamicRange measures no spectrum"):
        Classical(network_prior, HighDynamicRange(0.05, 2.0), KeyedNoise(1), solver="hio", restarts=4, iterations=30, beta=0.9)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (("sampler.solver=magic",), "sampler.solver=magic: input should be 'hio', 'raar' or 'er'"),
        (("sampler.restarts=0",), "sampler.restarts=0: "),
        (("sampler.iterations=3",), "sampler.iterations=3: "),
        (("sampler.beta=1.5",), "sampler.beta=1.5: "),
        (("+sampler.speed=1",), "sampler.speed=1: "),
        (
            ("sampler.restarts=3",),
            "sampler.restarts=3: particle k is the k-th best of them, of 128 at most, and there are 4 particles",
        ),
        (
            ("sampler.restarts=400", "num_samples=129"),
            "sampler.restarts=400: particle k is the k-th best of them, of 128 at most",
        ),
        (("task=gaussian_blur",), "sampler=classical: operators.blur.GaussianBlur measures no spectrum"),
        (("pruning_step=500",), "pruning_step=500: sampler._target_=utils.algorithms.classical.Classical is another"),
        (("data.resolution=64", "model.resolution=32", "pyramid.levels=[16,32]"), "pyramid.levels=[16, 32]: sampler._target_="),
        (("data.resolution=64", "model.resolution=32", "pyramid.levels=[16]"), "pyramid.levels=[16]: the last must be model"),
        (("sampler._target_=utils.algorithms.classic.X",), "sampler._target_=utils.algorithms.classic.X: no such algorithm"),
    ],
)
def test_wrong_input_is_one_line_before_torch(composed, overrides, message):
    with pytest.raises(InputError) as caught:
        check(composed("sampler=classical", *overrides))
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
