"""Is the spread of a setting's particles an error bar? Truths from the prior itself, measured, sampled, and counted.

    python tools/calibration.py sampler=fast --truths 8                       # a minute on two cores
    python tools/calibration.py sampler=fast temperature=1 name=honest --truths 32
    python tools/calibration.py sampler=fast data=demo-scenes model=demo-scenes num_samples=8 name=eight

Overrides are those of posterior_sample.py; the images of `data` are not read. Each truth is a sample of the prior (its
probability flow, solved by Heun's method), decoded and measured with the task's noise; where the prior is right, a truth
and the particles found for its measurement should be draws of one law (utils/analysis/sbc.py). Particles are turned onto the
truth where the measurement does not see the turn. Writes <save_dir>/<name>_calibration.json and .png, which tools/report.py
quotes beside a run of the same name and settings.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.analysis.calibrated import calibration_path
from utils.analysis.sbc import orientation_tests, ranks_of, ratio_of_sums, within
from utils.analysis.stats import clustered_mean
from utils.command_line import Parser, run, say, write_text
from utils.config.check import check
from utils.config.compose import compose
from utils.config.sections import Success
from utils.config.settings import Settings
from utils.errors import InputError
from utils.records.files import to_json

if TYPE_CHECKING:
    import torch

    from operators.base import Operator
    from utils.running.build import Parts


STEPS = 40  # of Heun's method, two denoiser calls each
LAST_SIGMA = 0.01  # where the flow ends: far below what a latent's pixels differ by


def main() -> None:
    parser = Parser(prog="calibration.py", description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as of posterior_sample.py")
    parser.add_argument("--truths", type=int, default=8, help="how many are drawn; an interval wants 30 or more")
    args = parser.parse_intermixed_args()  # overrides may stand on both sides of the options
    if args.truths < 1:
        raise InputError(f"truths={args.truths}: must be at least 1")
    settings = check(compose(args.overrides))
    if settings.population != "fixed":
        raise InputError(f"population={settings.population}: spread and error are compared of a fixed population; choose fixed")
    if settings.num_samples < 2:
        raise InputError(f"num_samples={settings.num_samples}: one particle has no spread; choose at least 2")
    from utils.figures.calibration import draw

    out = calibration_path(settings.folder)
    calibration = {"fingerprint": settings.composition.fingerprint, "overrides": args.overrides}
    calibration |= summary(list(cases(settings, args.truths)), settings.num_samples)
    write_text(to_json(calibration).decode() + "\n", out)
    draw(calibration, out.with_suffix(".png"))
    print(table(calibration))
    say(f"{out} and {out.with_suffix('.png').name}")


def cases(settings: Settings, count: int) -> Iterator[dict[str, Any]]:
    """For each truth {ranks, variance, error, agreeing: {...}, label}: what `summary` reads, of its particles' pixels."""
    from utils.running.build import build

    parts = build(settings)
    ids = list(range(count))
    truths = prior_samples(parts, ids, settings.sampler.annealing_scheduler_config.sigma_max)  # (N, 3, H, W)
    for image, truth in zip(ids, truths):
        yield case(particles_of(parts, settings, image, truth), parts.operator, truth, settings.success)
        print(f"truth {image + 1} of {count}", file=sys.stderr)


def prior_samples(parts: Parts, ids: Sequence[int], sigma_max: float) -> torch.Tensor:
    """(N, 3, H, W) decoded samples of the prior: its probability flow from noise of sigma_max, keyed by seed and number."""
    import torch

    from utils.sampling.particles import Particles
    from utils.sampling.schedule import ode_sigmas

    prior = parts.prior
    start = Particles.start(torch.zeros(len(ids), 1, device=prior.device), ids, 1, 0, prior.latent_shape, prior.dtype)
    sigmas = [torch.tensor(s, device=prior.device, dtype=prior.dtype) for s in ode_sigmas(sigma_max, STEPS, LAST_SIGMA)]
    with torch.no_grad():
        return prior.decode(heun(prior.denoise, sigmas[0] * parts.noise.draw(start, "truth"), sigmas))


def heun(
    denoise: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], z: torch.Tensor, sigmas: Sequence[torch.Tensor]
) -> torch.Tensor:
    """dz/dsigma = (z - D(z, sigma)) / sigma along `sigmas` by Heun's method (Karras et al., arXiv 2206.00364, algorithm 1),
    and at the last of them the denoiser itself."""
    for sigma, below in zip(sigmas[:-1], sigmas[1:]):
        slope = (z - denoise(z, sigma)) / sigma
        euler = z + (below - sigma) * slope
        z = z + (below - sigma) * (slope + (euler - denoise(euler, below)) / below) / 2
    return denoise(z, sigmas[-1])


def particles_of(parts: Parts, settings: Settings, image: int, truth: torch.Tensor) -> tuple[torch.Tensor, list[float]]:
    """(images (P, 3, H, W), losses) of the particles that the settings find for one truth's measurement, on the CPU."""
    from utils.running.build import measure
    from utils.sampling.particles import Particles
    from utils.sampling.profiler import Profiler

    if parts.instrument is not parts.operator:
        raise InputError(
            f"data.resolution={parts.side}: truths are drawn by the prior, at {parts.prior.resolution} pixels; "
            "leave the levels out"
        )
    particles = Particles.start(
        measure(parts, truth, image),
        [image],
        settings.num_samples,
        settings.first_particle,
        parts.prior.latent_shape,
        parts.prior.dtype,
    )
    result = parts.sampler.sample(particles, Profiler(parts.device))
    return result.image.float().cpu(), result.loss.tolist()


