"""Samples as posterior_sample.py does, of simulated measurements with the holes of a real detector.

    python tools/evidence/tuning/instrument.py beam_stop gpu=-1 sampler=fast data.end_id=16 name=beam_stop

The holes are not part of the config, so they have to be part of the name=. Scores and tables are as of any run:
  beam_stop    5 x 5 pixels around the zero frequency
  dead_pixels  3 % of the pixels, the same in every image and channel
"""

from utils.command_line import Parser, run
from utils.config.compose import compose
from utils.errors import InputError

STOP, SHARE = 5, 0.03


def holes(kind, shape):
    """Where nothing is measured, (H', W') booleans of a centred spectrum."""
    import numpy as np

    if kind == "dead_pixels":
        return np.random.default_rng(0).random(shape) < SHARE
    inside = [abs(np.arange(n) - n // 2) <= STOP // 2 for n in shape]
    return inside[0][:, None] & inside[1]


def main():
    parser = Parser(prog="instrument.py", description=__doc__.splitlines()[0])
    parser.add_argument("holes", choices=("beam_stop", "dead_pixels"))
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    import posterior_sample
    from utils.running import console

    cfg = compose(args.overrides)
    if args.holes not in cfg.name:
        raise InputError(f"name={cfg.name}: the holes are in no config, so the name has to say {args.holes}")
    console.setup_logging()
    import torch

    from utils.running import build

    whole = build.measure

    def measured(parts, x, image_id):
        y = whole(parts, x, image_id)
        missing = torch.from_numpy(holes(args.holes, y.shape[-2:])).to(y.device)
        return torch.where(missing, torch.nan, y)

    build.measure = measured
    posterior_sample.run(cfg)


if __name__ == "__main__":
    run(main)
