"""Rates with their intervals, as the cells of the tables."""

import math
import statistics
from collections.abc import Mapping, Sequence

from utils.analysis import stats
from utils.analysis.runs import Unit

Rate = dict[str, float]  # rate, count, n, low, high


def rate(clusters: Sequence[Sequence[float]]) -> Rate | None:
    """{rate, count, n, low, high} of values in [0, 1], with Wilson's interval over their clusters; None of none."""
    values = [value for cluster in clusters for value in cluster]
    if not values:
        return None
    return _rate(stats.wilson(statistics.fmean(values), len(clusters)), math.fsum(values), len(values))


def _rate(estimate: stats.Estimate, count: float, n: int) -> Rate:
    return {"rate": estimate.value, "count": count, "n": n, "low": estimate.low, "high": estimate.high}


def failed(units: Mapping[Unit, Mapping[str, float | None]]) -> Rate | None:
    """The rate of surviving particles that failed, with counts of particles and an interval over images.

    units: {utils.analysis.runs.Unit: {failed: share, surviving: particles}}

    Particles of one image fail together, so images are resampled. Where there is little to resample (all images
    agree, such as on no failure at all, or they are few), the interval is Wilson's with n = number of images.
    """
    clusters, weights, lost, surviving = {}, {}, 0.0, 0
    for unit, values in units.items():
        if values.get("failed") is not None:
            count = round(values["surviving"])
            clusters.setdefault(unit.picture, []).append(values["failed"])
            weights.setdefault(unit.picture, []).append(count)
            lost, surviving = lost + values["failed"] * count, surviving + count
    estimate = stats.clustered_mean(list(clusters.values()), weights=list(weights.values()))
    if estimate is None:
        return None
    if estimate.low == estimate.high or len(clusters) < stats.FEW:
        estimate = stats.wilson(estimate.value, len(clusters))
    return _rate(estimate, round(lost, 9), surviving)


def complement(rate: Rate | None) -> Rate | None:
    """The rate of what did not happen."""
    if rate is None:
        return None
    estimate = stats.Estimate(1 - rate["rate"], 1 - rate["high"], 1 - rate["low"])
    return _rate(estimate, round(rate["n"] - rate["count"], 9), rate["n"])
