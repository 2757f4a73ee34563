"""Rates with their intervals, as the cells of the tables."""

import math
import statistics

from utils.analysis import stats


def rate(values, clusters):
    """{rate, count, n, low, high} of values in [0, 1], with Wilson's interval over their clusters; None of none."""
    if not values:
        return None
    found = stats.wilson(statistics.fmean(values), len(clusters))
    return {"rate": found.value, "count": math.fsum(values), "n": len(values), "low": found.low, "high": found.high}


def failed(units):
    """The rate of surviving particles that failed, with counts of particles and an interval over images.

    units: {utils.analysis.runs.Unit: {failed: share, surviving: particles}}

    Particles of one image fail together, so images are resampled. Where there is little to resample (all images
    agree, such as on no failure at all, or they are few), the interval is Wilson's with n = number of images.
    """
    clusters, weights, lost, surviving = {}, {}, 0.0, 0
    for unit, values in units.items():
        if values.get("failed") is not None:
            count = round(values["surviving"])
            clusters.setdefault((unit.data, unit.image), []).append(values["failed"])
            weights.setdefault((unit.data, unit.image), []).append(count)
            lost, surviving = lost + values["failed"] * count, surviving + count
    found = stats.clustered_mean(list(clusters.values()), weights=list(weights.values()))
    if found is None:
        return None
    if found.low == found.high or len(clusters) < stats.FEW:
        found = stats.wilson(found.value, len(clusters))
    return {"rate": found.value, "count": round(lost, 9), "n": surviving, "low": found.low, "high": found.high}


def complement(rate):
    """The rate of what did not happen."""
    if rate is None:
        return None
    return {
        "rate": 1 - rate["rate"],
        "count": round(rate["n"] - rate["count"], 9),
        "n": rate["n"],
        "low": 1 - rate["high"],
        "high": 1 - rate["low"],
    }
