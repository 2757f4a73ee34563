"""In which way the particles of finished runs fail: how many of their channels are solved, and do these agree?

    python tools/evidence/tuning/failures.py results/experiments/standard_photographs/*

A channel is solved where it has SOLVED dB in its better orientation, from the pictures of the records. Per run: the failed
particles by their number of solved channels, how many have channels of both orientations (chimeras), and the images by the
number of channels that some particle has solved: those of none are beyond any exchange.
"""

import sys
from collections import Counter

import numpy as np

from utils.records.files import read_record, record_paths

SOLVED = 20.0  # dB


def channel_psnr(image, truth):
    """PSNR of each channel in dB, (C,), of images (H, W, C) in [0, 1]."""
    return -10 * np.log10(np.square(image - truth).mean((0, 1)).clip(1e-9))


def of_image(record, arrays):
    """(label, solved channels (C,), turned channels (C,)) of each particle that is there at the end."""
    truth = arrays["truth"] / 255.0
    for index, pixels in zip(record["survivors"], arrays["images"]):
        upright, turned = channel_psnr(pixels / 255.0, truth), channel_psnr(pixels / 255.0, truth[::-1, ::-1])
        label = record["modes"]["label"][record["particles"].index(index)]
        yield label, np.maximum(upright, turned) >= SOLVED, turned > upright


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        failed, chimeras, images, particles = Counter(), 0, Counter(), 0
        for path in record_paths(folder):
            found = list(of_image(*read_record(path)))
            particles += len(found)
            for label, solved, turned in found:
                if label == "failed":
                    failed[int(solved.sum())] += 1
                    chimeras += 0 < turned.sum() < len(turned)
            images[int(np.any([solved for _, solved, _ in found], axis=0).sum())] += 1
        by_channels = ", ".join(f"{n} with {k} solved channels" for k, n in sorted(failed.items()))
        by_image = ", ".join(f"{n} with {k}" for k, n in sorted(images.items()))
        print(f"{folder}: {sum(failed.values())} of {particles} particles failed: {by_channels}; {chimeras} mix orientations")
        print(f"  {sum(images.values())} images by channels that some particle has solved: {by_image}")
