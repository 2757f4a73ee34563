"""Samples as posterior_sample.py does, of simulated measurements with the holes of a real detector.

    python tools/evidence/tuning/instrument.py beam_stop gpu=-1 sampler=fast data.end_id=16 name=beam_stop

The holes are not part of the config, so they have to be part of the name=. Scores and tables are as of any run:
  beam_stop    5 x 5 pixels around the zero frequency
  dead_pixels  3 % of the pixels, the same in every image and channel
"""

from tools.evidence.tuning.changed import sample
from utils.command_line import Parser, run

STOP, SHARE = 5, 0.03


def holes(kind, shape):
    """Where nothing is measured, (H', W') booleans of a centred spectrum."""
    import numpy as np

    from utils.noise import keyed_generator

    if kind == "dead_pixels":
        return keyed_generator(0, "mask").random(shape) < SHARE
    inside = [abs(np.arange(n) - n // 2) <= STOP // 2 for n in shape]
    return inside[0][:, None] & inside[1]


def change(kind):
    """Every simulated measurement is NaN in the holes."""
    import torch

    from utils.running import build

    whole = build.measure

    def measured(parts, x, image_id):
        y = whole(parts, x, image_id)
        return torch.where(torch.from_numpy(holes(kind, y.shape[-2:])).to(y.device), torch.nan, y)

    build.measure = measured


def main():
    parser = Parser(prog="instrument.py", description=__doc__.splitlines()[0])
    parser.add_argument("holes", choices=("beam_stop", "dead_pixels"))
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    sample(args.holes, args.overrides, lambda: change(args.holes))


if __name__ == "__main__":
    run(main)
