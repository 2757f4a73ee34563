"""diffusers is imported without what no prior needs, computes the same, and is whole for whoever asks for more."""

import json
import subprocess
import sys

import pytest
import torch

from tests.worlds import runs, tiny
from utils.paths import PROJECT
from utils.priors.latent_diffusion import load_pipeline
from utils.priors.stable_diffusion import load_pipeline as load_stable_diffusion

OTHERS = ("diffusers.models.transformers.transformer_flux", "diffusers.models.autoencoders.autoencoder_kl_wan")
HEAVY = ("transformers", "torch._dynamo", "torchvision", "scipy.stats", *OTHERS)

WATCHED_RUN = f"""
import json, runpy, sys
from utils.running import sampling
load = sampling.load_batch
def load_and_tell(*arguments):
    batch = load(*arguments)
    print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
    return batch
sampling.load_batch = load_and_tell
sys.argv = ["posterior_sample.py", *json.loads(sys.argv[1])]
runpy.run_path("posterior_sample.py", run_name="__main__")
"""
LOADED = """
import json, sys
sys.modules.setdefault("torch_xla", None)
from utils.priors import library
{before}
library.load(ours_alone={alone})
import torch
from utils.priors.{module} import load_pipeline
prior = load_pipeline(sys.argv[1], "cpu", **json.loads(sys.argv[2]))
z = torch.linspace(-1, 1, prior.latent_shape[0] * prior.latent_shape[1] ** 2).view(1, *prior.latent_shape)
values = [prior.decode(z), prior.denoise(z, torch.tensor(0.5))]
heavy = [name for name in {heavy} if name in sys.modules]
print(json.dumps({{"values": [v.double().flatten().tolist() for v in values], "heavy": heavy}}))
import diffusers, torch._dynamo, transformers
from diffusers.models.autoencoders import AutoencoderKL, AutoencoderKLWan
from diffusers.models.transformers import FluxTransformer2DModel
assert AutoencoderKL is diffusers.AutoencoderKL and AutoencoderKLWan is diffusers.AutoencoderKLWan
assert torch._dynamo.__file__ and transformers.__file__
print(json.dumps({{"pipelines": diffusers.utils.is_transformers_available()}}))
"""


def python(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=PROJECT, env=runs.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def loaded(folder, *, before="library.serve_one_run()", alone=True, module="latent_diffusion", **arguments):
    """(values of decoder and denoiser, heavy modules that were there then, whether pipelines of others work later)."""
    code = LOADED.format(before=before, alone=alone, module=module, heavy=repr(HEAVY))
    computed, later = (json.loads(line) for line in python(code, str(folder), json.dumps(arguments))[-2:])
    return computed["values"], computed["heavy"], later["pipelines"]


def values_of(prior):
    """The same values of a prior that is loaded in this process, with all of diffusers."""
    z = torch.linspace(-1, 1, prior.latent_shape[0] * prior.latent_shape[1] ** 2).view(1, *prior.latent_shape)
    return [v.double().flatten().tolist() for v in (prior.decode(z), prior.denoise(z, torch.tensor(0.5)))]


@pytest.mark.program
def test_before_its_first_pass_a_run_loads_neither_the_compiler_nor_models_of_others(tiny_prior, tiny_images, tmp_path):
    place = runs.Place(tmp_path, tiny_prior, tiny_images)
    printed = python(WATCHED_RUN, json.dumps(place.all("lean", "data.end_id=1")))
    assert [json.loads(line) for line in printed if line.startswith("[")] == [[]]


@pytest.mark.parametrize("pipeline", [tiny.kl_pipeline, tiny.vq_pipeline])
def test_what_a_prior_computes_is_the_same_and_the_rest_can_be_imported_later(pipeline, tmp_path):
    pipeline().save_pretrained(tmp_path / "prior")
    values, heavy, pipelines = loaded(tmp_path / "prior")
    assert values == values_of(load_pipeline(tmp_path / "prior", "cpu"))
    assert heavy == [] and not pipelines


def test_stable_diffusion_loads_its_text_encoder_there_too(tmp_path):
    tiny.stable_diffusion_pipeline(tmp_path / "words").save_pretrained(tmp_path / "prior")
    arguments = {"prompt": "a face", "guidance_scale": 1.5, "inner_resolution": 16, "resolution": 32}
    values, _, _ = loaded(tmp_path / "prior", module="stable_diffusion", **arguments)
    assert values == values_of(load_stable_diffusion(tmp_path / "prior", "cpu", **arguments))


@pytest.mark.parametrize(
    "more", [{"alone": False}, {"before": ""}, {"before": 'sys.modules["peft"] = sys; library.serve_one_run()'}]
)
def test_beside_parts_of_others_diffusers_knows_of_transformers(more, tiny_prior):
    values, heavy, pipelines = loaded(tiny_prior, **more)
    assert pipelines and "transformers" in heavy and not set(OTHERS) & set(heavy)


def test_a_diffusers_that_is_built_in_another_way_is_imported_whole(tiny_prior):
    before = 'library.OURS = ("models.autoencoders.elsewhere",); library.serve_one_run()'
    values, heavy, pipelines = loaded(tiny_prior, before=before)
    assert values == values_of(load_pipeline(tiny_prior, "cpu")) and pipelines and set(OTHERS) <= set(heavy)
