"""The same particles with and without a mechanism: at a rate at which many end in a wrong optimum, channels are exchanged.

python docs/examples/mechanisms.py [overrides of posterior_sample.py]
"""

import sys
from pathlib import Path

import latentdaps
from utils.figures.style import plt

SWITCHES = {"independent": [], "channels exchanged": ["recombination_step=300"]}
common = {"gpu": -1, "sampler": "fast", "task_group": "demo_hard", "data": {"end_id": 2}}

rows = []  # (title, pictures, labels)
for name, switches in SWITCHES.items():
    model = latentdaps.load("demo-scenes", **common, overrides=[*switches, *sys.argv[1:]])
    y = model.measure()  # the seed decides the noise: both runs have the same
    result = model.sample(y)
    for item, images, labels, record in zip(y.items, result.images, result.scores()["label"], result.records):
        rows.append((f"image {item.id}, {name}", images, labels))
        print(f"{rows[-1][0]}: {labels.tolist()}")
        for event in record.get("recombination", {"events": []})["events"]:  # what the mechanism reports
            print(f"  step {event['step_index']}: children accepted {[p['accepted'] for p in event['particles']]}")

figure, axes = plt.subplots(len(rows), len(rows[0][2]), squeeze=False, figsize=(7, 1.8 * len(rows)), layout="constrained")
for line, (name, images, labels) in zip(axes, sorted(rows, key=lambda row: row[0].split(",")[0])):
    for axis, image, label in zip(line, images, labels):
        axis.imshow(image.transpose(1, 2, 0))
        axis.set(xticks=[], yticks=[])
        axis.set_title(f"{name}\n{label}", fontsize=7)
place = Path(model.settings.save_dir) / "example_mechanisms.jpg"
place.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(place, dpi=80)
print(place)
