"""An operator written here: a sensor that sees one colour per pixel. Its gradient is tried, then two images are reconstructed.

python docs/examples/own_operator.py [overrides of posterior_sample.py]
"""

import sys
from pathlib import Path

import torch

from operators.base import Operator
from utils.config.check import check
from utils.config.compose import compose
from utils.data import select_images
from utils.diagnosis.tryout import try_operator
from utils.figures.style import bare_axes
from utils.metrics.pixels import to_pixels
from utils.metrics.psnr import psnr
from utils.running.build import build, load_batch
from utils.sampling.profiler import Profiler


class ColourFilter(Operator):
    """A(x) = m x, with one colour kept at each pixel of 2 x 2: red and green above, green and blue below."""

    linear = separable = True

    def __init__(self, side, sigma):
        super().__init__(sigma)
        tile = torch.tensor([[[1.0, 0], [0, 0]], [[0, 1], [1, 0]], [[0, 0], [0, 1]]])  # (3, 2, 2)
        self.register_buffer("mask", tile.repeat(1, side // 2, side // 2))  # (3, H, W)

    def forward(self, x):
        return self.mask * x  # (P, 3, H, W)


# the group of a task of the same units and noise; its operator is exchanged below
settings = check(compose(["gpu=-1", "task=inpainting_rand", "sampler=fast", "data.end_id=2", *sys.argv[1:]]))
parts = build(settings)
operator = ColourFilter(parts.prior.resolution, sigma=0.05)
try_operator("ColourFilter", operator, parts.prior, parts.device)  # ends in one line if the gradient is cut
parts.sampler.operator = operator
parts = parts._replace(operator=operator)

particles, truth = load_batch(parts, settings, select_images(settings))
found = parts.sampler.sample(particles, Profiler(parts.device)).image.unflatten(0, (len(truth), -1))  # (N, n, 3, H, W)
seen = particles.y.unflatten(0, (len(truth), -1))[:, 0]
mean, spread = found.mean(1), found.std(1)  # (N, 3, H, W) each

figure, axes = bare_axes(len(truth), 4, height=2, width=2, layout="constrained")
for row, x in enumerate(truth):
    print(f"image {row}: mean of the particles {psnr(mean[row : row + 1], x).item():.1f} dB, spread {spread[row].mean():.3f}")
    columns = {"truth": x, "measurement": seen[row], "mean of the particles": mean[row], "spread, x 8": 8 * spread[row] - 1}
    for axis, (title, picture) in zip(axes[row], columns.items()):
        axis.imshow(to_pixels(picture[None])[0])
        axis.set_title(title, fontsize=8)
place = Path(settings.save_dir) / "example_own_operator.jpg"
place.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(place, dpi=80)
print(place)
