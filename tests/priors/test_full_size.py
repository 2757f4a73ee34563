"""The ImageNet model at full size with random weights, from the original file to a result. Memory and wiring only."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tests.worlds import compvis as original
from utils.paths import PROJECT
from utils.priors import compvis

pytestmark = pytest.mark.program


def random_checkpoint(path):
    """cin256-v2 in its original layout and size; small images suffice to draw all weights."""
    unet, vq = original.Weights(0), original.Weights(1)
    z = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    context = torch.zeros(1, 1, compvis.IMAGENET_UNET["context"], dtype=torch.float64)
    with torch.no_grad():
        original.unet(
            unet,
            z,
            torch.tensor([1.0]),
            compvis.IMAGENET_UNET["block_out_channels"],
            context,
            compvis.IMAGENET_UNET["attention"],
        )
        channels = compvis.VQ_F4["block_out_channels"]
        original.vq_encode(vq, torch.zeros(1, 3, 16, 16, dtype=torch.float64), channels)
        original.vq_decode(vq, z, channels, compvis.VQ_F4["num_vq_embeddings"])
    state = {
        **{compvis.UNET + k: v for k, v in unet.items()},
        **{compvis.VQ + k: v for k, v in vq.items()},
        compvis.CLASSES: torch.zeros(1001, 512),
    }
    count = sum(v.numel() for v in state.values())
    torch.save({"state_dict": {k: v.float() for k, v in state.items()}}, path)
    return count


@pytest.mark.slow
def test_two_annealing_steps_of_the_full_imagenet_model(tmp_path):
    assert random_checkpoint(tmp_path / "model.ckpt") == 400_920_579 + 55_322_782 + 1001 * 512
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (300, 280, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images/a.jpg")
    command = [
        sys.executable,
        str(PROJECT / "posterior_sample.py"),
        "model=imagenet256ldm",
        f"model.path={tmp_path / 'model.ckpt'}",
        "data=folder",
        f"data.root={tmp_path / 'images'}",
        "num_samples=1",
        "task_group=ldm",
        "sampler.annealing_scheduler_config.num_steps=2",
        "task.ldm.mcmc_sampler_config.num_steps=1",
        f"save_dir={tmp_path}",
        "name=run",
        f"gpu={os.environ.get('FULL_SIZE_GPU', '-1')}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    phase = metrics["time"]["phases"]["sampling"]
    print(json.dumps({"time": metrics["time"]["per_step_s"], "vram": metrics["vram"], "device": metrics["metadata"]["device"]}))
    assert (phase["steps"], phase["denoiser_calls"], phase["decoder_forward_backward"]) == (2, 4, 2)
    assert metrics["diverged"] == [[False]] and metrics["psnr"]["sample"][0][0] is not None
