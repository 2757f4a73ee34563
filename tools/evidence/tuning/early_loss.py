"""How well the loss after each annealing step tells particles that will end far below the best of their image.

    python tools/evidence/tuning/early_loss.py results/tuning/turns_scenes/20x4 [--margin 3]

Area under the curve, over all particles of the run: of a particle that ends so many dB below the best of its image and one
that does not, how often the former has the higher loss. Reads records with their traces, as runs write them.
"""

from pathlib import Path

import numpy as np
from scipy.stats import mannwhitneyu

from utils.analysis import runs
from utils.command_line import Parser, run


def main():
    parser = Parser(prog="early_loss.py", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--margin", type=float, default=3.0, metavar="DB")
    args = parser.parse_args()
    losses, poor, timesteps = [], [], []
    for record, _ in runs.load(args.run).records():
        psnr = np.array(record["modes"]["psnr_aligned"], dtype=float)  # (n,) NaN: not there
        losses.append(np.array(record["trace"]["loss"], dtype=float).T)  # (n, steps)
        poor.append(~(psnr >= np.nanmax(psnr) - args.margin))
        timesteps = record["trace"]["timestep"]
    loss, below = np.nan_to_num(np.concatenate(losses), nan=np.inf), np.concatenate(poor)
    print(f"{below.sum()} of {len(below)} particles end {args.margin:g} dB below the best of their image")
    for t, values in zip(timesteps, loss.T):
        area = mannwhitneyu(values[below], values[~below]).statistic / (below.sum() * (~below).sum())
        print(f"t = {t:5.0f}   {area:.2f}")


if __name__ == "__main__":
    run(main)
