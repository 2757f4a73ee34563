"""Runs as experiments: one row of the tables each."""

from dataclasses import dataclass, field
from pathlib import Path

from utils.analysis import stats
from utils.analysis.runs import FOUND, Run, exploration_end, image_values
from utils.config.fingerprint import identity
from utils.errors import InputError
from utils.records.aggregate import finite


@dataclass
class Experiment:
    """One row of the tables: one run, or several that differ only in the seed, or in data and prior.

    units: {utils.analysis.runs.Unit: {quantity: number or None}}; subset: the size of the subsets of particles that it is
    computed from, None for a measured experiment. A derived one has no costs of its own. until: the timestep t at which
    pairwise distances are read.
    """

    label: str
    runs: list[Run]
    units: dict = field(default_factory=dict)
    subset: int | None = None
    until: float | None = None

    def __post_init__(self):
        if not self.units:
            self.units = {unit: image_values(run, i, self.until) for run in self.runs for i, unit in enumerate(run.units)}

    def values(self, quantity):
        """Known values of one quantity over all units."""
        return finite([values.get(quantity) for values in self.units.values()])

    @property
    def images(self):
        """{(data, image id)} of all seeds."""
        return {(unit.data, unit.image) for unit in self.units}

    def clusters(self, quantity):
        """Known values grouped by image, one per seed."""
        grouped = {}
        for unit, values in self.units.items():
            if values.get(quantity) is not None:
                grouped.setdefault((unit.data, unit.image), []).append(values[quantity])
        return list(grouped.values())

    @property
    def num_samples(self):
        return self.runs[0].metrics.metadata.num_samples

    @property
    def num_listed(self):
        """Entries of a list per particle: those at the start, then children."""
        return self.runs[0].metrics.metadata.listed

    @property
    def derived(self):
        return self.subset is not None

    @property
    def can_split(self):
        """Whether its particles are independent, so that a subset is what fewer particles would have given."""
        return not self.derived and all(
            run.metrics.pruning is None
            and run.metrics.population is None
            and run.config is not None
            and run.config["repulsion_scale"] == 0
            and not run.config.get("portfolio")
            for run in self.runs
        )


def gather(runs, pool=False, by_name=False):
    """Experiments of the runs, in their order.

    pool: runs whose configs differ only in the seed make one experiment; by_name: so do runs of one name, on several
    data sets. Raises InputError where such runs overlap or have different numbers of particles.

    Pairwise distances of all of them are read at one t, where the first of the phases 1 ends: they fall with t.
    """
    until = max((end for end in map(exploration_end, runs) if end is not None), default=None)
    groups = []
    for i, run in enumerate(runs):
        key = run.name if by_name else (_identity_without_seed(run), run.data) if pool else i
        group = next((group for known, group in groups if known == key), None)
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


def shape(run):
    """What runs of one row must have in common: number of particles and names of the phases."""
    return run.metrics.metadata.num_samples, run.metrics.metadata.num_children, tuple(run.metrics.time.phases)


def _identity_without_seed(run):
    if run.config is None:
        raise InputError(f"{run.folder}: has no config.yaml, so runs cannot be pooled over seeds")
    try:
        return {key: value for key, value in identity(run.config).items() if key != "seed"}
    except KeyError as error:
        raise InputError(f"{run.folder / 'config.yaml'}: key {error} is missing") from None


def unique_labels(runs):
    """The runs' names; where two are equal, with as much of the folder's path as tells them apart."""
    names = [run.name for run in runs]
    folders = [Path(run.folder).resolve().parts for run in runs]
    labels = []
    for name, parts in zip(names, folders):
        rivals = [other for other_name, other in zip(names, folders) if other_name == name]
        depth = next((d for d in range(1, len(parts)) if sum(o[-d:] == parts[-d:] for o in rivals) == 1), 1)
        labels.append(name if len(rivals) == 1 else "/".join(parts[-depth:]))
    return labels


def best_of(experiment, k):
    """The experiment that k of its particles would have made: expectations over all subsets of k per image.

    The label-free pick needs the losses of the particles: it is left out where metrics.json is older than they are.
    """
    units = {}
    for run in experiment.runs:
        m = run.metrics
        for i, unit in enumerate(run.units):
            lpips = stats.best_of_k([None if v is None else -v for v in m.lpips.sample[i]], k)
            values = {
                "psnr.best": stats.best_of_k(m.psnr.sample[i], k),
                "psnr.mean": m.psnr.mean[i],
                "ssim.best": stats.best_of_k(m.ssim.sample[i], k),
                "ssim.mean": m.ssim.mean[i],
                "lpips.best": None if lpips is None else -lpips,
                "lpips.mean": m.lpips.mean[i],
            }
            if m.modes:
                label = m.modes.label[i]
                upright, turned = [x == "0" for x in label], [x == "180" for x in label]
                either = [a or b for a, b in zip(upright, turned)]
                found = [stats.any_of_k(x, k) for x in (upright, turned, either)]
                values |= {
                    "psnr_aligned.best": stats.best_of_k(m.modes.psnr_aligned[i], k),
                    "psnr_aligned.mean": experiment.units[unit]["psnr_aligned.mean"],
                    "success": found[2],
                    "failed": experiment.units[unit]["failed"],
                    "surviving": float(k),
                    "coverage": found[0] + found[1],
                    "both_modes": found[0] + found[1] - found[2],
                }
            if m.loss:
                values |= _picks(m, i, k)
            units[unit] = values
    return Experiment(f"{experiment.label}: best of {k} of {experiment.num_samples}", experiment.runs, units, k)


def _picks(m, i, k):
    """{quantity: expectation over all subsets of k particles} of what the label-free pick of image i would have."""
    scores = {"psnr": m.psnr.sample[i], "ssim": m.ssim.sample[i], "lpips": m.lpips.sample[i]}
    if m.modes:
        scores["psnr_aligned"] = m.modes.psnr_aligned[i]
    values = {f"{name}.pick": stats.pick_of_k(m.loss.sample[i], row, k) for name, row in scores.items()}
    if m.modes:
        values["success_pick"] = stats.pick_of_k(m.loss.sample[i], [float(label in FOUND) for label in m.modes.label[i]], k)
    return {**values, "pick_psnr": values["psnr_aligned.pick" if m.modes else "psnr.pick"]}


def find_label(experiments, label):
    """The experiment of that label or run folder."""
    for experiment in experiments:
        if label == experiment.label or Path(label).resolve() in [run.folder.resolve() for run in experiment.runs]:
            return experiment
    raise InputError(f"baseline={label}: choose from {', '.join(e.label for e in experiments)}")
