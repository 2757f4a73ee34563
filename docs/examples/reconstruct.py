"""Phase retrieval of three shipped images with four particles each: build the parts, sample, look at the arrays.

python docs/examples/reconstruct.py [overrides of posterior_sample.py]
"""

import sys
from pathlib import Path

from utils.config.check import check
from utils.config.compose import compose
from utils.data import select_images
from utils.evaluation.scores import mode_labels, pick
from utils.figures.style import bare_axes, measurement_picture
from utils.metrics.pixels import to_pixels
from utils.running.build import build, load_batch
from utils.sampling.profiler import Profiler

settings = check(compose(["gpu=-1", "sampler=fast", "data.end_id=3", *sys.argv[1:]]))
parts = build(settings)  # device, prior, operator, noise, sampler
images = select_images(settings)
particles, truth = load_batch(parts, settings, images)  # y is measured here; truth (N, 3, H, W) in [-1, 1]
result = parts.sampler.sample(particles, Profiler(parts.device))
print("latents", tuple(result.particles.z.shape), "pictures", tuple(result.image.shape), "losses", tuple(result.loss.shape))

n = settings.num_samples
figure, axes = bare_axes(len(images), 2 + n, height=1.8, layout="constrained")
for row, image in enumerate(images):
    mine = result.particles.of_image(image.id)  # positions of this image's particles
    found, losses = result.image[mine], result.loss[mine].tolist()
    labels = mode_labels(found, truth[row], settings.success.threshold_db, settings.success.margin_db)
    picked = pick(losses)  # without looking at the truth
    print(f"image {image.id}: particle {picked} fits best, {labels['psnr_aligned'][picked]:.1f} dB, labels {labels['label']}")
    pictures = [*to_pixels(truth[row : row + 1]), measurement_picture(particles.y[mine[0]].numpy()), *to_pixels(found)]
    titles = ["truth", "measurement", *(f"p{i}: {label}" for i, label in enumerate(labels["label"]))]
    for axis, picture, title in zip(axes[row], pictures, titles):
        axis.imshow(picture)
        axis.set_title(title, fontsize=8, fontweight="bold" if title.startswith(f"p{picked}") else None)

place = Path(settings.save_dir) / "example_reconstruct.jpg"
place.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(place, dpi=80)
print(place)
