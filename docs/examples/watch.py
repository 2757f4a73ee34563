"""The annealing of one image watched through the sampler's callback: what each particle looks like, step by step.

python docs/examples/watch.py [overrides of posterior_sample.py]
"""

import sys
from pathlib import Path

import numpy as np

import latentdaps
from utils.figures.style import plt
from utils.metrics.pixels import to_pixels

model = latentdaps.load("demo-scenes", gpu=-1, sampler="fast", data={"start_id": 1, "end_id": 2}, overrides=sys.argv[1:])
pictures, losses = [], []


def look(info):
    """Called after each annealing step with a utils.sampling.outcome.StepInfo."""
    pictures.append(to_pixels(info.image))  # (P, H, W, 3), what the chain's last iteration decoded
    losses.append(info.loss.numpy())  # (P,)


result = model.sample(model.measure(), progress=False, on_step=look)
losses = np.stack(losses) / result.noise_floor  # (steps, P); 1 is what the noise alone leaves
sigmas = model.parts.sampler.sigmas
for step, (sigma, loss) in enumerate(zip(sigmas, losses)):
    print(f"step {step:2d}  sigma {sigma:6.2f}  loss / noise floor {np.array2string(loss, precision=2, suppress_small=True)}")

shown = np.unique(np.linspace(0, len(pictures) - 1, 7).round().astype(int))
size = len(pictures[0]), len(shown)
figure, axes = plt.subplots(*size, squeeze=False, figsize=(1.6 * size[1], 1.6 * size[0]), layout="constrained")
for column, step in enumerate(shown):
    axes[0, column].set_title(f"step {step}, sigma {sigmas[step]:.2f}", fontsize=8)
    for row, picture in enumerate(pictures[step]):
        axes[row, column].imshow(picture)
        axes[row, column].set(xticks=[], yticks=[])

place = Path(model.settings.save_dir) / "example_watch.jpg"
place.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(place, dpi=80)
print(place)
