"""The shipped priors and the main job on them: no figure here is better than what docs/research/measured/ reports."""

import json

import numpy as np
import pytest
import torch

import posterior_sample
from tools.demo_prior.make_demo_data import FAMILIES
from utils.data import TestImage
from utils.evaluation.scores import rotated
from utils.metrics.psnr import psnr
from utils.paths import PROJECT
from utils.records.files import read_record


@pytest.mark.heavy
@pytest.mark.parametrize("family", FAMILIES)
def test_the_autoencoder_keeps_the_test_images_in_both_orientations(family):
    from utils.priors.latent_diffusion import load_pipeline

    prior = load_pipeline(PROJECT / "checkpoints" / f"demo-{family}", torch.device("cpu"))
    files = sorted((PROJECT / "dataset" / f"demo-{family}").glob("*.png"))
    upright = torch.stack([torch.from_numpy(TestImage(i, f).pixels(64)) for i, f in enumerate(files)])
    for x in (upright, rotated(upright)):
        with torch.no_grad():
            z = prior.encode(x)
            values = torch.cat([psnr(prior.decode(zi[None]), xi) for zi, xi in zip(z, x)])
        assert values.mean() >= 32 and values.min() >= 28
        assert 0.8 < z.std() < 1.2  # unit variance: what the noise levels are made for


def test_the_weights_stay_small():
    files = [f for family in FAMILIES for f in (PROJECT / "checkpoints" / f"demo-{family}").rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 25e6
    natural = [f for f in (PROJECT / "checkpoints" / "natural-32").rglob("*") if f.is_file()]
    assert 0 < sum(f.stat().st_size for f in natural) <= 12e6


@pytest.mark.program
def test_experiment_0_on_the_first_two_faces(composed, tmp_path):
    """Of two particles one is above 20 dB, on both; the passes are those of the formula."""
    cfg = composed("data.end_id=2", "num_samples=2", "batch_images=2", f"save_dir={tmp_path}", "name=faces")
    posterior_sample.run(cfg)
    metrics = json.loads((tmp_path / "faces" / "metrics.json").read_text())
    assert all(max(row) > 20 for row in metrics["psnr"]["sample"])
    inner = cfg.task[cfg.task_group].mcmc_sampler_config.num_steps
    assert metrics["time"]["phases"]["sampling"]["decoder_forward_backward"] == 50 * inner


@pytest.mark.program
def test_single_particles_stay_near_their_place_in_the_batch(composed, tmp_path):
    """Float32 passes of another size drift apart slowly: after 5 steps the pictures still agree."""
    short = (
        "data.end_id=1",
        f"save_dir={tmp_path}",
        "sampler.annealing_scheduler_config.num_steps=5",
        "task.demo_langevin.mcmc_sampler_config.num_steps=2",
    )
    posterior_sample.run(composed(*short, "name=four"))
    posterior_sample.run(composed(*short, "name=one", "num_samples=1", "first_particle=2"))
    four, one = (read_record(tmp_path / name / "records" / "00000.npz")[1]["z"] for name in ("four", "one"))
    np.testing.assert_allclose(one[0], four[2], atol=0.02)
    assert np.abs(four[0] - four[2]).max() > 0.5
