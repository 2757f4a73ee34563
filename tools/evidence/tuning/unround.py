"""A prior as it may have been before its UNet was stored in half precision: does the storage change scores?

    python tools/evidence/tuning/unround.py checkpoints/demo-faces results/tuning/unrounded/demo-faces --seed 0

Every weight is drawn uniformly among the float32 numbers that round to the stored one, so storing the new prior in half
precision would give the shipped file again. Runs with several seeds against the shipped prior show what the rounding
may have cost (tools/evidence/tuning/phase_retrieval.sh, part half).
"""

import shutil
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from utils.command_line import Parser, run
from utils.errors import InputError

WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"


def unrounded(stored, rng):
    """float32 array of numbers that round to `stored` (float16), drawn uniformly."""
    value = stored.astype(np.float32)
    drawn = value + (rng.random(stored.shape, np.float32) - 0.5) * np.spacing(np.abs(stored)).astype(np.float32)
    return np.where(drawn.astype(np.float16) == stored, drawn, value)  # below a power of two the spacing is half of it


def main():
    parser = Parser(prog="unround.py", description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of the prior")
    parser.add_argument("target", type=Path, help="new folder")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        weights = load_file(args.source / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{args.source / WEIGHTS}: cannot be read ({error}); name the folder of a shipped prior") from None
    if {w.dtype for w in weights.values()} != {np.dtype(np.float16)}:
        raise InputError(f"{args.source / WEIGHTS}: its weights are not all in half precision; name a prior stored in it")
    rng = np.random.default_rng(args.seed)
    shutil.copytree(args.source, args.target, dirs_exist_ok=True)
    save_file({name: unrounded(w, rng) for name, w in weights.items()}, args.target / WEIGHTS, {"format": "pt"})


if __name__ == "__main__":
    run(main)
