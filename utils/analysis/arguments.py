"""The command-line arguments that name finished runs, and what decides how they become experiments."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from utils.analysis import experiments, runs
from utils.analysis.experiments import Experiment, gather
from utils.errors import InputError


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """RESULTS and what decides how they become experiments."""
    parser.add_argument(
        "results", nargs="+", metavar="RESULTS", help="run folders, also kept ones, folders of runs, or metrics.json files"
    )
    parser.add_argument("--baseline", help="run that costs and differences refer to, by name or folder (default: the first)")
    parser.add_argument("--pool", action="store_true", help="one row for runs whose configs differ only in the seed")
    parser.add_argument("--by-name", action="store_true", help="one row for runs of one name, on several data sets")
    parser.add_argument(
        "--best-of",
        type=int,
        metavar="K",
        help="also show what K of the particles of each run of independent ones would have given",
    )
    parser.add_argument("--common", action="store_true", help="only the images that all of the runs hold (needs their records)")
    parser.add_argument(
        "--from-records", action="store_true", help="aggregate the records anew instead of trusting metrics.json"
    )


def read_experiments(
    results: Sequence[str | Path],
    pool: bool = False,
    best_of: int | None = None,
    from_records: bool = False,
    common: bool = False,
    by_name: bool = False,
) -> list[Experiment]:
    """The experiments that RESULTS name, derived ones after the run that they come from. Raises InputError."""
    loaded = [runs.load(path, from_records) for path in runs.find(results)]
    if by_name and pool:
        raise InputError("by-name: rows over several data sets share no config; leave out pool")
    measured = gather(runs.restrict_to_common(loaded, by_data=by_name) if common else loaded, pool, by_name)
    if best_of is None:
        return measured
    if best_of < 1:
        raise InputError(f"best-of={best_of}: must be at least 1")
    extended, derived = [], 0
    for experiment in measured:
        extended.append(experiment)
        if experiment.can_split and experiment.num_samples > best_of:
            extended.append(experiments.best_of(experiment, best_of))
            derived += 1
    if not derived:
        raise InputError(f"best-of={best_of}: no run of independent particles has more than {best_of} particles")
    return extended
