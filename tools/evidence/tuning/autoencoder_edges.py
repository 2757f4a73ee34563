"""Autoencoders trained with different weights of the gradient term: are their edges sharper at the same PSNR?

    for w in 0 0.1 0.3 0.5; do python tools/train_prior.py work=results/edges/$w stages=[autoencoder] autoencoder.steps=1500 \
      train_images=4000 autoencoder.gradient_weight=$w; done
    python tools/evidence/tuning/autoencoder_edges.py results/edges/*

Each FOLDER is the `work` of a training; the first one is what the others are compared with, image by image. Validation images
of both shipped families, upright, through encoder (the mean) and decoder.
"""

import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from tools.demo_prior.make_demo_data import FAMILIES, SEEDS, demo_images
from tools.demo_prior.networks import LOADING
from utils.analysis.stats import clustered_mean
from utils.evaluation.scores import gradient_error, psnr

IMAGES = 64


@torch.no_grad()
def scores(folder, x):
    """PSNR in dB and gradient error of images x (N, 3, H, W) in [-1, 1] through an autoencoder, a list of N each."""
    model = AutoencoderKL.from_pretrained(Path(folder) / "autoencoder", **LOADING).eval()
    y = torch.cat([model.decode(model.encode(part).latent_dist.mean).sample for part in x.split(16)]).clamp(-1, 1)
    return psnr(y, x).tolist(), gradient_error(y, x).tolist()


def interval(values):
    mean = clustered_mean([[v] for v in values])
    return f"{mean.value:+.4f} [{mean.low:+.4f}, {mean.high:+.4f}]"


if __name__ == "__main__":
    for family in FAMILIES:
        x = torch.from_numpy(demo_images(family, SEEDS["val"], IMAGES)).permute(0, 3, 1, 2) / 127.5 - 1
        found = {folder: scores(folder, x) for folder in sys.argv[1:]}
        first = found[sys.argv[1]]
        print(f"{family}, {IMAGES} images: PSNR (dB), gradient error; differences from {sys.argv[1]}")
        for folder, each in found.items():
            means = " ".join(f"{torch.tensor(v).mean():.4f} ± {torch.tensor(v).std():.4f}" for v in each)
            differences = (interval([a - b for a, b in zip(v, w)]) for v, w in zip(each, first))
            print(f"  {folder}: {means}; {'; '.join(differences)}")
