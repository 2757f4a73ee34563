"""From a detector's frame to a picture: simulate one with all its faults, look at it, sample it with what that recommends.

python docs/examples/detector.py [overrides of posterior_sample.py]
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import latentdaps
from tools.check_measurement import look, show
from utils.config.compose import compose
from utils.figures.style import picture_axes
from utils.paths import PROJECT

config = compose(["model=demo-faces", *sys.argv[1:]])
n, gain = config.model.resolution, 5000  # pixels of the field a side, 64; counts at intensity 1
side, samples = 11 * n // 16, 3 * n // 2  # of the object and of the frame: 44 and 96
centre = (samples // 2 + 2, samples // 2 - 1)  # where the beam hits, two pixels off
rng = np.random.default_rng(0)

# a grey object in a dark field, and the counts of its frame: a background of 10, a beam stop, dead pixels (-1)
grey = Image.open(PROJECT / "dataset/demo-faces/00000.png").convert("L").resize((n, n))
support = np.zeros((n, n))
support[(n - side) // 2 : (n + side) // 2, (n - side) // 2 : (n + side) // 2] = 1
picture = support * np.asarray(grey, float) / 255
turns = [np.outer(np.arange(samples) - c, np.arange(n)) / samples for c in centre]  # (samples, n), in cycles
rows, columns = (np.exp(-2j * np.pi * turn) / samples**0.5 for turn in turns)
counts = rng.poisson(gain * np.abs(rows @ picture @ columns.T) ** 2 + 10)
counts[centre[0] - 2 : centre[0] + 3, centre[1] - 2 : centre[1] + 3] = -1
counts[rng.random(counts.shape) < 0.01] = -1

place = Path(config.save_dir)
place.mkdir(parents=True, exist_ok=True)
np.save(frame := place / "frame.npy", counts)

seen = look(frame, [*sys.argv[1:], "model=demo-faces", "data.quantity=counts", f"data.gain={gain}"])
show(frame.name, seen.findings[frame.name])
recommended = [override for key, override in seen.overrides.items() if key.startswith(("data.", "task."))]
print("recommended:", *recommended)

# the object's size is what the beam stop hides, and what the experimenter knows
keys = {"data": "measurement", "sampler": "fast", "num_samples": 2, "gpu": -1}
more = [*recommended, f"data.root={frame}", f"data.support={side}"]
model = latentdaps.load("demo-faces", **keys, overrides=[*sys.argv[1:], *more])
result = model.sample(model.measure())
shown = result.images[0, result.pick[0]].mean(0) * support  # outside of the support nothing was measured
error = min(np.mean((way - picture)[support > 0] ** 2) for way in (shown, shown[::-1, ::-1]))  # y does not know the turn
print(f"pick: {-10 * np.log10(error):.1f} dB within the object, explains the data: {result.verdict[0]}")

_, axes = picture_axes(1, 3, above=0.3)
panels = {"counts (log)": np.log10(np.maximum(counts, 1)), "object": picture, "label-free pick": shown}
for axis, (title, values) in zip(axes[0], panels.items()):
    axis.imshow(values, cmap="gray")
    axis.set_title(title, fontsize=9)
axis.figure.savefig(place / "example_detector.jpg", dpi=130)
print(place / "example_detector.jpg")
