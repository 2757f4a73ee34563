"""Experiments side by side: every number of the tables, as one nested dict per experiment."""

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

from utils.analysis import stats
from utils.analysis.costs import cost, mean_std, phases
from utils.analysis.experiments import Experiment, Values, find_label
from utils.analysis.rates import complement, failed, rate
from utils.mechanisms import registry
from utils.metrics.base import table_key
from utils.metrics.loss import Loss
from utils.metrics.registry import BESIDE_LOSS, COMPARED
from utils.records.aggregate import finite
from utils.records.summary import resolution

PSNR, *OTHERS = (metric.name for metric in COMPARED)
SCORES = (PSNR, "psnr_aligned", *OTHERS)

RATES = ("success", "success_pick", "both_modes")

PAIRED = (
    "psnr_aligned.best",
    "psnr_aligned.mean",
    "psnr_aligned.pick",
    "psnr.best",
    "psnr.pick",
    "pick_psnr",
    "aligned_mean",
    "failed",
    "success",
    "success_pick",
    "both_modes",
    "pairwise_distance",
)


def compare(experiments: Sequence[Experiment], baseline: str | None = None) -> list[dict[str, Any]]:
    """One nested dict of numbers per experiment (json keys are the names in the tables' column lists).

    baseline: label of the experiment that costs are relative to and that differences are taken from. Raises InputError.
    """
    reference = find_label(experiments, baseline) if baseline else None
    return [summarise(experiment, reference) for experiment in experiments]


def summarise(experiment: Experiment, reference: Experiment | None = None) -> dict[str, Any]:
    """All numbers of one experiment; means are over images (and seeds), std is over images."""
    e = experiment
    row = {
        "experiment": e.label,
        "folders": [str(run.folder) for run in e.runs],
        "images": len(e.images),
        "seeds": sorted({unit.seed for unit in e.units}),
        "particles": _particles(e),
    }
    for name in SCORES:
        row[name] = _parts(e, name)
    own_metrics = {m.name: m for run in e.runs for m in run.metrics.compared if m not in COMPARED}
    if own_metrics:
        row["metrics"] = {name: {**m.about(), **_parts(e, table_key(m))} for name, m in own_metrics.items()}
    for name in RATES:
        row[name] = rate(e.clusters(name))
    row["failed"], row["failures"] = failed(e.units), _failures(e)
    row["success_single"] = complement(row["failed"])
    row["robust"] = {part: _distribution(e, part) for part in ("single", "pick", "best")}
    for name in ("pick_psnr", "aligned_mean", "coverage", "pairwise_distance", "noise_floor"):
        row[name] = mean_std(e, name)
    row["loss"] = {part: mean_std(e, f"loss.{part}") for part in ("best", "mean", "pick", "deviation")}
    for name in (metric.name for metric in BESIDE_LOSS if metric is not Loss):
        row[name] = {part: mean_std(e, f"{name}.{part}") for part in ("mean", "pick")}
    row["trivial"] = {
        "name": next(iter(e.runs[0].trivial), None),
        "psnr": mean_std(e, "psnr.trivial"),
        "gain": _difference(stats.clustered_mean(e.clusters("psnr.gain")), len(e.clusters("psnr.gain"))),
    }
    row["phases"] = None if e.derived else phases(e)
    resolved = e.runs[0].metrics.resolved
    if resolved is not None:
        row["resolved"] = resolution(resolved.model_dump())
    row["cost"] = cost(e, reference)
    row["paired"] = paired(e, reference) if reference is not None and reference is not e else None
    return row


def _parts(e: Experiment, name: str) -> dict[str, Any]:
    """Of one score."""
    return {part: mean_std(e, f"{name}.{part}") for part in ("best", "mean", "pick", "spread")}


def _particles(e: Experiment) -> str:
    n = e.num_samples
    if e.derived:
        return str(e.subset)
    sequential = e.runs[0].metrics.population is not None
    if not registry.resized(e.runs[0].metrics) and not sequential:
        return str(n)
    active = statistics.fmean(run.active(i) for run in e.runs for i in range(run.metrics.metadata.num_images))
    if sequential:
        return f"{active:.3g} (≤ {n})"
    return f"{n} → {active:.3g}"


def better(values: Values, part: str) -> float | None:
    """PSNR of the best, the mean or the pick from an image's values; in the better orientation where the task has two."""
    return values.get(f"psnr_aligned.{part}", values.get(f"psnr.{part}"))


def _distribution(e: Experiment, part: str) -> dict[str, float] | None:
    """{average, median, low5, n} of the PSNR of single particles, of the pick or of the best, per image and seed, in the
    better orientation: what a mean and a standard deviation hide where there are two modes.

    None for pick and best of a derived experiment: its values are expectations, whose spread is not that of outcomes.
    """
    if part == "single":
        blocks = [run.metrics.modes.psnr_aligned if run.metrics.modes else run.metrics.psnr.sample for run in e.runs]
        values = finite([value for block in blocks for row in block for value in row])
    else:
        values = [] if e.derived else finite([better(values, part) for values in e.units.values()])
    if not values:
        return None
    median, low = stats.quantiles(values)
    return {"average": statistics.fmean(values), "median": median, "low5": low, "n": len(values)}


