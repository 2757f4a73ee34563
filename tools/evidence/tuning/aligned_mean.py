"""The aligned mean of finished runs' particles at several thresholds of agreement, against the truth.

    bash tools/evidence/tuning/phase_retrieval.sh scenes trust
    python tools/evidence/tuning/aligned_mean.py results/tuning/trust_scenes/*

From the pictures of the records (8 bits a channel). Per threshold: PSNR of the mean over the particles all of whose channels
agree, how many do, and the PSNR of the mean over the channels that agree, each on its own.
"""

import sys

import numpy as np
import torch

from utils.evaluation.aligned import correlation, turned_onto
from utils.evaluation.scores import psnr, rotated
from utils.records.files import read_record, record_paths

THRESHOLDS = (0.8, 0.9, 0.95, 0.97, 0.99)


def unit(pixels):
    """(..., H, W, C) uint8 -> (..., C, H, W) in [0, 1]."""
    return torch.from_numpy(pixels).movedim(-1, -3) / 255


def score(mean, truth):
    """PSNR in dB in the better orientation; both (C, H, W) in [0, 1]."""
    return psnr(2 * mean[None] - 1, 2 * torch.stack([truth, rotated(truth)]) - 1).max().item()


def of_image(record, arrays):
    """{quantity: number} of one image."""
    x, picked = unit(arrays["images"]), record["survivors"].index(record["particles"][record["selection"]["picked"]])
    aligned, truth = turned_onto(x, x[picked], "channels"), unit(arrays["truth"])
    found = {"pick": record["selection"]["psnr_aligned"], "best": max(filter(None, record["modes"]["psnr_aligned"]))}
    for threshold in THRESHOLDS:
        agrees = correlation(aligned, x[picked]) >= threshold  # (P, C)
        agrees[picked] = True
        found[f"{threshold}"] = score(aligned[agrees.all(1)].mean(0), truth)
        found[f"{threshold}: agree"] = agrees.all(1).sum().item()
        weight = agrees[..., None, None]
        found[f"{threshold}: channels"] = score((weight * aligned).sum(0) / weight.sum(0), truth)
    return found


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        rows = [of_image(*read_record(path)) for path in record_paths(folder)]
        print(f"{folder}: {len(rows)} images")
        for name in rows[0]:
            values = np.array([row[name] for row in rows])
            print(f"  {name:16} {values.mean():6.2f} ± {values.std(ddof=1):.2f}")
        gain = [[row["0.95"] - row[name] for row in rows] for name in ("best", "pick")]
        print("  0.95 over best and pick:", *(f"{np.mean(g):+.2f} ± {np.std(g, ddof=1):.2f}" for g in gain))
