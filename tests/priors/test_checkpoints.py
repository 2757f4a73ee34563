"""The original checkpoints: their structure at full size, their layout and equations at small size, and bad files."""

import argparse
import sys
import types
import zipfile
from collections import defaultdict

import pytest
import torch
from diffusers import DDIMScheduler
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from tests.worlds import compvis as original
from tests.worlds import runs
from utils.checkpoint_file import STAND_INS, read_state_dict
from utils.errors import InputError
from utils.priors import compvis
from utils.priors.latent_diffusion import load_pipeline
from utils.weights import is_original

RESOLUTION, LATENT = 16, 8
VQ_CHANNELS, UNET_CHANNELS = (32, 64), (64, 96)


def prefixed(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


def original_checkpoint(conditional=False, seed=0):
    """(state dict in the original layout, outputs of the original equations) of a scaled-down model."""
    generator = torch.Generator().manual_seed(seed + 100)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    unet, vq = original.Weights(seed), original.Weights(seed + 1)
    x, z, t = draw(2, 3, RESOLUTION, RESOLUTION), draw(2, 3, LATENT, LATENT), torch.tensor([10.0, 700.5])
    table = draw(1001, 24)
    context = table[1000].expand(2, 1, -1) if conditional else None
    expected = {
        "x": x,
        "z": z,
        "t": t,
        "encoded": original.vq_encode(vq, x, VQ_CHANNELS),
        "decoded": original.vq_decode(vq, z, VQ_CHANNELS),
        "predicted": original.unet(unet, z, t, UNET_CHANNELS, context),
    }
    ema = {compvis.EMA + "diffusion_model" + name.replace(".", ""): 2 * tensor for name, tensor in unet.items()}
    schedule = {"alphas_cumprod": compvis.build_scheduler().alphas_cumprod, "betas": torch.zeros(1000)}
    state = {**prefixed(compvis.UNET, unet), **prefixed(compvis.VQ, vq), **ema, **schedule}
    if conditional:
        state[compvis.CLASSES] = table
    return {name: tensor.float() for name, tensor in state.items()}, expected


def save(state, path, extra=None):
    torch.save({"state_dict": state, "epoch": 3, "global_step": 10, **(extra or {})}, path)
    return path


@pytest.fixture(scope="module", params=[False, True], ids=["ffhq", "cin256-v2"])
def checkpoint(request, tmp_path_factory):
    state, expected = original_checkpoint(request.param)
    return save(state, tmp_path_factory.mktemp("ckpt") / "model.ckpt"), expected, request.param


@pytest.mark.parametrize(
    "build, count",
    [
        (lambda: compvis.build_unet(**compvis.FFHQ_UNET), 274_056_163),
        (lambda: compvis.build_unet(**compvis.IMAGENET_UNET), 400_920_579),
        (lambda: compvis.build_vq(**compvis.VQ_F4), 55_322_782),
    ],
)
def test_full_size_modules_have_the_published_parameter_counts(build, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in build().parameters()) == count


@pytest.mark.heavy
def test_converted_networks_equal_the_original_equations(checkpoint):
    path, expected, conditional = checkpoint
    state = read_state_dict(path)
    unet = compvis.convert_unet(compvis._under(state, compvis.UNET), path, LATENT).double()
    vq = compvis.convert_vq(compvis._under(state, compvis.VQ), path, RESOLUTION).double()
    context = {"encoder_hidden_states": state[compvis.CLASSES][1000].double().expand(2, 1, -1)} if conditional else {}
    predicted = unet(expected["z"], expected["t"], **context).sample
    # the file holds float32, so the weights differ from the reference's in the eighth digit
    for name, value in (
        ("predicted", predicted),
        ("encoded", vq.encode(expected["x"]).latents),
        ("decoded", vq.decode(expected["z"]).sample),
    ):
        assert expected[name].std() > 0.1
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5, msg=lambda m: f"{name}: {m}")


def test_splitting_the_heads_the_other_way_would_be_noticed():
    """Negative control: q, k, v taken as three blocks over all heads gives other outputs."""
    generator = torch.Generator().manual_seed(0)
    w = original.Weights()
    x = torch.randn(1, 64, 4, 4, generator=generator, dtype=torch.float64)
    right = original.self_attention(w, "a", x)
    qkv = w["a.qkv.weight"].reshape(2, 3, 32, 64, 1)
    w["a.qkv.weight"] = qkv.transpose(0, 1).reshape(192, 64, 1)
    assert (original.self_attention(w, "a", x) - right).abs().max() > 1e-3


