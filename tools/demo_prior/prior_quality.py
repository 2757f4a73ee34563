"""How good a prior is, as numbers beside the eye: unconditional samples, autoencoder, decoder time. Offline.

    python tools/prior_quality.py --out evidence/prior_quality.json           # both shipped priors, minutes on one core
    python tools/prior_quality.py checkpoints/demo-scenes --count 1000 --sheet scenes.png
    python tools/prior_quality.py checkpoints/natural-32 --images PHOTOGRAPHS --resolution 64    # at another size than trained
    python tools/prior_quality.py checkpoints/own --images results/train_prior/own/held_out    # against a folder's images

Samples against images that the prior was not trained on, by the Frechet distance of their latents' statistics. Both sides
are latents (samples as they are, images encoded) and both pass through decoder and encoder once more. Features of a
latent: its channels average-pooled to 4 x 4, and per channel the log mean energy of two bands of detail (what the
first and the second 2 x 2 pooling remove), each feature divided by its standard deviation over the images. The floor
is the distance between two disjoint sets of as many images. `layout` and `detail` are the distances of the pooled values
and of the log energies alone. Where the prior was trained on rotated images
(configs/train_prior.yaml), the family's images are rotated with the same probability.

The distance depends on the number of samples, so compare only rows with the same one. Mean and standard deviation are
over random divisions of 2 N images into the two sets; the samples stay the same. Source of the distance: Heusel et
al., arXiv 1706.08500, equation 6; there on Inception features.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tools.demo_prior.real_images import FEWEST_SAMPLES, SEED, Family, Folder
from utils.command_line import Parser, write_text
from utils.errors import InputError, visible

if TYPE_CHECKING:
    import torch

    from utils.priors.latent_diffusion import LatentDiffusionPrior


PRIORS = ("checkpoints/demo-faces", "checkpoints/demo-scenes")
BATCH = 50
STEPS = 30  # of the solver, one network call each
POOLED = 16  # values of a channel that say where things are; the others say how sharp they are
DIVISIONS = 20
DENOISED = (0.3, 0.6, 1.2)  # noise levels of the denoising loss
TIMED_BATCH, TIMED_PASSES = 4, 30


def main() -> None:
    parser = Parser(prog="prior_quality.py", description="Measure priors.")
    parser.add_argument(
        "priors",
        nargs="*",
        default=PRIORS,
        metavar="FOLDER",
        help="of a prior; without --images its name ends with the family (default: both shipped ones)",
    )
    parser.add_argument("--images", metavar="FOLDER", help="measure against these images instead of a family of the generator")
    parser.add_argument("--count", type=int, default=500, help="samples; images are twice as many (default: 500)")
    parser.add_argument("--resolution", type=int, help="draw images of so many pixels (default: as trained)")
    parser.add_argument("--gpu", type=int, default=-1, help="CUDA device, -1: CPU")
    parser.add_argument("--out", metavar="FILE", help="write the figures as JSON instead of printing them")
    parser.add_argument("--sheet", metavar="FILE", help="also save the first 20 samples of each prior as a picture")
    args = parser.parse_args()
    if args.count < FEWEST_SAMPLES:
        raise InputError(f"count={args.count}: at least {FEWEST_SAMPLES} samples are needed")
    sources = [Folder(args.images) if args.images else Family.of(folder) for folder in args.priors]
    for source in sources:
        source.check(2 * args.count)

    import torch

    from utils import device as devices

    devices.silence_unused_xla()
    from utils.priors.latent_diffusion import load_pipeline
    from utils.weights import locate

    device = devices.get_device(gpu=args.gpu)
    devices.setup_device(device)
    rows = []
    for folder, source in zip(args.priors, sources):
        prior = load_pipeline(locate(folder), device, resolution=args.resolution)
        with torch.no_grad():
            row, latents = measure(prior, source, args.count)
            rows.append({"folder": str(folder), **row})
            if args.sheet:
                save_samples(prior, latents[:20], args.sheet, Path(folder).name, several=len(sources) > 1)
        print(visible(f"{folder}: done in {row['seconds']:.0f} s"), file=sys.stderr)
    write_text(json.dumps(rows, indent=1) + "\n", args.out)


def measure(
    prior: LatentDiffusionPrior, source: Family | Folder, count: int, steps: int = STEPS
) -> tuple[dict[str, Any], torch.Tensor]:
    """(figures, (count, C, h, w) latents of the samples); source: Family or Folder of the images to compare with."""
    started = time.monotonic()
    latents = samples(prior, count, steps)
    images = source.draw(2 * count, prior.resolution)
    sampled = features(through_autoencoder(prior, latents))
    real = features(through_autoencoder(prior, in_batches(prior.encode, images, prior.device)))
    pooled = POOLED * latents.shape[1]
    whole, layout, detail = (
        compare(sampled[:, part], real[:, part]) for part in (slice(None), slice(pooled), slice(pooled, None))
    )
    figures = {
        "family": source.name,
        "samples": count,
        "steps": steps,
        **whole,
        "layout": layout,
        "detail": detail,
        "resolution": prior.resolution,
        **autoencoder_psnr(prior, source),
        "denoising": denoising(prior, source),
        "decoder_ms": decoder_ms(prior),
    }
    return {**figures, "seconds": time.monotonic() - started}, latents


def samples(prior: LatentDiffusionPrior, count: int, steps: int) -> torch.Tensor:
    """(count, C, h, w) unconditional samples from pure noise, keyed by SEED alone.

    The solver is DPM-Solver++(2M) of diffusers (arXiv 2211.01095): with as many Euler steps samples come out blurred, and
    the distance would be that of the solver.
    """
    import torch
    from diffusers import DPMSolverMultistepScheduler

    def sample(z: torch.Tensor) -> torch.Tensor:
        solver = DPMSolverMultistepScheduler.from_config(prior.scheduler_config)
        solver.set_timesteps(steps)
        for t in solver.timesteps:
            z = solver.step(prior.predict(z, t.expand(len(z)).to(z.device)), t, z).prev_sample
        return z

    generator = torch.Generator().manual_seed(SEED)
    noise = torch.randn(count, *prior.latent_shape, generator=generator).to(prior.device, prior.dtype)
    return in_batches(sample, noise, prior.device)


def in_batches(work: Callable[[torch.Tensor], torch.Tensor], tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """work() of a tensor (N, ...) on the device, BATCH rows at a time, put together along the first axis."""
    import torch

    return torch.cat([work(part.to(device)) for part in tensor.split(BATCH)])


def through_autoencoder(prior: LatentDiffusionPrior, latents: torch.Tensor) -> torch.Tensor:
    """Latents (N, C, h, w) decoded to images in [-1, 1] and encoded again, (N, C, h, w)."""
    return in_batches(lambda z: prior.encode(prior.decode(z).clamp(-1, 1)), latents, prior.device)


def features(latents: torch.Tensor) -> NDArray[np.float64]:
    """(N, C h w) latents -> (N, 18 C) float64 array: 16 pooled values and two log energies per channel."""
    import torch.nn.functional as F

    half, quarter = F.avg_pool2d(latents, 2), F.avg_pool2d(latents, 4)
    bands = [latents - F.interpolate(half, scale_factor=2), half - F.interpolate(quarter, scale_factor=2)]
    parts = [F.adaptive_avg_pool2d(latents, 4).flatten(1)]
    parts += [band.square().mean((2, 3)).clamp_min(1e-8).log() for band in bands]
    return np.concatenate([part.double().cpu().numpy() for part in parts], axis=1)


def frechet(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Frechet distance of the Gaussians that fit the rows of a (N, D) and b (M, D)."""
    mean, cov_a, cov_b = a.mean(0) - b.mean(0), np.cov(a.T), np.cov(b.T)
    # eigenvalues of a product of covariances are real and not negative, up to rounding
    root = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).real.clip(min=0)).sum()
    return float(mean @ mean + np.trace(cov_a) + np.trace(cov_b) - 2 * root)


