"""The thresholds by which population=sequential tells a solved image, from finished runs whose truth is known.

    python tools/calibrate_certificate.py results/validation_faces
    python tools/calibrate_certificate.py results/alone_0 results/alone_1 --start 1 --add 1 --out faces.json

Runs of one prior, task and sampler, population=fixed, on validation images, with their latents. Runs of the same images and
seed with other particle numbers (first_particle) are one population. Prints, for so many particles at once and for sequential
ones, the thresholds and what they decide on images that they were not chosen on (utils/population/calibrating.py), and writes
certificate.json beside the checkpoint, which population=sequential reads; --out certificate-NAME.json there keeps that of
another setting too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from utils.analysis import runs
from utils.analysis.stats import wilson
from utils.command_line import Parser, run, say, write_file
from utils.config.fingerprint import differences
from utils.config.settings import Settings
from utils.digests import of_prior
from utils.errors import InputError
from utils.mechanisms import registry
from utils.mechanisms.registry import PLANS
from utils.population.calibrating import Aim, Choice, FinishedParticles, Sequences, Thresholds, applied, calibrate
from utils.population.settings import FILE, UNCALIBRATED, Sequential, holds_for
from utils.records.files import to_json
from utils.running.finished import TRUST, refuse_other_content, settings_of_finished
from utils.weights import beside_checkpoint

if TYPE_CHECKING:
    import torch

    from operators.base import Operator
    from utils.running.build import Parts
    from utils.sampling.outcome import SampleResult


BATCH = 16  # images whose particles are scored together
WIDTH = 80  # characters of the table and its notes, in any terminal


def main() -> None:
    parser = Parser(prog="calibrate_certificate.py", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, with their records")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: certificate.json beside the checkpoint")
    parser.add_argument("--accept", type=float, default=0.02, help="largest share of images falsely accepted (0.02)")
    parser.add_argument("--passes", type=float, metavar="N", help="instead: the fewest failed images at N passes an image")
    parser.add_argument("--margin", type=float, metavar="DB", help="so far below the image's best is no success either")
    parser.add_argument("--start", type=int, default=Sequential().start, help="sequential.start that it is for (2)")
    parser.add_argument("--add", type=int, default=Sequential().add, help="sequential.add that it is for (2)")
    parser.add_argument("--sigmas", type=float, nargs="+", default=Sequential().sigmas, help="of the denoising score")
    parser.add_argument("--trust", action="append", default=[], metavar="MODULE.CLASS", help=TRUST)
    args = parser.parse_args()
    if not 0 <= args.accept < 1:
        raise InputError(f"accept={args.accept}: must be a share, 0 or more and below 1")
    if args.passes is not None and not args.passes > 0:  # nan is no number of passes either
        raise InputError(f"passes={args.passes:g}: must be above 0")
    if args.margin is not None and not args.margin >= 0:
        raise InputError(f"margin={args.margin}: must not be negative")
    if min(args.start, args.add) < 1 or not all(sigma > 0 for sigma in args.sigmas):
        raise InputError(f"start={args.start}, add={args.add}, sigmas={args.sigmas}: must be above 0")
    finished = [runs.load(folder) for folder in args.runs]
    settings = [settings_of(run, args.trust) for run in finished]
    held = common_ground(finished, settings)
    out = args.out or beside_checkpoint(settings[0].model.path, FILE)
    if out is None:
        raise InputError(f"model.path={settings[0].model.path}: has no folder here; say where with --out")
    operator, pieces = None, []
    for run_, s in zip(finished, settings):
        operator, more = pieces_of(run_, s, args.sigmas)
        pieces += more
    groups = joined(pieces, operator, args.margin)
    most = len(groups[0].loss)
    if args.start > most:
        raise InputError(f"start={args.start}: the runs have {most} particles an image; choose less, or name more runs")
    schedules: dict[str, tuple[int, ...]] = {str(count): (count,) for count in range(1, most + 1)}
    wanted = f"{args.start} + {args.add} ..."
    schedules[wanted] = Sequential(start=args.start, add=args.add).rounds(most)
    passes = sum(phase.decoder_forward_backward for phase in finished[0].metrics.time.phases.values())
    exchange = any(plan.copies(settings[0]) for plan in PLANS)
    aim = Aim(args.accept, args.passes and args.passes / passes, agreement=not exchange)
    chosen = {name: calibrate(groups, sizes, aim) for name, sizes in schedules.items()}
    show(groups, schedules, chosen, aim, passes)
    certificate = {
        "thresholds": chosen[wanted].thresholds._asdict(),
        "sigmas": args.sigmas,
        "holds_for": held,
        "complete": True,
        "prior": of_prior(settings[0].model_node),
        "images": len({group.image for group in groups}),
        "rates": {
            "rounds": list(schedules[wanted]),
            **({"passes": args.passes} if args.passes else {"allowed_false_accepts": args.accept}),
            "margin_db": args.margin,
            "leave_one_image_out": chosen[wanted].without._asdict(),
            "on_the_same_images": chosen[wanted].on_the_same_images._asdict(),
            "decoder_passes_per_particle": passes,
            "runs": [str(folder) for folder in args.runs],
        },
    }
    if (before := write_file(to_json(certificate) + b"\n", out, keep_other=True)) is not None:
        say(f"{before}: the certificate that was there before")
    say(f"{out}: the thresholds of {wanted}")


def settings_of(finished: runs.Run, trusted: Collection[str] = ()) -> Settings:
    """The settings of a run, of all its images. Raises InputError where they give no calibration."""
    if finished.config is None:
        raise InputError(f"{finished.folder}: is no run folder (no config.yaml)")
    if finished.config.get("population", "fixed") != "fixed" or registry.resized(finished.metrics):
        raise InputError(f"{finished.folder}: not all of its particles ran to the end; name runs of population=fixed, unpruned")
    if finished.metrics.modes is None:
        raise InputError(f"{finished.folder}: has no labels of success, which need a truth and a task with two orientations")
    return settings_of_finished(finished.config, finished.folder, trusted)


def common_ground(finished: Sequence[runs.Run], settings: Sequence[Settings]) -> dict[str, Any]:
    """What a certificate of these runs holds for. Raises InputError where they differ in it."""
    grounds = [{**holds_for(s.composition.identity), "prior": s.model.path} for s in settings]
    for run_, ground in zip(finished, grounds):
        if changed := differences(grounds[0], ground):
            raise InputError(f"{run_.folder}: {changed[0]} (there: {finished[0].folder}); name runs of one setting")
    return {key: value for key, value in grounds[0].items() if key != "prior"}


class Piece(NamedTuple):
    """The finished particles of one image in one run."""

    image: tuple[str, int]  # data set and id
    seed: int
    numbers: list[int]
    loss: list
    deviation: list
    denoising: list
    labelled: list[bool]  # as a success
    psnr: list  # in the better orientation
    pictures: torch.Tensor  # (n, 3, H, W) in [-1, 1]


def pieces_of(finished: runs.Run, settings: Settings, sigmas: Sequence[float]) -> tuple[Operator, list[Piece]]:
    """(operator, [Piece]) of one run, with signals as a sequential run computes them."""
    from utils.population.certificate import Certificate
    from utils.population.prior_score import PriorScore
    from utils.running.build import build

    records = finished.records(wanted=("y", "z"))
    if not records or "z" not in records[0][1]:
        raise InputError(f"{finished.folder}: its records hold no latents; name the run folder under results/")
    parts, pieces = build(settings, tried=False), []
    refuse_other_content((record for record, _ in records), finished.folder, settings.digests())
    certificate = Certificate(parts.operator, PriorScore(parts.sampler.prior, parts.noise, sigmas), UNCALIBRATED)
    for start in range(0, len(records), BATCH):
        batch = [record for record, _ in records[start : start + BATCH]]
        result = as_result(parts, settings, records[start : start + BATCH])
        signals = certificate.signals(result)
        for record in batch:
            rows = result.particles.of_image(record["image_id"])
            at = [record["particles"].index(number) for number in record["survivors"]]
            deviation, denoising = ([signals[name][row] for row in rows.tolist()] for name in ("deviation", "denoising"))
            labelled = [record["modes"]["label"][i] in runs.SUCCESSFUL for i in at]
            image = (settings.data.root, record["image_id"])
            pictures = result.image[rows.to(result.image.device)].cpu()
            loss, psnr = [record["loss"][i] for i in at], [record["modes"]["psnr_aligned"][i] for i in at]
            numbers = record["survivors"]
            pieces.append(Piece(image, settings.seed, numbers, loss, deviation, denoising, labelled, psnr, pictures))
    return parts.operator, pieces


def as_result(parts: Parts, settings: Settings, batch: Sequence[tuple[dict[str, Any], dict[str, np.ndarray]]]) -> SampleResult:
    """The utils.sampling.outcome.SampleResult of some (record, arrays), decoded again from their latents."""
    import torch

    from utils.sampling import particles as state
    from utils.sampling.outcome import SampleResult

    counts = [len(record["survivors"]) for record, _ in batch]
    ids = [record["image_id"] for record, _ in batch]
    if len({(arrays["y"].shape, arrays["z"].shape[1:]) for _, arrays in batch}) > 1:
        raise InputError(
            f"records of images {ids[0]} to {ids[-1]}: their measurements or latents differ in shape; sample one again"
        )
    y = torch.from_numpy(np.stack([arrays["y"] for _, arrays in batch])).to(parts.device)
    repeats = torch.tensor(counts, device=parts.device)
    particles = state.Particles(
        z=torch.from_numpy(np.concatenate([arrays["z"] for _, arrays in batch])).to(parts.device),
        y=y.repeat_interleave(repeats, dim=0),
        image=torch.tensor(ids).repeat_interleave(torch.tensor(counts)),
        index=torch.tensor([number for record, _ in batch for number in record["survivors"]]),
    )
    with torch.no_grad():
        image = parts.sampler.prior.decode(particles.z)
        return SampleResult(particles, image, parts.operator.loss(image, particles.y), [], {})


def joined(pieces: Sequence[Piece], operator: Operator, margin: float | None = None) -> list[FinishedParticles]:
    """The finished particles of each image and seed. Raises InputError where runs hold a particle twice.

    margin: in dB; what lies by more below the best of the image's particles is no success either.
    """
    import torch

    from utils.population.certificate import agreements

    grouped: dict[tuple[tuple[str, int], int], list[Piece]] = {}
    for piece in pieces:
        grouped.setdefault((piece.image, piece.seed), []).append(piece)
    groups = []
    for (image, seed), parts in grouped.items():
        numbers = [number for part in parts for number in part.numbers]
        if len(set(numbers)) < len(numbers):
            raise InputError(f"image {image[1]}, seed {seed}: two runs hold a particle of the same number; name one of them")
        loss, deviation, denoising, psnr, labelled = (
            np.array([value for part in parts for value in getattr(part, name)], dtype=float)
            for name in ("loss", "deviation", "denoising", "psnr", "labelled")
        )
        success = labelled.astype(bool)
        if margin is not None and success.any():
            success &= psnr >= psnr[success].max() - margin
        agreement = agreements(torch.cat([part.pictures for part in parts]), operator).numpy()
        groups.append(FinishedParticles(image, loss, deviation, denoising, agreement, success, psnr))
    if len(counts := {len(group.loss) for group in groups}) > 1:
        raise InputError(f"the images have {' and '.join(map(str, sorted(counts)))} particles; name runs with as many for each")
    return groups


def show(
    groups: Sequence[FinishedParticles],
    schedules: Mapping[str, tuple[int, ...]],
    chosen: Mapping[str, Choice],
    aim: Aim,
    passes: float,
) -> None:
    """The table on the terminal, WIDTH columns wide: thresholds, what they decide, and what it costs."""
    images = len({group.image for group in groups})
    note = (
        "" if aim.agreement else " No agreement is tried: with the exchange a later particle may be a copy of an earlier one."
    )
    asked = f"at most {100 * aim.wrong:g} % of the images falsely accepted"
    if aim.started is not None:
        asked = f"the fewest failed images for {aim.started * passes:g} passes"
    title = f"{images} images of {len(groups[0].loss)} particles, {asked}"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for head in ("particles", "dev/den/agr", "pass", "false %", "failed %", "dB", "passes"):
        table.add_column(head, justify="left" if head == "particles" else "right", no_wrap=True)
    *_, (last, wanted) = schedules.items()
    usual = Thresholds(UNCALIBRATED.deviation, UNCALIBRATED.denoising, UNCALIBRATED.agreement)
    rows = [(name, sizes, chosen[name].thresholds, chosen[name].without) for name, sizes in schedules.items()]
    for name, sizes, thresholds, outcome in [*rows, ("no file", wanted, usual, applied(groups, wanted, usual))]:
        numbers = "/".join("–" if value is None else f"{value:.3g}" for value in thresholds)
        shares = [rate(value, images) for value in (outcome.wrong, outcome.failed)]
        cost = f"{outcome.started * passes:.0f}/{sum(sizes) * passes:.0f}"
        table.add_row(name, numbers, f"{100 * outcome.accepted:.0f} %", *shares, f"{outcome.psnr:.2f}", cost)
    console = Console(width=WIDTH)
    console.print(table)
    lowest = ", ".join(
        f"{sum(s)}: {100 * Sequences(groups, s).picked_wrong():.3g} %" for s in schedules.values() if len(s) == 1
    )
    console.print(
        f"particles: so many at once, or {last} (start, then more at a time); no file: these rounds without a certificate. "
        "Each image is decided by thresholds chosen without it, with 95 % Wilson intervals over images; those shown are of all "
        "images. dev: loss above its floor in standard deviations, den: denoising score, agr: agreement. "
        "Failed: the pick is no success; false: it passes, and is none; both of all images. dB: of the pick, in the better "
        "orientation; passes of the decoder, forward and backward, on average / at most (a certificate costs a particle an "
        "encoding and a denoiser call per level more). Without one the particle of the lowest loss fails, "
        f"of {lowest}.{note}",
        highlight=False,
    )


def rate(share: float, images: int) -> str:
    """A share of images with its interval, in per cent."""
    interval = wilson(share, images)
    return f"{100 * share:.2g} [{100 * interval.low:.0f},{100 * interval.high:.0f}]"


if __name__ == "__main__":
    run(main)
