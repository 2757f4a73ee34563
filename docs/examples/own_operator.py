"""An operator written here: a sensor that sees one colour per pixel. Its gradient is tried, then two images are reconstructed.

python docs/examples/own_operator.py [overrides of posterior_sample.py]
"""

import sys
from pathlib import Path

import torch

import latentdaps
from operators.base import Operator


class ColourFilter(Operator):
    """A(x) = m x, with one colour kept at each pixel of 2 x 2: red and green above, green and blue below."""

    linear = separable = True

    def __init__(self, sigma):
        super().__init__(sigma)
        self.register_buffer("tile", torch.tensor([[[1.0, 0], [0, 0]], [[0, 1], [1, 0]], [[0, 0], [0, 1]]]))  # (3, 2, 2)

    def forward(self, x):
        return self.tile.repeat(1, x.shape[-2] // 2, x.shape[-1] // 2) * x  # (P, 3, H, W)


# hyper-parameters of a task of the same units and noise; load() tries the operator: one that cuts a gradient ends in one line
keys = {"gpu": -1, "task": "inpainting_rand", "sampler": "fast", "data": {"end_id": 2}}
model = latentdaps.load(operator=ColourFilter(sigma=0.05), **keys, overrides=sys.argv[1:])
y = model.measure()
result = model.sample(y)
for row, spread in enumerate(result.images.std(1)):  # (N, 3, H, W), of numbers in [0, 1]
    decibel = result.metrics["summary"]["psnr"][row]
    print(f"image {row}: mean of the particles {decibel:.1f} dB, spread {spread.mean():.3f}")

place = Path(model.settings.save_dir) / "example_own_operator.jpg"
place.parent.mkdir(parents=True, exist_ok=True)
result.plot().savefig(place, dpi=80)
print(place)