def distances(sampled: NDArray[np.float64], real: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances samples - images and images - images, (2, DIVISIONS): one of each for every random
    division of `real` (2 N, D); sampled: (N, D)."""
    scale, n = real.std(0), len(real) // 2
    sampled, real = sampled / scale, real / scale
    rng = np.random.default_rng(SEED)
    pairs = []
    for _ in range(DIVISIONS):
        order = rng.permutation(len(real))
        pairs.append((frechet(sampled, real[order[:n]]), frechet(real[order[:n]], real[order[n : 2 * n]])))
    return np.array(pairs).T


def compare(sampled: NDArray[np.float64], real: NDArray[np.float64]) -> dict[str, Any]:
    """The figures of one set of features, sampled (N, D) and real (2 N, D): distance, floor and their ratio."""
    distance, floor = distances(sampled, real)
    return {"distance": summary(distance), "floor": summary(floor), "ratio": float(np.mean(distance) / np.mean(floor))}


def summary(values: NDArray[np.float64]) -> dict[str, float]:
    """Of values (n,), as utils.analysis.costs.mean_std, for the tables."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)), "n": len(values), "missing": 0}


def autoencoder_psnr(prior: LatentDiffusionPrior, source: Family | Folder) -> dict[str, Any]:
    """PSNR in dB of images through the autoencoder: mean and minimum, upright and rotated."""
    from utils.evaluation.scores import rotated
    from utils.metrics.psnr import psnr

    x = source.for_autoencoder(prior.resolution)
    figures = {"images": len(x)}
    for name, truth in (("upright", x), ("rotated", rotated(x))):
        values = in_batches(lambda part: psnr(prior.decode(prior.encode(part)), part), truth, prior.device)
        figures[f"psnr_{name}"] = {"mean": values.mean().item(), "min": values.min().item()}
    return figures


def denoising(prior: LatentDiffusionPrior, source: Family | Folder) -> dict[str, float]:
    """{sigma: E (D(z + sigma n) - z)^2 / sigma^2, the mean over the numbers of a latent}; below 1 the denoiser helps."""
    import torch

    z = in_batches(prior.encode, source.for_autoencoder(prior.resolution), prior.device)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(SEED)).to(z)
    losses = {}
    for sigma in DENOISED:
        level = torch.tensor(sigma, device=z.device)
        denoised = in_batches(lambda noisy: prior.denoise(noisy, level), z + sigma * noise, prior.device)
        losses[f"{sigma:g}"] = float((denoised - z).square().mean()) / sigma**2
    return losses


def decoder_ms(prior: LatentDiffusionPrior) -> float:
    """Milliseconds per latent of the fastest of some decoder forward + backward passes: the others were disturbed."""
    import torch

    from tools.benchmark import DECODER, Pieces

    pieces = Pieces(prior, torch.zeros(TIMED_BATCH, *prior.latent_shape, device=prior.device))
    pieces.run(DECODER, 3)
    return 1e3 * min(pieces.run(DECODER, TIMED_PASSES)) / TIMED_BATCH


def save_samples(prior: LatentDiffusionPrior, latents: torch.Tensor, path: str | Path, name: str, several: bool) -> None:
    from tools.demo_prior.training import save_sheet

    path = Path(path).with_stem(f"{Path(path).stem}_{name}") if several else Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_sheet(prior.decode(latents), path)
