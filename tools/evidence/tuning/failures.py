"""In which way the particles of finished runs fail: how many of their channels are solved, and do these agree?

    python tools/evidence/tuning/failures.py results/experiments/standard_photographs/*

A channel is solved where it has SOLVED dB in its better orientation, from the pictures of the records. Per run: the failed
particles by their number of solved channels, how many have channels of both orientations (chimeras), and the images by the
number of channels that some particle has solved: those of none are beyond any exchange. And the unsolved channels of failed
particles as a x + b turned x (least squares, means removed): how many of them are half explained by that or more, and how many
of these are twins, an image over its own rotation, with both parts at TWIN or more.
"""

import sys
from collections import Counter

import numpy as np

from utils.records.files import read_record, record_paths

SOLVED = 20.0  # dB
EXPLAINED = 0.5  # of a channel's variance
TWIN = 0.25  # of the truth's contrast


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


def mixture(image, truth):
    """(explained share (C,), smaller coefficient (C,)) of each channel of image (H, W, C) as a truth + b turned truth."""
    parts = [x - x.mean((0, 1)) for x in (image, truth, truth[::-1, ::-1])]
    y, x, turned = (part.reshape(-1, part.shape[2]).T for part in parts)  # (C, H W)
    basis = np.stack([x, turned], axis=2)  # (C, H W, 2)
    coefficients = np.linalg.pinv(basis) @ y[..., None]  # (C, 2, 1)
    rest = np.square(y - (basis @ coefficients)[..., 0]).sum(1)
    return 1 - rest / np.square(y).sum(1).clip(1e-9), coefficients[..., 0].min(1)


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        failed, chimeras, images, particles, unsolved = Counter(), 0, Counter(), 0, []
        for path in record_paths(folder):
            record, arrays = read_record(path)
            found = list(of_image(record, arrays))
            particles += len(found)
            for (label, solved, turned), pixels in zip(found, arrays["images"]):
                if label == "failed":
                    explained, smaller = mixture(pixels / 255.0, arrays["truth"] / 255.0)
                    unsolved += [(e >= EXPLAINED, s >= TWIN) for e, s in zip(explained[~solved], smaller[~solved])]
                    failed[int(solved.sum())] += 1
                    chimeras += 0 < turned.sum() < len(turned)
            images[int(np.any([solved for _, solved, _ in found], axis=0).sum())] += 1
        by_channels = ", ".join(f"{n} with {k} solved channels" for k, n in sorted(failed.items()))
        by_image = ", ".join(f"{n} with {k}" for k, n in sorted(images.items()))
        print(f"{folder}: {sum(failed.values())} of {particles} particles failed: {by_channels}; {chimeras} mix orientations")
        print(f"  {sum(images.values())} images by channels that some particle has solved: {by_image}")
        half, twins = sum(e for e, _ in unsolved), sum(e and twin for e, twin in unsolved)
        print(f"  {len(unsolved)} channels unsolved: {half} half explained by truth and rotation, {twins} of these twins")
