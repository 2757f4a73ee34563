"""The rebuilt networks against the published state dicts, whose names and shapes are literal data in tests/worlds."""

import math

import pytest
import torch

from tests.worlds import published
from utils.priors import compvis

STRUCTURE = {
    "ffhq256_unet": (compvis.unet_structure, {**compvis.FFHQ_UNET, "context": None, "channels": 3}),
    "cin256_v2_unet": (compvis.unet_structure, {**compvis.IMAGENET_UNET, "channels": 3}),
    "vq_f4": (compvis.vq_structure, compvis.VQ_F4),
}
CONVERT = {
    "ffhq256_unet": lambda state: compvis.convert_unet(state, "file", 64),
    "cin256_v2_unet": lambda state: compvis.convert_unet(state, "file", 64),
    "vq_f4": lambda state: compvis.convert_vq(state, "file", 256),
}
COUNTS = {"ffhq256_unet": 274_056_163, "cin256_v2_unet": 400_920_579, "vq_f4": 55_322_782}


@pytest.mark.parametrize("network", STRUCTURE)
def test_structure_is_read_off_the_published_shapes(network):
    read, wanted = STRUCTURE[network]
    assert read(published.constants(network)) == wanted


@pytest.mark.heavy
@pytest.mark.parametrize("network", CONVERT)
def test_every_published_tensor_is_converted_and_none_is_missing(network):
    """Each tensor is a constant of its own: all of them arrive, with as many numbers as they had."""
    state = published.constants(network)
    module = CONVERT[network](state)
    arrived = {}
    for tensor in module.state_dict().values():
        # qkv is split in three, everything else keeps its tensor
        value = tensor.flatten()[0].item()
        arrived[value] = arrived.get(value, 0) + tensor.numel()
    assert arrived == {float(i): tensor.numel() for i, tensor in enumerate(state.values())}
    assert sum(arrived.values()) == COUNTS[network]


@pytest.mark.parametrize("network, count", COUNTS.items())
def test_published_tables_have_the_published_parameter_counts(network, count):
    assert sum(math.prod(shape) for shape in published.shapes(network).values()) == count


def test_a_published_file_is_recognised_by_its_names():
    """The whole of ldm/ffhq256/model.ckpt: prefixes, schedule and averaged weights, up to the converters."""
    unet, vq = published.constants("ffhq256_unet"), published.constants("vq_f4")
    state = {compvis.UNET + k: v for k, v in unet.items()} | {compvis.VQ + k: v for k, v in vq.items()}
    ema = {f"model_ema.diffusion_model{k.replace('.', '')}": v for k, v in unet.items()}
    others = ("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod")
    others += ("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod")
    others += ("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2")
    schedule = {name: torch.zeros(1000) for name in (*others, "lvlb_weights")}
    state |= ema | schedule | {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(1)}
    left = [k for k in state if not k.startswith((*compvis.NOT_NETWORK, compvis.UNET, compvis.VQ))]
    assert left == []
    averaged = compvis._averaged(unet, state, "file")
    assert averaged.keys() == unet.keys()
