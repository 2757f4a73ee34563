"""What each entry of a portfolio is worth: how its particles fared beside those of the others."""

import statistics

from utils.analysis.rates import failed, rate
from utils.analysis.runs import FOUND
from utils.records.aggregate import finite, spread


def entries(e):
    """{entry's number: {entry, setting, failed, alone, picked, psnr}} of the experiment's portfolio; None without one.

    failed: of the entry's surviving particles, where the task has labels; alone: images in which only particles of this
    entry succeeded; picked: images whose label-free pick is of this entry; psnr: mean over images of its particles' mean, in
    the better orientation. Which entry a particle has follows from its number.
    """
    portfolios = [(run.config or {}).get("portfolio") for run in e.runs]
    if e.derived or not portfolios[0] or any(other != portfolios[0] for other in portfolios):
        return None
    count = len(portfolios[0])
    return {str(i): {"entry": i, "setting": words(entry), **_numbers(e, i, count)} for i, entry in enumerate(portfolios[0])}


def words(entry):
    """An entry of the config in words."""
    return ", ".join(f"{key} {value:g}" for key, value in entry.items() if value is not None) or "as the run"


def _numbers(e, entry, count):
    units, alone, picked, psnr = {}, {}, {}, {}
    for run in e.runs:
        m, first = run.metrics, run.config["first_particle"]
        of_entry = [(first + k) % count for k in range(m.metadata.listed)]
        for i, unit in enumerate(run.units):
            mine = [k for k, other in enumerate(of_entry) if other == entry]
            scores = finite([(m.modes.psnr_aligned if m.modes else m.psnr.sample)[i][k] for k in mine])
            if scores:
                psnr.setdefault(unit[::2], []).append(statistics.fmean(scores))
            if m.selection.picked[i] is not None:
                picked.setdefault(unit[::2], []).append(float(of_entry[m.selection.picked[i]] == entry))
            if m.modes:
                label, diverged = m.modes.label[i], m.diverged[i]
                there = [label[k] not in FOUND for k in mine if label[k] is not None or diverged[k]]
                units[unit] = {"failed": statistics.fmean(there) if there else None, "surviving": len(there)}
                successful = {other for k, other in enumerate(of_entry) if label[k] in FOUND}
                alone.setdefault(unit[::2], []).append(float(successful == {entry}))
    means = [statistics.fmean(values) for values in psnr.values()]
    return {
        "failed": failed(units),
        "alone": _share(alone),
        "picked": _share(picked),
        "psnr": {"mean": statistics.fmean(means), "std": spread(means), "n": len(means), "missing": 0} if means else None,
    }


def _share(by_image):
    """The rate over images; {image: [0 or 1 of each seed]}."""
    return rate([value for values in by_image.values() for value in values], list(by_image.values()))
