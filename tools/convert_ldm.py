"""Convert a public latent-diffusion checkpoint to a diffusers folder.

python tools/convert_ldm.py checkpoints/ldm_ffhq256.pt                 # into the cache that model=ffhq256ldm reads
python tools/convert_ldm.py model.ckpt checkpoints/my_model --ema      # into a folder, averaged weights
"""

import argparse
import logging
from pathlib import Path

from utils.command_line import run
from utils.weights import cache_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="the original file: FFHQ, CelebA, cin256-v2, or VQ-f4 alone")
    parser.add_argument("out", type=Path, nargs="?", help="the folder to write; without it, the cache beside the file")
    parser.add_argument("--ema", action="store_true", help="take the averaged weights; default: the raw ones, as DAPS")
    parser.add_argument("--resolution", type=int, default=256, help="of the images (default %(default)s)")
    arguments = parser.parse_args()
    weights = "ema" if arguments.ema else "raw"
    from utils.priors import compvis

    logging.getLogger("diffusers").setLevel(logging.ERROR)  # its hints are about its own flags
    folder = compvis.convert(
        arguments.checkpoint, arguments.out or cache_folder(arguments.checkpoint, weights), weights, arguments.resolution
    )
    for part in sorted(folder.iterdir()):
        size = sum(f.stat().st_size for f in (part.rglob("*") if part.is_dir() else [part]) if f.is_file())
        print(f"{part}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main)
