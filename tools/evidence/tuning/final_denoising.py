"""What one more denoising of the final latents changes, by its noise level, from finished runs.

    python tools/evidence/tuning/final_denoising.py results/tuning/turns_scenes/20x4 [--sigmas 0.05 0.1 0.15 0.2 0.3]

Run folders of population=fixed, unpruned and on validation images, with latents that were handed out as they were
(diffusion_scheduler_config.final_sigma=0). Per level, over all particles: PSNR in the better orientation minus that
without, its mean over images with the standard error, and the median; of the label-free pick, by the loss after it;
and the median deviation of the loss from its floor, in standard deviations of the noise's loss.
"""

from pathlib import Path

import numpy as np
import torch

from tools.calibrate_certificate import as_result, settings_of
from utils.analysis import runs
from utils.command_line import Parser, run
from utils.data import select_images
from utils.errors import InputError
from utils.evaluation.scores import mode_labels
from utils.running.build import build


def main():
    parser = Parser(prog="final_denoising.py", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.05, 0.1, 0.15, 0.2, 0.3], metavar="SIGMA")
    args = parser.parse_args()
    if min(args.sigmas) <= 0:
        raise InputError(f"sigmas={args.sigmas}: must be above 0")
    print("| run | level | all particles (dB) | median | label-free pick (dB) | deviation |\n|---|---:|---:|---:|---:|---:|")
    for folder in args.runs:
        report(runs.load(folder), args.sigmas)


def report(finished, sigmas):
    """The rows of one run."""
    settings = settings_of(finished)
    if settings.sampler.diffusion_scheduler_config.final_sigma:
        raise InputError(f"{finished.folder}: its latents are denoised already; name a run with final_sigma=0")
    parts, psnr, deviation = build(settings, tried=False), [], []
    items = {item.id: item for item in select_images(settings)}
    for record, arrays in finished.records():
        quality, off = of_image(parts, settings, record, arrays, items[record["image_id"]], sigmas)
        psnr.append(quality)
        deviation.append(off)
    own, off = np.stack(psnr), np.stack(deviation)  # (images, 1 + levels, n)
    gain = own[:, 1:] - own[:, :1]
    picked = np.take_along_axis(own, off.argmin(2, keepdims=True), 2)[..., 0]  # (images, 1 + levels)
    median = np.median(off, (0, 2))
    print(f"| {finished.folder}, {len(own)} images | 0 | | | {picked[:, 0].mean():.2f} | {median[0]:+.1f} |")
    for i, sigma in enumerate(sigmas):
        of_images, more = gain[:, i].mean(1), picked[:, i + 1] - picked[:, 0]
        print(
            f"| | {sigma:g} | {mean(of_images)} | {np.median(gain[:, i]):+.2f} | {mean(more)} | {median[i + 1]:+.1f} |",
        )


def of_image(parts, settings, record, arrays, item, sigmas):
    """(1 + levels, n) PSNR in the better orientation, and the deviation of the loss, as handed out and per level."""
    result, prior = as_result(parts, settings, [(record, arrays)]), parts.prior
    truth = torch.from_numpy(item.pixels(settings.data.resolution)).to(result.image)
    quality, off = [], []
    with torch.no_grad():
        z = result.particles.z
        for image in [result.image, *(prior.decode(prior.denoise(z, z.new_tensor(sigma))) for sigma in sigmas)]:
            loss = parts.operator.loss(image, result.particles.y)
            off.append(((loss - record["noise_floor"]) / record["floor_std"]).tolist())
            quality.append(mode_labels(image, truth, settings.success.threshold_db, settings.success.margin_db)["psnr_aligned"])
    return np.array(quality), np.array(off)


def mean(values):
    return f"{values.mean():+.2f} ± {values.std(ddof=1) / len(values) ** 0.5:.2f}"


if __name__ == "__main__":
    run(main)
