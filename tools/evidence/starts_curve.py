"""Success and pick of photographs against passes and seconds, for 1 to 16 particles from the bank, from noise, and mixed.

    python tools/evidence/starts_curve.py --out docs/pictures/starts_curve.png
    python tools/evidence/starts_curve.py --runs evidence/starts_scenes --bank bank4 --noise noise4 --mixed 2+1 2+2

Of one run all of whose particles come from the bank, and of one all of whose particles come from noise, the first 1, 2, 4,
8 and 16 particles are taken: the particles of a run do not act on each other, and bank particle k is the same for every
size of the bank. Mixed: so many of the one and of the other. The runs with a second stage, and DAPS as published, stand as
single points where they are there. Prints the table that the figure shows.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.analysis.runs import FOUND
from utils.command_line import Parser, run
from utils.errors import InputError
from utils.figures.style import plt, save_figure
from utils.paths import PROJECT
from utils.records.kept import read_records

SIZES = (1, 2, 4, 8, 16)
HALVES = [(size, size) for size in SIZES[:-1]]
POINTS = ("bank8_polish4", "daps_low")


class Particles(NamedTuple):
    """The particles of a run. Arrays over images and particles, (N, K); seconds of an image, (N,)."""

    images: list[int]
    loss: np.ndarray
    psnr: np.ndarray  # in the better orientation, dB
    solved: np.ndarray
    passes: float  # of one particle
    apart_s: np.ndarray  # that the number of particles does not change: the bank's
    annealing_s: np.ndarray

    def first(self, count: int) -> "Particles":
        share = count / self.loss.shape[1]
        rows = (array[:, :count] for array in (self.loss, self.psnr, self.solved))
        return Particles(self.images, *rows, self.passes, self.apart_s, self.annealing_s * share)


class Point(NamedTuple):
    """What the pick of the smallest loss gives."""

    name: str
    particles: str
    passes: float
    seconds: float
    psnr: float
    solved: int
    images: int


def load(folder: Path) -> Particles:
    """The particles that a run handed out. Raises InputError for no run."""
    records = [record for record, _ in read_records(folder, wanted=())]
    if not records:
        raise InputError(f"{folder}: holds no records")
    left = [[r["particles"].index(k) for k in r["survivors"]] for r in records]
    phases = [r["time"]["phases"] for r in records]
    passes = [sum(p["decoder_forward_backward"] * p["particles"] for p in phase.values()) for phase in phases]
    bank = np.array([phase.get("bank", {"time_s": 0.0})["time_s"] for phase in phases])

    def column(values: Sequence[Sequence[float]]) -> np.ndarray:
        return np.array([[of_image[k] for k in rows] for of_image, rows in zip(values, left, strict=True)])

    labels = column([[label in FOUND for label in r["modes"]["label"]] for r in records])
    return Particles(
        [r["image_id"] for r in records],
        column([r["loss"] for r in records]),
        column([r["modes"]["psnr_aligned"] for r in records]),
        labels.astype(bool),
        float(np.mean(passes)) / len(left[0]),
        bank,
        np.array([r["time"]["image_s"] for r in records]) - bank,
    )


def joined(one: Particles, other: Particles) -> Particles:
    """Those of both runs for each image. Raises InputError where they hold other images."""
    if one.images != other.images:
        raise InputError(f"the run from the bank holds images {one.images}, that from noise {other.images}: take the same")
    rows = (np.concatenate(pair, axis=1) for pair in zip(one[1:4], other[1:4], strict=True))
    shares = one.loss.shape[1], other.loss.shape[1]
    passes = (one.passes * shares[0] + other.passes * shares[1]) / sum(shares)
    return Particles(one.images, *rows, passes, one.apart_s, one.annealing_s + other.annealing_s)


def mixture(text: str) -> tuple[int, int]:
    """Of "2+1": two from the bank and one from noise."""
    of_bank, of_noise = map(int, text.split("+"))
    if min(of_bank, of_noise) < 1:
        raise ValueError
    return of_bank, of_noise


def point(name: str, particles: Particles, count: str) -> Point:
    pick = particles.loss.argmin(1)[:, None]
    psnr, solved = (np.take_along_axis(array, pick, 1) for array in (particles.psnr, particles.solved))
    seconds = float(np.mean(particles.apart_s + particles.annealing_s))
    passes = particles.passes * particles.loss.shape[1]
    return Point(name, count, passes, seconds, float(psnr.mean()), int(solved.sum()), len(pick))


def curves(runs: Path, bank_run: str, noise_run: str, mixtures: Sequence[tuple[int, int]]) -> list[Point]:
    bank, noise = load(runs / bank_run), load(runs / noise_run)
    points = [
        point(name, family.first(size), str(size))
        for name, family in (("bank", bank), ("noise", noise))
        for size in SIZES
        if size <= family.loss.shape[1]
    ]
    for of_bank, of_noise in mixtures:
        if of_bank > bank.loss.shape[1] or of_noise > noise.loss.shape[1]:
            raise InputError(f"--mixed {of_bank}+{of_noise}: {runs} holds fewer particles")
        mixed = joined(bank.first(of_bank), noise.first(of_noise))
        points.append(point("mixed", mixed, f"{of_bank}+{of_noise}"))
    for name in POINTS:
        if (runs / name).is_dir():
            particles = load(runs / name)
            points.append(point(name, particles, str(particles.loss.shape[1])))
    return points


def row(p: Point) -> str:
    """Of the table, in Markdown."""
    return f"| {p.name} | {p.particles} | {p.passes:.0f} | {p.seconds:.1f} | {p.psnr:.1f} | {p.solved}/{p.images} |"


def draw(points: Sequence[Point], out: Path) -> None:
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex="col", sharey="row", layout="constrained")
    families = {name: [p for p in points if p.name == name] for name in dict.fromkeys(p.name for p in points)}
    for (across, label), column in zip(
        (("passes", "decoder passes an image"), ("seconds", "seconds an image")), axes.T, strict=True
    ):
        for name, family in families.items():
            x = [getattr(p, across) for p in family]
            style = "o-" if len(family) > 1 else "D"
            column[0].plot(x, [100 * p.solved / p.images for p in family], style, label=name)
            column[1].plot(x, [p.psnr for p in family], style)
        column[1].set_xscale("log")
        column[1].xaxis.set_major_formatter("{x:g}")
        column[1].set_xlabel(label)
    axes[0, 0].set_ylabel("label-free pick succeeds (%)")
    axes[1, 0].set_ylabel("label-free pick, better orientation (dB)")
    axes[0, 0].legend(fontsize=8)
    save_figure(figure, out, dpi=110)


def main() -> None:
    parser = Parser(prog="starts_curve.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=PROJECT / "evidence" / "photographs_starts", help="folder of the runs")
    parser.add_argument("--bank", default="bank16", help="run whose particles all come from the bank")
    parser.add_argument("--noise", default="noise16", help="run whose particles all come from noise")
    parser.add_argument("--mixed", nargs="*", type=mixture, default=HALVES, metavar="BANK+NOISE", help="mixtures, such as 2+1")
    parser.add_argument("--out", type=Path, help="the figure, .png")
    args = parser.parse_args()
    points = curves(args.runs, args.bank, args.noise, args.mixed)
    print("| particles | of an image | decoder passes | seconds | pick (dB) | pick succeeds |\n|---|---:|---:|---:|---:|---:|")
    print(*map(row, points), sep="\n")
    if args.out:
        draw(points, args.out)


if __name__ == "__main__":
    run(main)
