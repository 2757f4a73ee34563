"""Runs as experiments: one row of the tables each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.analysis import stats
from utils.analysis.runs import SUCCESSFUL, Run, Unit, exploration_end, image_values
from utils.config.fingerprint import identity
from utils.errors import InputError
from utils.mechanisms import registry
from utils.metrics.base import table_key
from utils.records.metrics import Metrics

RANKED = "utils.algorithms.classical.Classical"  # an algorithm whose particle k is its k-th best

Values = dict[str, float | None]  # {quantity: number or None} of one image


@dataclass
class Experiment:
    """One row of the tables: one run, or several that differ only in the seed, or in data and prior.

    units: {utils.analysis.runs.Unit: {quantity: number or None}}; subset: the size of the subsets of particles that it is
    computed from, None for a measured experiment. A derived one has no costs of its own. until: the timestep t at which
    pairwise distances are read.
    """

    label: str
    runs: list[Run]
    units: dict[Unit, Values] = field(default_factory=dict)
    subset: int | None = None
    until: float | None = None

    def __post_init__(self) -> None:
        if not self.units:
            self.units = {unit: image_values(run, i, self.until) for run in self.runs for i, unit in enumerate(run.units)}

    @property
    def images(self) -> set[tuple[str | None, int]]:
        """{(data, image id)} of all seeds."""
        return {unit.picture for unit in self.units}

    def clusters(self, quantity: str) -> list[list[float]]:
        """Known values grouped by image, one per seed."""
        grouped: dict[tuple[str | None, int], list[float]] = {}
        for unit, values in self.units.items():
            if values.get(quantity) is not None:
                grouped.setdefault(unit.picture, []).append(values[quantity])
        return list(grouped.values())

    @property
    def num_samples(self) -> int:
        return self.runs[0].metrics.metadata.num_samples

    @property
    def num_listed(self) -> int:
        """Entries of a list per particle: those at the start, then the newborn."""
        return self.runs[0].metrics.metadata.listed

    @property
    def derived(self) -> bool:
        return self.subset is not None

    @property
    def can_split(self) -> bool:
        """Whether its particles are independent, so that a subset is what fewer particles would have given."""
        return not self.derived and all(
            run.metrics.population is None
            and not run.metrics.mechanisms  # of one's own: nothing is known of them
            and run.config is not None
            and run.config.get("sampler", {}).get("_target_") != RANKED
            and not registry.coupled(run.config, run.metrics)
            and not run.config.get("portfolio")  # retired; in runs of before particles differ by their numbers
            for run in self.runs
        )


def gather(runs: Sequence[Run], pool: bool = False, by_name: bool = False) -> list[Experiment]:
    """Experiments of the runs, in their order.

    pool: runs whose configs differ only in the seed make one experiment; by_name: so do runs of one name, on several
    data sets. Raises InputError where such runs overlap or have different numbers of particles.

    Pairwise distances of all of them are read at one t, where the first of the phases 1 ends: they fall with t.
    """
    until = max((end for end in map(exploration_end, runs) if end is not None), default=None)
    groups: list[tuple[object, list[Run]]] = []  # (what its runs share, the runs)
    for i, run in enumerate(runs):
        key: object = i
        if by_name:
            key = run.name
        elif pool:
            key = (_identity_without_seed(run), run.data)
        group = next((group for other, group in groups if other == key), None)
        if group is None:
            groups.append((key, [run]))
        elif any(set(run.units) & set(other.units) for other in group):
            raise InputError(
                f"{run.folder}: holds images and a seed that another run of the same "
                f"{'name' if by_name else 'config'} holds too; name it once"
            )
        elif shape(run) != shape(group[0]):
            raise InputError(
                f"{run.folder}: has other particles or phases than {group[0].folder}; compare them without by-name"
            )
        else:
            group.append(run)
    labels = unique_labels([group[0] for _, group in groups])
    return [Experiment(label, group, until=until) for label, (_, group) in zip(labels, groups)]


def shape(run: Run) -> tuple[int, int, tuple[str, ...]]:
    """What runs of one row must have in common: number of particles and names of the phases."""
    return run.metrics.metadata.num_samples, run.metrics.metadata.num_children, tuple(run.metrics.time.phases)


def _identity_without_seed(run: Run) -> dict[str, Any]:
    if run.config is None:
        raise InputError(f"{run.folder}: has no config.yaml, so runs cannot be pooled over seeds")
    try:
        return {key: value for key, value in identity(run.config).items() if key != "seed"}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{run.folder / 'config.yaml'}: is no run's config ({type(error).__name__}: {error})") from None


def unique_labels(runs: Sequence[Run]) -> list[str]:
    """The runs' names; where two are equal, with as much of the folder's path as tells them apart."""
    names = [run.name for run in runs]
    folders = [Path(run.folder).resolve().parts for run in runs]
    labels = []
    for name, parts in zip(names, folders):
        rivals = [other for other_name, other in zip(names, folders) if other_name == name]
        depth = next((d for d in range(1, len(parts)) if sum(o[-d:] == parts[-d:] for o in rivals) == 1), 1)
        labels.append(name if len(rivals) == 1 else "/".join(parts[-depth:]))
    return labels


def folded(label: str, width: int = 26) -> str:
    """A label in lines of at most `width` characters, broken after / and _ where it can be."""
    return "\n".join(re.findall(rf".{{1,{width - 1}}}(?:[/_]|$)|.{{1,{width}}}", label))


def best_of(experiment: Experiment, k: int) -> Experiment:
    """The experiment that k of its particles would have made: expectations over all subsets of k per image.

    The label-free pick needs the losses of the particles: it is left out where metrics.json is older than they are.
    """
    units = {}
    for run in experiment.runs:
        m = run.metrics
        for i, unit in enumerate(run.units):
            values = {}
            for metric in m.compared:
                block = m.scores[metric.name]
                if metric.of == "image":
                    values[f"{table_key(metric)}.best"] = _best_of_k(block.sample[i], k, metric.direction)
                values[f"{table_key(metric)}.mean"] = block.mean[i]
            if m.modes:
                label = m.modes.label[i]
                upright, turned = [x == "0" for x in label], [x == "180" for x in label]
                either = [a or b for a, b in zip(upright, turned)]
                chances = [stats.any_of_k(x, k) for x in (upright, turned, either)]
                values |= {
                    "psnr_aligned.best": stats.best_of_k(m.modes.psnr_aligned[i], k),
                    "psnr_aligned.mean": experiment.units[unit]["psnr_aligned.mean"],
                    "success": chances[2],
                    "failed": experiment.units[unit]["failed"],
                    "surviving": float(k),
                    "coverage": chances[0] + chances[1],
                    "both_modes": chances[0] + chances[1] - chances[2],
                }
            if m.loss:
                values |= _picks(m, i, k)
            units[unit] = values
    return Experiment(f"{experiment.label}: best of {k} of {experiment.num_samples}", experiment.runs, units, k)


def _best_of_k(row: list[float | None], k: int, direction: str) -> float | None:
    if direction == "max":
        return stats.best_of_k(row, k)
    lowest = stats.best_of_k([None if v is None else -v for v in row], k)
    return None if lowest is None else -lowest


def _picks(m: Metrics, i: int, k: int) -> Values:
    """{quantity: expectation over all subsets of k particles} of what the label-free pick of image i would have."""
    scores = {table_key(metric): m.scores[metric.name].sample[i] for metric in m.compared}
    if m.modes:
        scores["psnr_aligned"] = m.modes.psnr_aligned[i]
    values = {f"{name}.pick": stats.pick_of_k(m.loss.sample[i], row, k) for name, row in scores.items()}
    if m.modes:
        values["success_pick"] = stats.pick_of_k(
            m.loss.sample[i], [float(label in SUCCESSFUL) for label in m.modes.label[i]], k
        )
    return {**values, "pick_psnr": values["psnr_aligned.pick" if m.modes else "psnr.pick"]}


def find_label(experiments: Sequence[Experiment], label: str) -> Experiment:
    """The experiment of that label or run folder."""
    for experiment in experiments:
        if label == experiment.label or Path(label).resolve() in [run.folder.resolve() for run in experiment.runs]:
            return experiment
    raise InputError(f"baseline={label}: choose from {', '.join(e.label for e in experiments)}")