@pytest.mark.heavy
def test_load_pipeline_converts_the_original_file_once(checkpoint):
    path, expected, conditional = checkpoint
    label = 1000 if conditional else None
    prior = load_pipeline(path, "cpu", class_label=label, resolution=RESOLUTION)
    folder = path.with_suffix(".diffusers")
    written = (folder / "unet" / "config.json").stat().st_mtime_ns
    again = load_pipeline(path, "cpu", class_label=label, resolution=RESOLUTION)
    assert (folder / "unet" / "config.json").stat().st_mtime_ns == written
    z, sigma = expected["z"].float(), torch.tensor(0.7)
    assert torch.equal(prior.denoise(z, sigma), again.denoise(z, sigma))
    assert prior.latent_shape == (3, LATENT, LATENT) and prior.resolution == RESOLUTION
    torch.testing.assert_close(prior.decode(z), expected["decoded"].float(), rtol=1e-4, atol=1e-4)


def test_denoiser_uses_the_network_output_at_the_mapped_timestep(checkpoint):
    path, expected, conditional = checkpoint
    prior = load_pipeline(path, "cpu", class_label=1000 if conditional else None, resolution=RESOLUTION)
    t = expected["t"]
    sigma = prior.timestep_map.log_sigmas[10].exp().float()  # the first element's timestep, 10
    z = expected["z"].float() * (1 + sigma.square()).sqrt()
    wanted = z - sigma * expected["predicted"].float()
    assert t[0] == 10
    torch.testing.assert_close(prior.denoise(z[:1], sigma), wanted[:1], rtol=1e-4, atol=1e-4)


@pytest.mark.heavy
def test_raw_weights_by_default_and_ema_on_request(checkpoint, tmp_path):
    path, _, _ = checkpoint
    raw, ema = (compvis.convert(path, tmp_path / kind, kind, RESOLUTION) for kind in ("raw", "ema"))
    a, b = (load_file(folder / "unet" / "diffusion_pytorch_model.safetensors") for folder in (raw, ema))
    assert a.keys() == b.keys() and all(torch.equal(b[name], 2 * a[name]) for name in a)


def test_first_stage_alone_gives_a_vqvae_folder(checkpoint, tmp_path):
    state = compvis._under(read_state_dict(checkpoint[0]), compvis.VQ)
    path = save({**state, "loss.discriminator.main.0.weight": torch.ones(1)}, tmp_path / "vq-f4.ckpt")
    out = compvis.convert(path, tmp_path / "out", resolution=RESOLUTION)
    assert sorted(p.name for p in out.iterdir()) == ["conversion.json", "vqvae"]


@pytest.mark.heavy
@pytest.mark.parametrize(
    "change, word",
    [
        (lambda s: s.pop(compvis.UNET + "middle_block.0.in_layers.2.weight"), "missing keys in the UNet"),
        (lambda s: s.pop(compvis.VQ + "decoder.conv_out.bias"), "missing keys in the VQ"),
        (lambda s: s.update({compvis.UNET + "label_emb.weight": torch.ones(2)}), "unexpected keys"),
        (lambda s: s.update({compvis.VQ + "encoder.extra": torch.ones(2)}), "unexpected keys"),
        (lambda s: s.update({"cond_stage_model.transformer.x": torch.ones(2)}), "unexpected keys"),
        (lambda s: s.update({compvis.UNET + "out.2.bias": torch.ones(5)}), "wrongly shaped"),
        (lambda s: s.pop(compvis.VQ + "quantize.embedding.weight"), "no codebook"),
        (lambda s: s.update(alphas_cumprod=torch.linspace(1, 0.1, 1000)), "noise schedule"),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith(compvis.VQ)], "no latent-diffusion checkpoint"),
    ],
)
def test_damaged_or_foreign_checkpoints_are_one_line(change, word, tmp_path):
    state, _ = original_checkpoint()
    change(state)
    path = save(state, tmp_path / "model.ckpt")
    with pytest.raises(InputError, match=word) as caught:
        compvis.convert(path, tmp_path / "out", resolution=RESOLUTION)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["model.ckpt"]


@pytest.mark.heavy
def test_ema_of_a_checkpoint_without_it_names_the_remedy(tmp_path):
    state, _ = original_checkpoint()
    path = save({k: v for k, v in state.items() if not k.startswith(compvis.EMA)}, tmp_path / "model.ckpt")
    with pytest.raises(InputError, match="weights=raw"):
        compvis.convert(path, tmp_path / "out", "ema", RESOLUTION)


