"""Phase retrieval of three shipped images with four particles each: measure, sample, look at the arrays.

python docs/examples/reconstruct.py [overrides of posterior_sample.py]
"""

import sys
from pathlib import Path

import latentdaps

model = latentdaps.load(gpu=-1, sampler="fast", data={"end_id": 3}, overrides=sys.argv[1:])
y = model.measure()  # of the configured images; of your own: model.measure(array) or model.measure(paths)
result = model.sample(y)
print("measurements", y.values.shape, "images", result.images.shape, "losses", result.loss.shape)

scores = result.scores()  # by the truth, which the pick does not know
for i, (item, pick) in enumerate(zip(y.items, result.pick)):
    decibel, labels = scores["psnr_aligned"][i, pick], scores["label"][i].tolist()
    print(f"image {item.id}: particle {pick} fits best, {decibel:.1f} dB, labels {labels}")

place = Path(model.settings.save_dir) / "example_reconstruct.jpg"
place.parent.mkdir(parents=True, exist_ok=True)
result.plot().savefig(place, dpi=80, bbox_inches="tight")
print(place)
