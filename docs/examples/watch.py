"""The annealing of one image watched through the sampler's callback: what each particle looks like, step by step.

python docs/examples/watch.py [overrides of posterior_sample.py]
"""

import sys
from pathlib import Path

import numpy as np

from utils.config.check import check
from utils.config.compose import compose
from utils.data import select_images
from utils.figures.style import bare_axes
from utils.metrics.pixels import to_pixels
from utils.running.build import build, load_batch
from utils.sampling.profiler import Profiler

overrides = ["gpu=-1", "sampler=fast", "data=demo-scenes", "model=demo-scenes", "data.start_id=1", "data.end_id=2"]
settings = check(compose([*overrides, *sys.argv[1:]]))
parts = build(settings)
particles, _ = load_batch(parts, settings, select_images(settings))
pictures, losses = [], []


def look(info):
    """Called after each annealing step with a utils.sampling.outcome.StepInfo."""
    pictures.append(to_pixels(info.image))  # (P, H, W, 3), what the chain's last iteration decoded
    losses.append(info.loss.numpy())  # (P,)


parts.sampler.sample(particles, Profiler(parts.device), on_step=look)
floor = parts.operator.noise_floor(particles.y).numpy()  # (P,)
losses = np.stack(losses) / floor  # (steps, P); 1 is what the noise alone leaves
for step, (sigma, loss) in enumerate(zip(parts.sampler.sigmas, losses)):
    print(f"step {step:2d}  sigma {sigma:6.2f}  loss / noise floor {np.array2string(loss, precision=2, suppress_small=True)}")

shown = np.unique(np.linspace(0, len(pictures) - 1, 7).round().astype(int))
figure, axes = bare_axes(len(particles), len(shown), height=1.6, width=1.6, layout="constrained")
for column, step in enumerate(shown):
    axes[0, column].set_title(f"step {step}, sigma {parts.sampler.sigmas[step]:.2f}", fontsize=8)
    for row in range(len(particles)):
        axes[row, column].imshow(pictures[step][row])

place = Path(settings.save_dir) / "example_watch.jpg"
place.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(place, dpi=80)
print(place)
