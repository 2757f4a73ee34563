"""Loading priors: diffusers folders, hub ids in a cache, Stable Diffusion; and the lines that wrong ones end in."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from tests.worlds import tiny as tiny_priors
from utils.config.model import check_model
from utils.config.sections import Model
from utils.errors import InputError
from utils.priors import latent_diffusion
from utils.priors.timesteps import ContinuousBetas
from utils.weights import is_hub_id, snapshot


def model_settings(path, target="utils.priors.latent_diffusion.load_pipeline", **more):
    return Model.model_validate(
        {"_target_": target, "path": str(path), "timestep_map": "trained", "resolution": 32, "source": "the source", **more}
    )


@pytest.fixture(scope="module")
def ldm_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ldm") / "pipeline"
    tiny_priors.vq_pipeline().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_denoiser_inverts_the_noising_that_the_network_predicts(prediction_type, tmp_path):
    """With x_t = a z0 + s eps: the network's epsilon or v determines z0, here checked in the scheduler's own formula."""
    pipeline = tiny_priors.vq_pipeline(prediction_type=prediction_type)
    pipeline.save_pretrained(tmp_path / "p")
    prior = latent_diffusion.load_pipeline(tmp_path / "p", "cpu", resolution=32)
    z = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    t = 400
    alpha = pipeline.scheduler.alphas_cumprod[t]
    sigma = ((1 - alpha) / alpha).sqrt()
    x_t = z * alpha.sqrt()
    wanted = pipeline.scheduler
    wanted.set_timesteps(1000)
    expected = wanted.step(pipeline.unet(x_t, t).sample, t, x_t).pred_original_sample
    # the timestep is interpolated in float32, so it is 400 to 1e-3 of a step
    torch.testing.assert_close(prior.denoise(z, sigma).clamp(-1, 1), expected, rtol=1e-3, atol=1e-3)


def test_folder_of_an_ldm_pipeline_loads_as_it_was_saved(ldm_folder):
    saved = tiny_priors.vq_pipeline()
    prior = latent_diffusion.load_pipeline(ldm_folder, "cpu", resolution=32)
    check_model(model_settings(ldm_folder))
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z = prior.encode(x)
    assert z.shape == (2, *prior.latent_shape) == (2, 3, 8, 8) and prior.resolution == 32
    torch.testing.assert_close(z, saved.vqvae.encode(x).latents * saved.vqvae.config.scaling_factor)
    torch.testing.assert_close(prior.decode(z), saved.vqvae.decode(z / saved.vqvae.config.scaling_factor).sample)


def test_decoder_is_differentiable_through_the_quantiser(ldm_folder):
    prior = latent_diffusion.load_pipeline(ldm_folder, "cpu", resolution=32)
    z = torch.randn(1, 3, 8, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(prior.decode(z).square().sum(), z)
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0


@pytest.mark.parametrize(
    "damage, word",
    [
        (lambda f: shutil.rmtree(f / "unet"), "unet/config.json not found"),
        (lambda f: [w.unlink() for w in (f / "unet").glob("*.safetensors")], "no weights"),
        (lambda f: (f / "unet/config.json").write_text("{"), "damaged"),
        (lambda f: shutil.rmtree(f), "not found; get it from: the source"),
    ],
)
def test_incomplete_folders_are_one_line_before_torch_is_needed(damage, word, ldm_folder, tmp_path):
    folder = shutil.copytree(ldm_folder, tmp_path / "copy")
    damage(folder)
    with pytest.raises(InputError, match=word) as caught:
        check_model(model_settings(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, word",
    [
        ("model.bin", "a kind that is not read; a checkpoint ends in .ckpt"),
        ("set/model.CKPT", "holds model.CKPT; give that file"),
    ],
)
def test_a_file_in_the_wrong_place_says_so(name, word, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=word):
        check_model(model_settings(tmp_path / name if "/" not in name else tmp_path / "set"))


STORED = [
    {"variant": "fp16", "max_shard_size": "100KB"},
    {"max_shard_size": "100KB"},
    {"safe_serialization": False},
    {"safe_serialization": False, "max_shard_size": "100KB"},
    {"safe_serialization": False, "variant": "fp16", "max_shard_size": "100KB"},
    {"variant": "ema"},
    {"variant": "non_ema", "safe_serialization": False},
]


@pytest.mark.parametrize("stored", STORED)
def test_every_way_in_which_diffusers_stores_a_prior_is_read(stored, ldm_folder, tmp_path):
    pipeline = tiny_priors.vq_pipeline()
    shutil.copytree(ldm_folder, tmp_path / "p")
    for part in ("vqvae", "unet"):
        for file in (tmp_path / "p" / part).glob("*.safetensors"):
            file.unlink()
        getattr(pipeline, part).save_pretrained(tmp_path / "p" / part, **stored)
    check_model(model_settings(tmp_path / "p"))
    prior = latent_diffusion.load_pipeline(tmp_path / "p", "cpu", resolution=32)
    for own, theirs in ((prior.unet, pipeline.unet), (prior.autoencoder, pipeline.vqvae)):
        weights = theirs.state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in own.state_dict().items())


def test_a_pickle_in_a_shard_runs_nothing(ldm_folder, tmp_path):
    shutil.copytree(ldm_folder, tmp_path / "p")
    folder = tmp_path / "p" / "unet"
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    tiny_priors.vq_pipeline().unet.save_pretrained(folder, safe_serialization=False, max_shard_size="100KB")

    class Runs:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"conv_in.weight": Runs()}, sorted(folder.glob("*.bin"))[0])
    with pytest.raises(InputError) as caught:
        latent_diffusion.load_pipeline(tmp_path / "p", "cpu", resolution=32)
    assert "\n" not in str(caught.value) and not (tmp_path / "ran").exists()


def test_variants_of_which_none_is_the_plain_one_are_named(ldm_folder, tmp_path):
    shutil.copytree(ldm_folder, tmp_path / "p")
    file = tmp_path / "p/unet/diffusion_pytorch_model.safetensors"
    for variant in ("ema", "non_ema"):
        shutil.copy(file, file.with_name(f"diffusion_pytorch_model.{variant}.safetensors"))
    check_model(model_settings(tmp_path / "p"))  # the plain one is there
    file.unlink()
    with pytest.raises(InputError, match="unet holds the variants ema and non_ema; keep the files of one$"):
        check_model(model_settings(tmp_path / "p"))


@pytest.mark.parametrize("size, resolution", [([8, 8], 32), ([8, 8], None), (None, 32), (None, 64)])
def test_a_sample_size_as_a_pair_or_null_is_read(size, resolution, ldm_folder, tmp_path):
    prior = latent_diffusion.load_pipeline(sized(ldm_folder, tmp_path, size), "cpu", resolution=resolution)
    resolution = resolution or 32
    assert prior.resolution == resolution and prior.latent_shape[1:] == (resolution // 4,) * 2
    check_model(model_settings(tmp_path / "p", resolution=resolution))


SQUARE, NUMBER = "only squares are supported", "config.json: sample_size"


@pytest.mark.parametrize(
    "size, told", [([16, 8], SQUARE), ([16], SQUARE), ("16", NUMBER), (0, NUMBER), (True, NUMBER)], ids=lambda value: str(value)
)
def test_a_sample_size_that_is_no_square_is_one_line(size, told, ldm_folder, tmp_path):
    folder = sized(ldm_folder, tmp_path, size)
    for load in (lambda: check_model(model_settings(folder)), lambda: latent_diffusion.load_pipeline(folder, "cpu")):
        with pytest.raises(InputError, match=told):
            load()


def test_a_sample_size_of_null_needs_a_resolution(ldm_folder, tmp_path):
    with pytest.raises(InputError, match="says no sample_size; say model.resolution"):
        latent_diffusion.load_pipeline(sized(ldm_folder, tmp_path, None), "cpu")


def sized(folder, tmp_path, size):
    """A copy of a prior's folder whose UNet has another sample_size."""
    copy = shutil.copytree(folder, tmp_path / "p")
    config = json.loads((copy / "unet/config.json").read_text())
    (copy / "unet/config.json").write_text(json.dumps(config | {"sample_size": size}))
    return copy


