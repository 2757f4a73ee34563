"""torch.compile of decoder and denoiser: the same numbers up to rounding, at every pass size. Compiling takes minutes."""

import pytest
import torch

from tests.worlds import runs
from utils.device import take_compile_s
from utils.errors import InputError
from utils.priors.wrappers import CompiledPrior


def results(prior, z):
    """Image and its gradient, denoised latent, and that of a latent with its gradient."""
    latent, sigma = z.clone().requires_grad_(), torch.tensor(1.5)
    image = prior.decode(latent)
    (gradient,) = torch.autograd.grad(image, latent, image.detach())
    denoised = prior.denoise(latent, sigma)
    (through,) = torch.autograd.grad(denoised, latent, denoised.detach())
    return image.detach(), gradient, prior.denoise(z, sigma), denoised.detach(), through


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_prior, no_pictures):
    return runs.Place(tmp_path_factory.mktemp("compiled"), tiny_prior, images=1)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_same_numbers_at_each_size(tiny_prior, checkpointing):
    from utils.priors.latent_diffusion import load_pipeline

    plain = load_pipeline(tiny_prior, torch.device("cpu"))
    if checkpointing:
        plain.checkpoint_decoder()
    compiled = CompiledPrior(plain)
    take_compile_s(torch.device("cpu"))
    for count in (4, 2):
        z = torch.randn(count, *plain.latent_shape, generator=torch.Generator().manual_seed(count))
        for a, b in zip(results(plain, z), results(compiled, z)):
            torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4)
        assert take_compile_s(torch.device("cpu")) > 0, "a new size is a new graph"
        results(compiled, z)
        assert take_compile_s(torch.device("cpu")) == 0, "and a known one is not"


def test_a_gradient_flows_through_the_denoiser_where_it_is_asked_for(network_prior, monkeypatch):
    """And nowhere else: the sampler's own steps keep no activations."""
    monkeypatch.setattr(torch, "compile", lambda function, **settings: function)
    z = torch.ones(1, *network_prior.latent_shape, requires_grad=True)
    compiled, sigma = CompiledPrior(network_prior), torch.tensor(1.5)
    (gradient,) = torch.autograd.grad(compiled.denoise(z, sigma).sum(), z)
    assert gradient.abs().max() > 0
    assert not compiled.denoise(z.detach(), sigma).requires_grad
    with torch.no_grad():
        assert not compiled.denoise(z, sigma).requires_grad


@pytest.mark.program
@pytest.mark.slow
def test_a_pruned_run_with_compiled_networks(place):
    overrides = (
        "data.end_id=1",
        "num_samples=3",
        "pruning_step=700",
        "task.demo_langevin.mcmc_sampler_config.num_steps=1",
        "task.demo_langevin.mcmc_sampler_config.lr=1e-6",
    )
    plain, compiled = (runs.metrics_of(place.run(f"compile_{on}", *overrides, f"compile={on}")) for on in ("false", "true"))
    runs.assert_close(runs.scores(compiled, memory=False)["psnr"], runs.scores(plain, memory=False)["psnr"], 1e-2)
    assert compiled["pruning"]["kept"] == plain["pruning"]["kept"]
    assert compiled["time"]["compile_s"] > 0 and compiled["diverged"] == [[False] * 3]
    counts = [
        {k: v for k, v in m["time"]["phases"]["post_pruning"].items() if k not in ("time_s", "chain_s")}
        for m in (plain, compiled)
    ]
    assert counts[0] == counts[1]


@pytest.mark.program
def test_no_compiler_is_one_line(place, monkeypatch):
    def compile(function, **settings):
        def failing(*arguments):
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nmore")

        return failing

    monkeypatch.setattr(torch, "compile", compile)
    with pytest.raises(InputError) as caught:
        place.run("no_compiler", "data.end_id=1", "compile=true")
    assert "No working C++ compiler found" in str(caught.value) and "g++" in str(caught.value)
    assert "\n" not in str(caught.value)
