"""Networks in bfloat16, everything else in float32; and precision as part of what a record belongs to."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from tests.worlds import tiny as tiny_priors
from utils import device as devices
from utils.config.check import check
from utils.config.fingerprint import fingerprint
from utils.errors import InputError
from utils.priors.latent_diffusion import load_pipeline

CPU = torch.device("cpu")
UNIT = 2**-8  # rounding of bfloat16, relative


@pytest.fixture(scope="module")
def vq_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vq")
    tiny_priors.vq_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(params=["kl", "vq"])
def pair(request, tiny_prior, vq_folder):
    """The same prior in float32 and with networks in bfloat16, and latents."""
    folder = {"kl": tiny_prior, "vq": vq_folder}[request.param]
    exact, rounded = (load_pipeline(folder, CPU) for _ in range(2))
    rounded.compute_in(torch.bfloat16)
    return exact, rounded, torch.randn(4, *exact.latent_shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.heavy
def test_images_gradients_and_denoised_latents_are_float32_and_near(pair):
    exact, rounded, z = pair
    found = []
    for prior in (exact, rounded):
        latent = z.clone().requires_grad_()
        image = prior.decode(latent)
        (gradient,) = torch.autograd.grad(image, latent, torch.ones_like(image))
        found.append((image.detach(), gradient, prior.denoise(z, torch.tensor(1.5))))
    # at worst the roundings of all layers add up; the gradient passes each layer twice
    layers = sum(hasattr(module, "weight") for module in exact.autoencoder.decoder.modules())
    for a, b in zip(*found):
        assert a.dtype == b.dtype == torch.float32
        error = ((a - b).norm() / a.norm()).item()
        assert UNIT / 100 < error < layers * UNIT / 2


def test_what_is_bfloat16_and_what_is_not(pair):
    _, prior, z = pair
    seen = set()
    for module in [*prior.autoencoder.decoder.modules(), *prior.unet.modules()]:
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda module, arguments, out: seen.add((arguments[0].dtype, out.dtype)))
    prior.decode(z)
    prior.denoise(z, torch.tensor(1.5))
    assert seen == {(torch.bfloat16, torch.bfloat16)}
    assert prior.dtype == torch.float32 and prior.autoencoder.post_quant_conv.weight.dtype == torch.float32
    if hasattr(prior.autoencoder, "quantize"):  # the codebook entries are those of the exact prior
        assert prior.autoencoder.quantize.embedding.weight.dtype == torch.float32


def test_timesteps_keep_their_precision(pair):
    """Two noise levels whose timesteps bfloat16 cannot tell apart."""
    _, prior, z = pair
    t = torch.tensor([700.0, 701.0])
    assert t.bfloat16().unique().numel() == 1
    assert not torch.equal(*(prior.predict(z[:1], one[None]) for one in t))


@pytest.mark.program
def test_chain_operator_and_loss_see_float32(run, monkeypatch):
    from operators.phase_retrieval import PhaseRetrieval

    seen, loss = set(), PhaseRetrieval.loss

    def spy(self, x, y):
        value = loss(self, x, y)
        seen.update([x.dtype, y.dtype, value.dtype])
        return value

    monkeypatch.setattr(PhaseRetrieval, "loss", spy)
    short = ("sampler.annealing_scheduler_config.num_steps=2", "task.demo_langevin.mcmc_sampler_config.num_steps=1")
    _, exact = run(*short, "name=exact")
    _, rounded = run(*short, "name=rounded", "precision=bf16")
    assert seen == {torch.float32}
    a, b = (np.array(m["psnr"]["sample"]) for m in (exact, rounded))
    assert not np.array_equal(a, b) and np.abs(a - b).max() < 0.5  # dB, of a random decoder after two steps


@pytest.mark.heavy
@pytest.mark.parametrize("fast", [True, False])
def test_a_device_that_emulates_bfloat16_is_named(composed, monkeypatch, caplog, fast):
    from utils.running import build

    assert devices.has_fast_bf16(torch.device("xla"))  # a TPU has units for it, whatever the host's processor
    monkeypatch.setattr(devices, "has_fast_bf16", lambda device: fast)
    with caplog.at_level("WARNING", "latentdaps"):
        build.load_prior(check(composed("precision=bf16")), CPU)
        build.load_prior(check(composed()), CPU)
    assert ["only emulates bfloat16" in record.getMessage() for record in caplog.records] == [True] * (not fast)


@pytest.fixture
def fingerprint_of(composed):
    return lambda *overrides: fingerprint(OmegaConf.to_container(composed(*overrides), resolve=True))


@pytest.mark.heavy
def test_the_fingerprint_knows_the_precision(fingerprint_of, composed):
    plain = fingerprint_of()
    older = OmegaConf.to_container(composed(), resolve=True)
    for switch in ("precision", "recombination_step", "recombination", "children", "tree", "mechanisms"):
        del older[switch]
    assert fingerprint(older) == plain, "records from before the switches stay valid"
    assert len({plain, fingerprint_of("precision=bf16"), fingerprint_of("precision=tf32", "gpu=0")}) == 3
    assert fingerprint_of("compile=true", "batch_images=auto") == plain


@pytest.mark.heavy
def test_the_fingerprint_takes_whole_numbers_for_floats(fingerprint_of):
    written = (
        "repulsion_scale=0",
        "sampler.annealing_scheduler_config.sigma_max=10",
        "task.demo_langevin.operator.oversample=2",
    )
    assert fingerprint_of(*written) == fingerprint_of()
    assert fingerprint_of("task.demo_langevin.operator.oversample=3") != fingerprint_of()


@pytest.mark.parametrize(
    "overrides, message",
    [
        (("precision=tf32",), "precision=tf32: only CUDA devices have it, and gpu=-1"),
        (("precision=tf32", "use_tpu=true"), "precision=tf32: only CUDA devices have it, and use_tpu=true"),
        (("precision=bf16", "+model.network_dtype=float16"), "precision=bf16: model.network_dtype=float16"),
        (("precision=fp16",), "precision=fp16"),
        (("compile=true", "use_tpu=true"), "compile=true: XLA compiles by itself"),
        (("gradient_checkpointing=true", "use_tpu=true"), "gradient_checkpointing=true: torch's checkpointing"),
        (("compile=1",), "compile=1"),
        (("batch_images=many",), "batch_images"),
        (("batch_images=0",), "batch_images"),
    ],
)
def test_what_cannot_be_is_one_line(composed, overrides, message):
    with pytest.raises(InputError) as caught:
        check(composed(*overrides))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_tf32_without_cuda_is_one_line():
    with pytest.raises(InputError, match="precision=tf32: only CUDA devices have it, and this run is on the cpu"):
        devices.setup_device(CPU, tf32=True)