def test_a_folder_of_half_precision_alone_is_read_in_single(tmp_path):
    pipeline = tiny_priors.vq_pipeline()
    pipeline.vqvae.half(), pipeline.unet.half()
    pipeline.save_pretrained(tmp_path / "half", variant="fp16")
    assert not list((tmp_path / "half" / "unet").glob("diffusion_pytorch_model.safetensors"))
    check_model(model_settings(tmp_path / "half"))
    prior = latent_diffusion.load_pipeline(tmp_path / "half", "cpu", resolution=32)
    assert {p.dtype for p in (*prior.unet.parameters(), *prior.autoencoder.parameters())} == {torch.float32}
    assert torch.equal(prior.unet.conv_in.weight, pipeline.unet.conv_in.weight.float())


def test_truncated_weights_are_one_line(ldm_folder, tmp_path):
    folder = shutil.copytree(ldm_folder, tmp_path / "copy")
    weights = next((folder / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        latent_diffusion.load_pipeline(folder, "cpu", resolution=32)
    assert "\n" not in str(caught.value)


def leave_out(folder, name):
    """A folder as an older library wrote it, or a hand: without the property "file/key"; its value."""
    file, key = folder / name.rsplit("/", 1)[0], name.rsplit("/", 1)[1]
    config = json.loads(file.read_text())
    value = config.pop(key)
    file.write_text(json.dumps(config))
    return value


@pytest.mark.parametrize(
    "name", ["vqvae/config.json/scaling_factor", "scheduler/scheduler_config.json/prediction_type"], ids=lambda name: name[-15:]
)
def test_a_property_that_the_folder_does_not_say_is_asked_for_and_taken_from_the_model(name, tmp_path):
    folder, key = tmp_path / "pipeline", name.rpartition("/")[2]
    saved = tiny_priors.vq_pipeline("v_prediction")  # neither property is at the library's default
    saved.save_pretrained(folder)
    whole = latent_diffusion.load_pipeline(folder, "cpu", resolution=32)
    value = leave_out(folder, name)
    for attempt in (
        lambda: check_model(model_settings(folder)),
        lambda: latent_diffusion.load_pipeline(folder, "cpu", resolution=32),
    ):
        with pytest.raises(
            InputError, match=rf"model.path={folder}: .*json has no {key}; write it there or give \+model.{key}=, "
        ) as caught:
            attempt()
        assert "\n" not in str(caught.value)
    check_model(model_settings(folder, **{key: value}))
    prior = latent_diffusion.load_pipeline(folder, "cpu", resolution=32, **{key: value})
    z, sigma = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor(1.0)
    assert torch.equal(prior.decode(z), whole.decode(z)) and torch.equal(prior.denoise(z, sigma), whole.denoise(z, sigma))


def test_a_property_that_folder_and_model_say_differently_is_one_line(ldm_folder):
    with pytest.raises(
        InputError, match="model.scaling_factor=0.5: .*vqvae/config.json says 1.0; say model.scaling_factor=null"
    ):
        check_model(model_settings(ldm_folder, scaling_factor=0.5))


@pytest.mark.parametrize(
    "name",
    [
        *(
            f"scheduler/scheduler_config.json/{key}"
            for key in ("beta_schedule", "beta_start", "beta_end", "num_train_timesteps")
        ),
        *(f"unet/config.json/{key}" for key in ("attention_head_dim", "norm_num_groups")),
    ],
)
def test_a_property_that_no_key_gives_is_to_be_written_into_the_folder(name, ldm_folder, tmp_path):
    folder = shutil.copytree(ldm_folder, tmp_path / "copy")
    leave_out(folder, name)
    file, _, key = name.rpartition("/")
    with pytest.raises(InputError, match=f"{folder / file} has no {key}; write it there"):
        check_model(model_settings(folder))


def published_folder(folder):
    """CompVis/ldm-celebahq-256 in small: its configs say neither the scaling factor nor what the network predicts."""
    tiny_priors.vq_pipeline().save_pretrained(folder)
    leave_out(folder, "vqvae/config.json/scaling_factor")
    leave_out(folder, "scheduler/scheduler_config.json/prediction_type")
    return folder


def test_the_published_celebahq_folder_is_whole_with_its_own_model(composed, tmp_path):
    folder = published_folder(tmp_path / "published")
    node = dict(composed("model=celebahq256ldm", f"model.path={folder}", "model.resolution=32").model)
    check_model(Model.model_validate(node))
    prior = latent_diffusion.load_pipeline(
        folder, "cpu", resolution=32, scaling_factor=node["scaling_factor"], prediction_type=node["prediction_type"]
    )
    assert (prior.scaling_factor, prior.prediction_type) == (1.0, "epsilon")


def without_first(tensors):
    del tensors[min(tensors)]


DAMAGED_WEIGHTS = {
    "missing": without_first,
    "unexpected": lambda tensors: tensors.update(foreign=torch.zeros(1)),
    "wrongly shaped": lambda tensors: tensors.update({min(tensors): torch.zeros(7)}),
}


@pytest.mark.parametrize("part", ["vqvae", "unet"])
@pytest.mark.parametrize("problem", DAMAGED_WEIGHTS)
def test_weights_that_are_not_the_networks_own_are_one_line(problem, part, ldm_folder, tmp_path):
    folder = shutil.copytree(ldm_folder, tmp_path / "copy")
    damage_weights(folder / part, problem)
    with pytest.raises(InputError, match=f"model.path={folder}: {problem} keys in the {part}, .*: ") as caught:
        latent_diffusion.load_pipeline(folder, "cpu", resolution=32)
    assert "\n" not in str(caught.value)


def test_a_class_embedding_of_another_name_is_one_line(tmp_path):
    save_file({"embedding": torch.zeros(2, 4)}, tmp_path / "class_embedding.safetensors")
    with pytest.raises(InputError, match="missing keys in the class embedding, .*: weight"):
        latent_diffusion.class_context(tmp_path, 0)


def damage_weights(folder, problem):
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    DAMAGED_WEIGHTS[problem](tensors)
    save_file(tensors, file, {"format": "pt"})


def test_resolution_that_the_prior_cannot_take_names_the_right_one(ldm_folder):
    with pytest.raises(InputError, match="model.resolution=36.*trained at 32 pixels.*only multiples of"):
        check_model(model_settings(ldm_folder, resolution=36))
    with pytest.raises(InputError, match="model.resolution=36.*draws only multiples of"):
        latent_diffusion.load_pipeline(ldm_folder, "cpu", resolution=36)


def test_a_prior_draws_another_size_than_it_was_trained_at_and_says_so(ldm_folder, caplog):
    check_model(model_settings(ldm_folder, resolution=64))
    with caplog.at_level("INFO", logger="latentdaps"):
        prior = latent_diffusion.load_pipeline(ldm_folder, "cpu", resolution=64)
    assert f"model.resolution=64: the prior in {ldm_folder} was trained at 32 pixels" in caplog.text
    trained = latent_diffusion.load_pipeline(ldm_folder, "cpu", resolution=32)
    assert (prior.resolution, prior.latent_shape[1]) == (64, 2 * trained.latent_shape[1])
    x = prior.decode(torch.zeros(1, *prior.latent_shape))
    assert x.shape == (1, 3, 64, 64) and prior.encode(x).shape == (1, *prior.latent_shape)
    assert prior.denoise(torch.zeros(1, *prior.latent_shape), torch.tensor(1.0)).shape == (1, *prior.latent_shape)


def test_averaged_weights_of_a_folder_that_has_none_are_refused(ldm_folder):
    with pytest.raises(InputError, match="model.weights=ema"):
        check_model(model_settings(ldm_folder, weights="ema"))


def test_unknown_prediction_type_is_one_line(ldm_folder, tmp_path):
    folder = shutil.copytree(ldm_folder, tmp_path / "copy")
    config = folder / "scheduler/scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "prediction_type": "sample"}))
    with pytest.raises(InputError, match="prediction_type=sample"):
        latent_diffusion.load_pipeline(folder, "cpu", resolution=32)


@pytest.mark.parametrize(
    "path, hub",
    [
        ("CompVis/ldm-celebahq-256", True),
        ("stabilityai/stable-diffusion-2-1", True),
        ("checkpoints/ldm_ffhq256", False),
        ("./a/b", False),
        ("/a/b", False),
        ("a/b/c", False),
        ("models/x.ckpt", False),
        ("utils/priors", False),
    ],
)
def test_hub_ids_are_told_from_paths(path, hub):
    assert is_hub_id(path) == hub


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache and no network, as the hub's client sees them."""
    import huggingface_hub.constants
    from huggingface_hub import snapshot_download

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    import huggingface_hub

    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *a, **k: snapshot_download(*a, **{"cache_dir": str(tmp_path / "hub"), **k})
    )
    return tmp_path / "hub"


def test_a_hub_id_has_no_other_weights(hub_cache):
    with pytest.raises(
        InputError, match=r"^model\.weights=ema: CompVis/ldm-celebahq-256 has one kind of weights; leave it out$"
    ):
        check_model(model_settings("CompVis/ldm-celebahq-256", weights="ema"))


def test_hub_id_that_is_not_cached_offline_is_one_line(hub_cache):
    for attempt in (
        lambda: check_model(model_settings("CompVis/ldm-celebahq-256")),
        lambda: snapshot("CompVis/ldm-celebahq-256"),
    ):
        with pytest.raises(InputError, match="not in the cache .*hub.*HF_HOME.*hf download CompVis") as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_cached_hub_id_loads_without_a_network(hub_cache, ldm_folder):
    repository = hub_cache / "models--CompVis--ldm-celebahq-256"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(ldm_folder, repository / "snapshots" / ("0" * 40))
    check_model(model_settings("CompVis/ldm-celebahq-256"))
    prior = latent_diffusion.load_pipeline("CompVis/ldm-celebahq-256", "cpu", resolution=32)
    assert prior.resolution == 32


# Stable Diffusion

SD = "utils.priors.stable_diffusion.load_pipeline"
PROMPT = dict(prompt="a cat", guidance_scale=3.0, inner_resolution=64)


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def stable(request, tmp_path_factory):
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("sd")
    pipeline = tiny_priors.stable_diffusion_pipeline(folder / "words", request.param)
    pipeline.save_pretrained(folder / "pipeline")
    return SimpleNamespace(folder=folder / "pipeline", pipeline=pipeline, prediction_type=request.param)


def load_stable(stable, **changes):
    from utils.priors.stable_diffusion import load_pipeline

    return load_pipeline(stable.folder, "cpu", resolution=32, **{**PROMPT, **changes})


@pytest.mark.heavy
def test_stable_diffusion_denoises_as_guidance_says(stable):
    """Against the pipeline's own prompt encoder and scheduler: guided output u + g (c - u), then z0 of the scheduler."""
    check_model(model_settings(stable.folder, SD, **PROMPT))
    pipeline, t = stable.pipeline, 400
    with_prompt, without = pipeline.encode_prompt(PROMPT["prompt"], "cpu", 1, True)
    alpha = pipeline.scheduler.alphas_cumprod[t]
    z = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    x_t = z * alpha.sqrt()
    c, u = (pipeline.unet(x_t, t, encoder_hidden_states=e.expand(2, -1, -1)).sample for e in (with_prompt, without))
    output = u + PROMPT["guidance_scale"] * (c - u)
    assert (c - u).abs().max() > 1e-4  # else the prompt would not matter
    if stable.prediction_type == "epsilon":
        expected = (x_t - (1 - alpha).sqrt() * output) / alpha.sqrt()
    else:
        expected = alpha.sqrt() * x_t - (1 - alpha).sqrt() * output
    sigma = ((1 - alpha) / alpha).sqrt()
    torch.testing.assert_close(load_stable(stable).denoise(z, sigma), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.heavy
def test_official_timesteps_are_those_that_daps_gives_stable_diffusion(stable):
    """1000 times the inverse of a cubic, for betas sqrt-linear from 0.00085 to 0.012, as published."""
    sigma = torch.tensor([10.0, 4.918, 2.232, 0.916, 0.330, 0.11378], dtype=torch.float64)
    official = load_stable(stable, timestep_map="official").timestep_map(sigma)
    assert official.tolist() == pytest.approx([936, 793, 595, 329, 95, 15], abs=0.6)
    trained = load_stable(stable).timestep_map(sigma)
    assert trained.tolist() == pytest.approx([934, 792, 593, 328, 94, 14], abs=0.6)


def test_official_timesteps_of_latent_diffusion_are_those_of_linear_betas(ldm_folder):
    prior = latent_diffusion.load_pipeline(ldm_folder, "cpu", resolution=32, timestep_map="official")
    sigma = torch.tensor([10.0, 4.918, 2.232, 0.916, 0.330, 0.11378], dtype=torch.float64)
    assert prior.timestep_map(sigma).tolist() == pytest.approx([675, 564, 419, 242, 97, 31], abs=0.6)


def test_schedule_for_which_daps_has_no_timesteps_is_one_line():
    with pytest.raises(InputError, match="beta_schedule=squaredcos_cap_v2.*use model.timestep_map=trained"):
        ContinuousBetas(SimpleNamespace(beta_schedule="squaredcos_cap_v2", num_train_timesteps=1000))


def test_stable_diffusion_of_half_precision_alone_is_read(stable, tmp_path):
    from utils.priors.stable_diffusion import embed_prompts

    words = tiny_priors.stable_diffusion_pipeline(tmp_path / "words", stable.prediction_type)
    words.to(dtype=torch.float16).save_pretrained(tmp_path / "half", variant="fp16")
    check_model(model_settings(tmp_path / "half", SD, **PROMPT))
    half, single = (embed_prompts(folder, ["a"]) for folder in (tmp_path / "half", stable.folder))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, single, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("problem", DAMAGED_WEIGHTS)
def test_weights_that_are_not_the_text_encoders_own_are_one_line(problem, stable, tmp_path, caplog):
    from utils.priors.stable_diffusion import embed_prompts

    folder = shutil.copytree(stable.folder, tmp_path / "copy")
    damage_weights(folder / "text_encoder", problem)
    with pytest.raises(InputError, match=f"model.path={folder}: {problem} keys in the text_encoder") as caught:
        embed_prompts(folder, ["a"])
    assert "\n" not in str(caught.value)
    assert "LOAD REPORT" not in caplog.text


@pytest.mark.heavy
def test_guidance_of_one_is_the_prompt_alone_in_one_pass(stable):
    prior, guided = load_stable(stable, guidance_scale=1.0), load_stable(stable, guidance_scale=1.0 + 1e-7)
    calls = []
    handle = prior.unet.register_forward_hook(lambda m, args, out: calls.append(len(args[0])))
    z, sigma = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor(1.0)
    torch.testing.assert_close(prior.denoise(z, sigma), guided.denoise(z, sigma), rtol=1e-4, atol=1e-4)
    handle.remove()
    assert calls == [2]


def test_inner_and_target_resolution(stable):
    prior = load_stable(stable)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z = prior.encode(x)
    assert z.shape == (2, *prior.latent_shape) == (2, 4, 8, 8)
    decoded = prior.decode(z)
    assert decoded.shape == (2, 3, 32, 32) and decoded.dtype == torch.float32
    vae, scale = stable.pipeline.vae, stable.pipeline.vae.config.scaling_factor
    torch.testing.assert_close(decoded, F.interpolate(vae.decode(z / scale).sample, size=32, mode="bilinear"))


def test_prompt_is_embedded_once(stable, monkeypatch):
    from utils.priors import stable_diffusion

    count = []
    embed = stable_diffusion.embed_prompts
    monkeypatch.setattr(stable_diffusion, "embed_prompts", lambda *a: count.append(1) or embed(*a))
    prior = load_stable(stable)
    for _ in range(3):
        prior.denoise(torch.randn(1, 4, 8, 8), torch.tensor(1.0))
    assert count == [1]


@pytest.mark.heavy
def test_reduced_precision_keeps_latents_in_single(stable):
    prior, exact = load_stable(stable, network_dtype="bfloat16"), load_stable(stable)
    assert next(prior.unet.parameters()).dtype == torch.bfloat16
    z, sigma = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5)
    denoised = prior.denoise(z, sigma)
    assert denoised.dtype == prior.decode(z).dtype == torch.float32
    torch.testing.assert_close(denoised, exact.denoise(z, sigma), rtol=0.1, atol=0.1)  # bfloat16 has 8 bits


def test_stable_diffusion_and_latent_diffusion_folders_are_not_mixed_up(stable, ldm_folder):
    with pytest.raises(InputError, match="use model=stable-diffusion"):
        check_model(model_settings(stable.folder))
    with pytest.raises(InputError, match="not found|takes no prompt"):
        check_model(model_settings(ldm_folder, SD, **PROMPT))


@pytest.mark.parametrize("change, word", [({"prompt": None}, "model.prompt"), ({"inner_resolution": 60}, "multiples of")])
def test_wrong_stable_diffusion_settings_are_one_line(change, word, stable):
    with pytest.raises(InputError, match=word):
        check_model(model_settings(stable.folder, SD, **{**PROMPT, **change}))


def test_stable_diffusion_without_transformers_names_the_extra(monkeypatch, ldm_folder):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"\[sd\]"):
        check_model(model_settings(ldm_folder, SD, **PROMPT))
