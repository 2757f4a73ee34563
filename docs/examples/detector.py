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
from utils.figures.style import bare_axes
from utils.paths import PROJECT

SIDE, GAIN, CENTRE = 44, 5000, (50, 47)  # of the object in its field of 64 pixels; counts at intensity 1; where the beam hits
rng = np.random.default_rng(0)

# a grey object in a dark field, and the counts of its 96 x 96 frame: background 10, a beam stop, dead pixels (-1)
picture = np.asarray(Image.open(PROJECT / "dataset/demo-faces/00000.png").convert("L"), float) / 255  # (64, 64)
support = np.pad(np.ones((SIDE, SIDE)), (64 - SIDE) // 2)
places, frequencies = np.arange(64), np.arange(96)
rows, columns = (np.exp(-2j * np.pi * np.outer(frequencies - c, places) / 96) / 96**0.5 for c in CENTRE)  # (96, 64)
counts = rng.poisson(GAIN * np.abs(rows @ (support * picture) @ columns.T) ** 2 + 10)
counts[48:53, 45:50] = -1
counts[rng.random(counts.shape) < 0.01] = -1

place = Path(compose(sys.argv[1:])["save_dir"])
place.mkdir(parents=True, exist_ok=True)
np.save(frame := place / "frame.npy", counts)

seen = look(frame, [*sys.argv[1:], "model=demo-faces", "data.quantity=counts", f"data.gain={GAIN}"])
show(frame.name, seen.found[frame.name])
recommended = [override for key, override in seen.overrides.items() if key.startswith(("data.", "task."))]
print("recommended:", *recommended)

# the object's size is what the beam stop hides, and what the experimenter knows
keys = {"data": "measurement", "sampler": "fast", "num_samples": 2, "gpu": -1}
more = [f"data.root={frame}", *recommended, f"data.support={SIDE}"]
model = latentdaps.load("demo-faces", **keys, overrides=[*sys.argv[1:], *more])
result = model.sample(model.measure())
shown = result.images[0, result.pick[0]].mean(0) * support  # outside of the support nothing was measured
error = min(np.mean((way - picture)[support > 0] ** 2) for way in (shown, shown[::-1, ::-1]))  # y does not know the turn
print(f"pick: {-10 * np.log10(error):.1f} dB within the object, explains the data: {result.verdict[0]}")

_, axes = bare_axes(1, 3, height=2.6, width=2.4, layout="constrained")
panels = {"counts (log)": np.log10(np.maximum(counts, 1)), "object": support * picture, "label-free pick": shown}
for axis, (title, values) in zip(axes[0], panels.items()):
    axis.imshow(values, cmap="gray")
    axis.set_title(title, fontsize=9)
axis.figure.savefig(place / "example_detector.jpg", dpi=100)
print(place / "example_detector.jpg")
