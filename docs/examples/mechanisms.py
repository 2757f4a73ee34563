"""The same particles with and without a mechanism: at a rate at which many end in a wrong optimum, channels are exchanged.

python docs/examples/mechanisms.py [overrides of posterior_sample.py]
"""

import sys
from pathlib import Path

from utils.config.check import check
from utils.config.compose import compose
from utils.data import select_images
from utils.evaluation.scores import mode_labels
from utils.figures.style import bare_axes
from utils.metrics.pixels import to_pixels
from utils.running.build import build, load_batch
from utils.sampling.profiler import Profiler

SWITCHES = {"independent": [], "channels exchanged": ["recombination_step=300"]}
common = ["gpu=-1", "sampler=fast", "task_group=demo_hard", "data=demo-scenes", "model=demo-scenes", "data.end_id=2"]

rows = []  # (title, pictures, labels)
for name, switches in SWITCHES.items():
    settings = check(compose([*common, *switches, *sys.argv[1:]]))
    parts = build(settings)
    images = select_images(settings)
    particles, truth = load_batch(parts, settings, images)  # the seed decides the noise: both runs have the same
    result = parts.sampler.sample(particles, Profiler(parts.device))
    for x, image in zip(truth, images):
        found = result.image[result.particles.of_image(image.id)]
        labels = mode_labels(found, x, settings.success.threshold_db, settings.success.margin_db)["label"]
        rows.append((f"image {image.id}, {name}", to_pixels(found), labels))
        print(f"{rows[-1][0]}: {labels}")
        for mechanism in parts.sampler.mechanisms:  # what it reports: the block of the image's record
            block = mechanism.block(result.of_image(mechanism.name, image.id), range(settings.num_samples))
            for event in block["events"]:
                print(f"  step {event['step_index']}: children accepted {[p['accepted'] for p in event['particles']]}")

figure, axes = bare_axes(len(rows), settings.num_samples, height=1.8, layout="constrained")
for line, (name, pictures, labels) in zip(axes, sorted(rows, key=lambda row: row[0].split(",")[0])):
    for axis, picture, label in zip(line, pictures, labels):
        axis.imshow(picture)
        axis.set_title(f"{name}\n{label}", fontsize=7)
place = Path(settings.save_dir) / "example_mechanisms.jpg"
place.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(place, dpi=80)
print(place)
