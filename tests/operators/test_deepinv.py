"""The adapter on small physics classes with deepinv's interface: noise, draws, and what cannot be taken."""

import numpy as np
import pytest
import torch

from operators.deepinv_adapter import DeepinvPhysics
from utils.config.check import check
from utils.config.operators import check_operator
from utils.errors import InputError
from utils.noise import keyed_globals
from utils.running.build import build

ADAPTER = "operators.deepinv_adapter.DeepinvPhysics"


class NoiseModel(torch.nn.Module):
    def __init__(self, sigma=0.1):
        super().__init__()
        self.sigma = torch.tensor(sigma)


ZeroNoise, GaussianNoise, PoissonNoise = (
    type(name, (NoiseModel,), {}) for name in ("ZeroNoise", "GaussianNoise", "PoissonNoise")
)


class Physics(torch.nn.Module):
    """Inpainting whose mask is drawn from torch's global state, as deepinv does with a share instead of a mask."""

    def __init__(self, noise_model=None, share=0.5):
        super().__init__()
        self.noise_model = noise_model if noise_model is not None else ZeroNoise()
        self.register_buffer("mask", (torch.rand(1, 1, 16, 16) < share).float())

    def A(self, x):
        return x * self.mask


class ComplexImages(Physics):
    def A(self, x):
        return torch.view_as_complex(x)


class Stacked(Physics):
    def A(self, x):
        return [x, x]


class Fourier(Physics):
    def A(self, x):
        return torch.fft.fft2(x)


@pytest.mark.parametrize("noise", [ZeroNoise(), GaussianNoise(0.05), None])
def test_noise_that_is_the_same_is_taken(noise):
    assert DeepinvPhysics(Physics(noise), sigma=0.05).sigma == 0.05


@pytest.mark.parametrize("noise", [PoissonNoise(1.0), GaussianNoise(0.1)])
def test_noise_of_the_physics_that_would_be_ignored_is_refused(noise):
    with pytest.raises(InputError, match=f"Physics brings {type(noise).__name__}, and here .*operator.sigma=0.05") as caught:
        DeepinvPhysics(Physics(noise), sigma=0.05)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "noise, refused",
    [
        (None, False),
        ({"_target_": "deepinv.physics.GaussianNoise", "sigma": 0.05}, False),
        ({"_target_": "deepinv.physics.GaussianNoise", "sigma": 0.1}, True),
        ({"_target_": "deepinv.physics.PoissonNoise", "gain": 0.05}, True),
    ],
)
def test_noise_in_the_config_is_refused_before_torch_is_needed(noise, refused, monkeypatch):
    monkeypatch.setattr("utils.config.operators.find_spec", lambda name: True)
    arguments = {"sigma": 0.05, "physics": {"_target_": "deepinv.physics.Inpainting", "noise_model": noise}}
    if not refused:
        check_operator("task.ldm.operator", ADAPTER, arguments, 64)
        return
    with pytest.raises(InputError, match="task.ldm.operator.physics.noise_model=.*leave noise_model out"):
        check_operator("task.ldm.operator", ADAPTER, arguments, 64)


class Drawn(DeepinvPhysics):
    def __init__(self, sigma=0.05):
        super().__init__(Physics(), sigma)


@pytest.mark.heavy
def test_what_a_physics_draws_is_decided_by_the_seed(composed, tiny):
    def mask(seed):
        torch.rand(seed)  # the state before does not matter
        own = "task.demo_langevin.operator"
        cfg = composed(*tiny, f"{own}._target_={__name__}.Drawn", f"~{own}.oversample", f"seed={seed}")
        return build(check(cfg)).operator.physics.mask

    first = mask(7)
    assert torch.equal(first, mask(7)) and not torch.equal(first, mask(8))


def test_global_state_is_as_before():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    with keyed_globals(3, "mask"):
        torch.rand(5), np.random.rand(5)
    assert torch.equal(torch.get_rng_state(), before[0]) and (np.random.get_state()[1] == before[1]).all()


OTHER_IMAGES = r"ComplexImages does not take real images of shape \(2, 3, 16, 16\) \(.*last dim"


@pytest.mark.parametrize("physics, word", [(ComplexImages(), OTHER_IMAGES), (Stacked(), "Stacked gives a list")])
def test_physics_on_other_images_is_one_line(physics, word):
    with pytest.raises(InputError, match=word) as caught:
        DeepinvPhysics(physics)(torch.zeros(2, 3, 16, 16))
    assert "\n" not in str(caught.value)


def test_memory_that_runs_out_is_no_wrong_physics():
    class Large(Physics):
        def A(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        DeepinvPhysics(Large())(torch.zeros(1, 3, 16, 16))


def test_complex_results_are_real_and_imaginary_parts():
    x = torch.randn(2, 3, 16, 16)
    y = DeepinvPhysics(Fourier())(x)
    assert y.shape == (2, 3, 16, 16, 2)
    torch.testing.assert_close(torch.view_as_complex(y), torch.fft.fft2(0.5 * x + 0.5))