def test_wrong_family_names_the_right_model(checkpoint):
    path, _, conditional = checkpoint
    with pytest.raises(InputError, match="use model=imagenet256ldm" if conditional else "use model=ffhq256ldm"):
        load_pipeline(path, "cpu", class_label=None if conditional else 1000, resolution=RESOLUTION)


LAYOUTS = {
    "state_dict": lambda state: {"state_dict": state, "global_step": torch.tensor(3)},
    "bare": lambda state: state,
    "model": lambda state: {"model": state, "optimizer": {"state": {}}},
    "model, state_dict": lambda state: {"state_dict": {"model": state}},
    "ema alone": lambda state: {"ema": state, "args": argparse.Namespace(lr=0.1)},
    "model_ema alone": lambda state: {"model_ema": state},
    "module.": lambda state: {"state_dict": prefixed("module.", state)},
    "_orig_mod.module.": lambda state: prefixed("_orig_mod.module.", state),
    "ema.": lambda state: prefixed("ema.", state),
    "model.": lambda state: prefixed("model.", state),
}


@pytest.mark.heavy
@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_are_found_where_people_put_them(layout, tmp_path):
    state, _ = original_checkpoint()
    torch.save(LAYOUTS[layout](state), tmp_path / "model.pth")
    found = read_state_dict(tmp_path / "model.pth")
    assert found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["model.safetensors", "MODEL.CKPT", "model.Safetensors"])
def test_other_endings_are_read(name, tmp_path):
    state, _ = original_checkpoint()
    save_file(state, tmp_path / name) if "safetensors" in name.lower() else save(state, tmp_path / name)
    assert is_original(tmp_path / name)
    prior = load_pipeline(tmp_path / name, "cpu", resolution=RESOLUTION)
    assert prior.latent_shape == (3, LATENT, LATENT) and (tmp_path / name).with_suffix(".diffusers").is_dir()


@pytest.mark.heavy
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("turned_back", [False, True])
def test_half_precision_is_the_same_noise_schedule(dtype, turned_back, tmp_path):
    state, _ = original_checkpoint()
    low = {name: tensor.to(dtype) for name, tensor in state.items()}
    path = save({k: t.float() for k, t in low.items()} if turned_back else low, tmp_path / "model.ckpt")
    out = compvis.convert(path, tmp_path / "out", resolution=RESOLUTION)
    written = load_file(out / "unet" / "diffusion_pytorch_model.safetensors")
    assert {t.dtype for t in written.values()} == {torch.float32}
    assert torch.equal(written["conv_in.weight"], low[compvis.UNET + "input_blocks.0.0.weight"].float())


@pytest.mark.heavy
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_another_noise_schedule_is_refused_in_every_precision(dtype, tmp_path):
    """Stable Diffusion's betas, the nearest public schedule."""
    other = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).alphas_cumprod
    state = {**original_checkpoint()[0], "alphas_cumprod": other.to(dtype)}
    with pytest.raises(InputError, match="another noise schedule"):
        compvis.convert(save(state, tmp_path / "model.ckpt"), tmp_path / "out", resolution=RESOLUTION)


@pytest.mark.heavy
def test_averaged_weights_in_a_state_dict_of_their_own(tmp_path):
    state, _ = original_checkpoint()
    raw = {k: v for k, v in state.items() if not k.startswith(compvis.EMA)}
    torch.save({"model": raw, "ema": {k: 2 * v for k, v in raw.items()}}, tmp_path / "model.pt")
    folders = (compvis.convert(tmp_path / "model.pt", tmp_path / kind, kind, RESOLUTION) for kind in ("raw", "ema"))
    a, b = (load_file(folder / "unet" / "diffusion_pytorch_model.safetensors") for folder in folders)
    assert all(torch.equal(b[name], 2 * a[name]) for name in a)