def _failures(e: Experiment) -> dict[str, Any] | None:
    """{count, ids} of the images in which no particle succeeded; ids carry their seeds where there are several.

    Of several seeds the mean number. Of a derived experiment the expected number, and the images that fail with some
    subset. None without labels.
    """
    success = {unit: values["success"] for unit, values in e.units.items() if values.get("success") is not None}
    if not success:
        return None
    lost: dict[int | str, list[str]] = {}
    sets = {unit.data for unit in success}
    for unit in sorted((unit for unit in success if success[unit] < 1), key=lambda u: (str(u.data), u.image, u.seed)):
        image = f"{Path(unit.data).name} {unit.image}" if len(sets) > 1 else unit.image
        lost.setdefault(image, []).append(str(unit.seed))
    several = len({unit.seed for unit in success}) > 1
    count = math.fsum(1 - statistics.fmean(values) for values in e.clusters("success"))
    return {
        "count": count if e.derived or several else round(count),
        "ids": [f"{image} ({', '.join(seeds)})" if several else image for image, seeds in lost.items()],
    }


def _difference(estimate: stats.Estimate | None, images: int) -> dict[str, float | None] | None:
    """An utils.analysis.stats.Estimate of a difference over so many images as a table cell; None where it is not known."""
    return None if estimate is None else {"difference": estimate.value, "low": estimate.low, "high": estimate.high, "n": images}


def paired(e: Experiment, reference: Experiment) -> dict[str, Any]:
    """Differences e - reference on the common images: {quantity: {difference, low, high, n}}, n = images.

    Every image counts alike, however many of its particles there are; a rate of failed particles counts particles.
    """
    row = {"baseline": reference.label, "images": len({unit.picture for unit in e.units if unit in reference.units})}
    for quantity in PAIRED:
        clusters = _differences(e, reference, methodcaller("get", quantity))
        estimate = stats.paired_rate if quantity in RATES else stats.clustered_mean
        difference = estimate(clusters)
        # where the images agree there is nothing to resample
        if quantity == "failed" and difference is not None and difference.low == difference.high:
            difference = stats.paired_rate(clusters)
        row[quantity] = _difference(difference, len(clusters))
    row["changed"] = {name: _changed(e, reference, name) for name in ("success", "success_pick")}
    row["wilcoxon"] = {part: _wilcoxon(e, reference, part) for part in ("best", "mean", "pick")}
    return row


def _differences(e: Experiment, reference: Experiment, get: Callable[[Values], float | None]) -> list[list[float]]:
    """Of get(values), for each image of which both know it, one per seed."""
    grouped: dict[tuple[str | None, int], list[float]] = {}
    for unit, values in e.units.items():
        a, b = get(values), get(reference.units.get(unit, {}))
        if a is not None and b is not None:
            grouped.setdefault(unit.picture, []).append(a - b)
    return list(grouped.values())


def _changed(e: Experiment, reference: Experiment, name: str) -> dict[str, float] | None:
    """{gained, lost, p, n}: images that succeed only here, only in the reference, and McNemar's exact p.

    Of several seeds an image counts by the sign of its mean difference. None where one of the two is derived: an
    expectation over subsets is no outcome.
    """
    differences = [math.fsum(of_seeds) for of_seeds in _differences(e, reference, methodcaller("get", name))]
    if e.derived or reference.derived or not differences:
        return None
    gained, lost = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    return {"gained": gained, "lost": lost, "p": stats.mcnemar(gained, lost), "n": len(differences)}


def _wilcoxon(e: Experiment, reference: Experiment, part: str) -> dict[str, float | None] | None:
    """{shift, p, n}: the median difference per image of a PSNR in the better orientation, and Wilcoxon's p."""
    differences = [statistics.fmean(of_seeds) for of_seeds in _differences(e, reference, partial(better, part=part))]
    if not differences:
        return None
    return {"shift": statistics.median(differences), "p": stats.wilcoxon(differences), "n": len(differences)}


def per_image(experiments: Sequence[Experiment]) -> list[dict[str, Any]]:
    """One flat dict per experiment, data set, seed and image, sorted by image."""
    rows = [
        {"experiment": e.label, "data": unit.data, "seed": unit.seed, "image": unit.image, **values}
        for e in experiments
        for unit, values in e.units.items()
    ]
    order = {e.label: i for i, e in enumerate(experiments)}
    return sorted(rows, key=lambda row: (str(row["data"]), row["image"], row["seed"], order[row["experiment"]]))