def case(
    particles: tuple[torch.Tensor, list[float]], operator: Operator, truth: torch.Tensor, success: Success
) -> dict[str, Any]:
    """The numbers of one truth (3, H, W); particles that diverged are left out."""
    from utils.evaluation.aligned import summarise, symmetry, turned_onto
    from utils.evaluation.scores import mode_labels, pick
    from utils.metrics.pixels import to_unit

    (x, losses), truth = particles, truth.float().cpu()
    fine = [i for i, image in enumerate(x) if bool(image.isfinite().all())]
    x, losses = x[fine], [losses[i] for i in fine]
    turns = symmetry(operator)
    agreeing = summarise(to_unit(x), pick(losses), turns).agreeing if fine else []
    labels = mode_labels(x, truth, success.threshold_db, success.margin_db)["label"] if fine and turns else []
    unit, truth = x / 2 + 0.5, truth / 2 + 0.5  # unclipped: at the ends of [0, 1] ranks would tie
    unit = turned_onto(unit, truth, turns).numpy() if fine else unit.numpy()
    return {
        "all": numbers(unit, truth.numpy()),
        "agreeing": numbers(unit[agreeing], truth.numpy()) if fine else None,
        "label": labels,
    }


def numbers(x: np.ndarray, truth: np.ndarray) -> dict[str, Any] | None:
    """Of particles x (n, ...) and their truth: ranks of the pixels, variance times 1 + 1/n, squared error of the mean.

    The latter two are means over pixels. None of fewer than two.
    """
    n = len(x)
    if n < 2:
        return None
    return {
        "n": n,
        "ranks": np.bincount(ranks_of(x, truth).ravel(), minlength=n + 1),
        "variance": float(x.var(0, ddof=1).mean() * (1 + 1 / n)),
        "error": float(((x.mean(0) - truth) ** 2).mean()),
    }


def summary(truths: Sequence[Mapping[str, Any]], particles: int) -> dict[str, Any]:
    """The numbers of all truths as one dict: of all their particles, of those that agree with the pick, and orientations."""
    blocks = {name: block([c[name] for c in truths if c[name]]) for name in ("all", "agreeing")}
    whole = [c["all"]["ranks"] for c in truths if c["all"] and c["all"]["n"] == particles]
    turned = [sum(label == "180" for label in c["label"]) for c in truths]
    oriented = [sum(label in ("0", "180") for label in c["label"]) for c in truths]
    covered = blocks["agreeing"]["covered"] if blocks["agreeing"] else None
    has_interval = covered is not None and covered["low"] is not None
    return {
        "truths": len(truths),
        "particles": particles,
        **blocks,
        "rank_histogram": (np.sum(whole, 0) / np.sum(whole)).tolist() if whole else None,
        "orientations": orientation_tests(turned, oriented),
        "both_orientations": sum(0 < k < n for k, n in zip(turned, oriented)),
        "calibrated": has_interval and covered["low"] <= blocks["agreeing"]["nominal"] <= covered["high"],
    }


def block(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Spread, error, their ratio, and how often a pixel lies between its least and greatest particle; None of no truth."""
    if not cases:
        return None
    inside = []
    for c in cases:
        between = within(np.arange(c["n"] + 1), c["n"])  # (n + 1,) bool: which ranks lie between least and greatest
        inside.append(float(c["ranks"][between].sum() / c["ranks"].sum()))
    ratio = ratio_of_sums([c["variance"] for c in cases], [c["error"] for c in cases])
    return {
        "truths": len(cases),
        "spread": float(np.mean([c["variance"] / (1 + 1 / c["n"]) for c in cases]) ** 0.5),
        "error": float(np.mean([c["error"] for c in cases]) ** 0.5),
        "ratio": {name: None if v is None else v**0.5 for name, v in ratio._asdict().items()},
        "nominal": float(np.mean([(c["n"] - 1) / (c["n"] + 1) for c in cases])),
        "covered": clustered_mean([[v] for v in inside])._asdict(),
        "per_truth": [{"spread": (c["variance"] / (1 + 1 / c["n"])) ** 0.5, "error": c["error"] ** 0.5} for c in cases],
    }


def table(totals: Mapping[str, Any]) -> str:
    """Markdown, with what the numbers mean in the heads."""
    lines = [
        "| particles | truths | spread | error of the mean | spread / error, 1 if calibrated | interval, nominal | covers |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, title in (("all", "all"), ("agreeing", "agreeing with the pick")):
        b = totals[name]
        if b:
            ratio, covered = b["ratio"], b["covered"]
            lines.append(
                f"| {title} | {b['truths']} | {b['spread']:.4f} | {b['error']:.4f} | {interval(ratio)} "
                f"| {100 * b['nominal']:.0f} % | {interval(covered, 100, 0)} % |"
            )
    tests = totals["orientations"]
    if tests["of"]:
        lines += [
            "",
            f"Orientations: {tests['turned']} of {tests['of']} particles turned (fair: p = {tests['p']:.2g}); both found for "
            f"{totals['both_orientations']} of {totals['truths']} truths; dispersion {tests['dispersion']:.2f}, of independent "
            f"fair coins 1 (p = {tests['p_dispersion']:.2g}).",
        ]
    return "\n".join(lines)


def interval(estimate: Mapping[str, float | None], factor: float = 1, digits: int = 2) -> str:
    """A value with its 95 % interval over truths."""
    value, low, high = (None if v is None else factor * v for v in (estimate["value"], estimate["low"], estimate["high"]))
    span = "" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{value:.{digits}f}{span}"


if __name__ == "__main__":
    run(main)