@pytest.mark.parametrize(
    "name, content, word",
    [
        ("model.ckpt", b"<!DOCTYPE html><html>", "is a web page"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        ("model.safetensors", b"", "truncated"),
        ("model.safetensors", bytes(100), "truncated"),
    ],
)
def test_files_that_are_something_else_say_what_they_are(name, content, word, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=word) as caught:
        read_state_dict(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.heavy
def test_one_file_of_a_diffusers_folder_names_the_folder(checkpoint, tmp_path):
    out = compvis.convert(checkpoint[0], tmp_path / "out", resolution=RESOLUTION)
    file = out / "unet" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(InputError, match="is one network of a diffusers folder; give model.path the folder"):
        compvis.convert(file, tmp_path / "again", resolution=RESOLUTION)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
def test_truncated_file_is_one_line(keep, checkpoint, tmp_path):
    content = checkpoint[0].read_bytes()
    path = tmp_path / "cut.ckpt"
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(InputError, match="truncated") as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)


class Code:
    """Unpickling this would create the file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_does_not_run(zipped, tmp_path):
    victim = tmp_path / "ran"
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {"a": torch.ones(1)}, "x": Code(victim)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="asks for code .*open.*which was not run.*save its state_dict alone") as caught:
        read_state_dict(path)
    assert not victim.exists() and "\n" not in str(caught.value)


def test_the_reason_names_what_is_foreign_and_nothing_that_is_allowed(tmp_path):
    """Settings of omegaconf bring plain types along, which were once named in the place of the foreign class."""
    content = {"state_dict": {"a": torch.ones(1)}, "hyper": OmegaConf.create({"b": [1, 2]}), "x": Code(tmp_path / "ran")}
    torch.save(content | {"d": defaultdict(list, a=[int])}, tmp_path / "model.ckpt")
    with pytest.raises(InputError, match=r"asks for code \([\w.]*open\), which"):
        read_state_dict(tmp_path / "model.ckpt")


@pytest.mark.parametrize(
    "nothing", [defaultdict(dict, a={"b": 1}), argparse.Namespace(lr=0.1), OmegaConf.create({"lr": [0.1, {}]})]
)
def test_settings_beside_the_weights_are_read_over(nothing, tmp_path):
    torch.save({"state_dict": {"a": torch.ones(2)}, "hyper_parameters": nothing}, tmp_path / "model.ckpt")
    assert read_state_dict(tmp_path / "model.ckpt")["a"].tolist() == [1, 1]


@pytest.mark.parametrize("name", [n for n in STAND_INS if "lightning" in n])
def test_lightning_state_is_read_without_lightning(name, tmp_path):
    """The classes appear as dictionary keys and as objects with state."""
    module, _, leaf = name.rpartition(".")
    lightning = type(leaf, (dict,), {"__module__": module})
    path = tmp_path / "model.ckpt"
    save({"a": torch.ones(2)}, path, {"marker": "XYZ"})
    content = {
        "state_dict": {"a": torch.ones(2)},
        "callbacks": {lightning: {"best": torch.tensor(0.5)}},
        "hyper_parameters": lightning(lr=0.1),
    }
    parts = module.split(".")
    created = [".".join(parts[: i + 1]) for i in range(len(parts))]
    try:
        for each in created:
            sys.modules[each] = types.ModuleType(each)
        setattr(sys.modules[module], leaf, lightning)
        torch.save(content, path)
    finally:
        for each in created:
            sys.modules.pop(each, None)
    assert zipfile.is_zipfile(path)
    assert read_state_dict(path)["a"].tolist() == [1, 1]


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_prior, tiny_images, no_pictures):
    return runs.Place(tmp_path_factory.mktemp("checkpoints"), tiny_prior, tiny_images)


@pytest.mark.program
def test_original_file_is_refused_by_the_wrong_model_and_then_runs_with_the_right_one(checkpoint, place):
    path, _, conditional = checkpoint
    wrong, right = ("ffhq256ldm", "imagenet256ldm") if conditional else ("imagenet256ldm", "ffhq256ldm")
    overrides = (f"model.path={path}", "data.end_id=1")
    with pytest.raises(InputError, match=f"use model={right}") as caught:
        place.run(right, f"model={wrong}", *overrides)
    assert "\n" not in str(caught.value)
    folder = place.run(right, f"model={right}", *overrides)  # same name: the refused run left nothing in the way
    assert (folder / "metrics.json").is_file() and path.with_suffix(".diffusers").is_dir()


@pytest.mark.program
def test_code_in_a_checkpoint_is_one_line_from_the_command_line(place, tmp_path):
    torch.save({"state_dict": {"a": torch.ones(1)}, "x": Code(tmp_path / "ran")}, tmp_path / "evil.ckpt")
    overrides = place.all("evil", "model=ffhq256ldm", f"model.path={tmp_path / 'evil.ckpt'}")
    done = runs.command(*overrides, check=False)
    assert done.returncode == 2 and "which was not run" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and not (tmp_path / "ran").exists()
