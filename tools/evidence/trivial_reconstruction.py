"""What trivial reconstructions reach on the images of finished runs, from the same noisy measurements; no sampling.

    python tools/evidence/trivial_reconstruction.py results/tasks/*

Writes trivial.json into each run folder; tables of `kind: tasks` compare the run with it. The floor of a task is the
reconstruction of the highest mean PSNR over the run's images. The mean image is that of the generator's training
split, so it has seen neither validation nor test images, or of --mean FOLDER.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.analysis import runs
from utils.command_line import Parser, run, say
from utils.config.settings import Settings
from utils.data import TestImage, files_in, select_images
from utils.errors import InputError
from utils.files import write_atomically
from utils.records.files import to_json
from utils.running.finished import TRUST, refuse_other_content, settings_of_finished

if TYPE_CHECKING:
    import torch


MEAN_OF = 256  # training images in the mean image


def main() -> None:
    parser = Parser(prog="trivial_reconstruction.py", description="PSNR of trivial reconstructions for finished runs.")
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of faces or scenes, or with --mean of others")
    parser.add_argument(
        "--mean", type=Path, metavar="FOLDER", help="images, not those of the runs, that the mean image is taken of"
    )
    parser.add_argument("--trust", action="append", default=[], metavar="MODULE.CLASS", help=TRUST)
    args = parser.parse_args()
    for folder in args.runs:
        content = evaluate(folder, args.mean, args.trust)
        write_atomically(folder / "trivial.json", to_json(content) + b"\n")
        say(f"{folder}: " + ", ".join(f"{name} {statistics.fmean(scores):.2f} dB" for name, scores in content["psnr"].items()))


def evaluate(folder: Path, of: Path | None = None, trusted: Collection[str] = ()) -> dict[str, Any]:
    """The content of trivial.json of one run folder; its images are those that have records.

    of: folder of the images whose mean is among the reconstructions; None: the generator's.
    trusted: classes, none of this project's, that the run's config may build.

    The content: image_ids; floor, the name of the best one; psnr, {name: [dB per image]}.
    """
    finished = runs.load(folder)
    if finished.config is None:
        raise InputError(f"{folder}: is no run folder (no config.yaml)")
    settings = settings_of_finished(finished.config, folder, trusted)
    refuse_other_content((record for record, _ in finished.records()), folder, settings.digests())

    import torch

    from operators.trivial import trivial_reconstructions
    from utils.metrics.psnr import psnr
    from utils.running.build import build, load_batch

    sampled = set(finished.metrics.metadata.image_ids)
    images = [image for image in select_images(settings) if image.id in sampled]
    if len(images) < len(sampled):
        raise InputError(f"{folder}: has {len(sampled)} images, {settings.data.root} only {len(images)} of them")
    with torch.no_grad():
        parts = build(settings)
        particles, truth = load_batch(parts, settings, images)
        y = particles.y[:: settings.num_samples]  # (N, ...): the particles of an image share it
        made = trivial_reconstructions(parts.operator, y, mean_image(settings, of).to(y.device))
    scores = {name: [round(v, 4) for v in psnr(x.cpu(), truth).tolist()] for name, x in made.items()}
    floor = max(scores, key=lambda name: statistics.fmean(scores[name]))
    return {"image_ids": [image.id for image in images], "floor": floor, "psnr": scores}


def mean_image(settings: Settings, of: Path | None = None) -> torch.Tensor:
    """(3, H, W) in [-1, 1]: mean of images in the folder `of`, else of the generator's for the family of the run's data."""
    import torch

    from tools.demo_prior.make_demo_data import FAMILIES, SEEDS, SIDE, demo_images

    if of is not None:
        files = files_in(of, "images")
        if not files:
            raise InputError(f"mean={of}: has no images")
        chosen = files[:: -(-len(files) // MEAN_OF)]
        return torch.from_numpy(sum(TestImage(0, file).pixels(settings.data.resolution) for file in chosen) / len(chosen))
    family = next((name for name in FAMILIES if Path(settings.data.root).name == f"demo-{name}"), None)
    if family is None or settings.data.resolution != SIDE:
        raise InputError(f"data.root={settings.data.root}: has no mean image of its own; name --mean FOLDER")
    mean = demo_images(family, SEEDS["train"], MEAN_OF).mean(0)  # (H, W, 3) in [0, 255]
    return torch.from_numpy(mean.transpose(2, 0, 1) / 127.5 - 1).float()


if __name__ == "__main__":
    run(main)
