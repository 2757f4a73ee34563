"""Which loss picks the better particle: that of the fit, or that of the values kept out of it. No truth in either.

    bash tools/evidence/tuning/phase_retrieval.sh scenes free_pixels
    python tools/evidence/tuning/free_pixels.py results/tuning/free_pixels_scenes/*

Both losses are in each record, so one run shows what both rules would have picked. PSNR in the better orientation.
"""

import sys

import numpy as np

from utils.analysis.stats import clustered_mean, wilcoxon
from utils.evaluation.scores import pick
from utils.records.kept import read_records


def of_image(record):
    """(PSNR picked by loss, by free loss, best by the truth, mean over particles) of one image."""
    psnr = record["modes"]["psnr_aligned"]
    known = [v for v in psnr if v is not None]
    return psnr[pick(record["loss"])], psnr[pick(record["free"]["loss"])], max(known), sum(known) / len(known)


if __name__ == "__main__":
    heads = ("pick by loss", "by free loss", "best", "mean", "free - loss [95 %] (Wilcoxon's p)", "other picks: better / worse")
    print("| run | images | " + " | ".join(heads) + " |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for folder in sys.argv[1:]:
        rows = np.array([of_image(record) for record, _ in read_records(folder)])
        gain = rows[:, 1] - rows[:, 0]
        found = clustered_mean([[float(v)] for v in gain])
        means = " | ".join(f"{mean:.2f} ± {std:.2f}" for mean, std in zip(rows.mean(0), rows.std(0, ddof=1)))
        print(
            f"| {folder} | {len(rows)} | {means} | {found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}] "
            f"({wilcoxon(gain.tolist()):.2g}) | {(gain > 0).sum()} / {(gain < 0).sum()} |"
        )
