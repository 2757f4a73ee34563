"""Experiments side by side: every number of the tables, as one nested dict per experiment."""
import math
import statistics
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf

from utils import stats
from utils.config import InputError
from utils.costs import cost, mean_std, phases
from utils.fingerprint import identity
from utils.results import finite
from utils.runs import Run, exploration_end, image_values

SCORES = ("psnr", "psnr_aligned", "ssim", "lpips")
RATES = ("success", "success_pick", "both_modes")
PAIRED = ("psnr_aligned.best", "psnr_aligned.mean", "psnr_aligned.pick", "psnr.best", "psnr.pick", "pick_psnr",
          "failed", "success", "success_pick", "both_modes", "pairwise_distance")


@dataclass
class Experiment:
    """One row of the tables: one run, or several that differ only in the seed, or in data and prior.

    units: {utils.runs.Unit: {quantity: number or None}}; subset: the size of the subsets of particles that it is
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
            self.units = {unit: image_values(run, i, self.until)
                          for run in self.runs for i, unit in enumerate(run.units)}

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
    def derived(self):
        return self.subset is not None

    @property
    def can_split(self):
        """Whether its particles are independent, so that a subset is what fewer particles would have given."""
        return not self.derived and all(run.metrics.pruning is None and run.config is not None
                                        and run.config["repulsion_scale"] == 0 for run in self.runs)


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
            raise InputError(f"{run.folder}: holds images and a seed that another run of the same "
                             f"{'name' if by_name else 'config'} holds too; name it once")
        elif shape(run) != shape(group[0]):
            raise InputError(f"{run.folder}: has other particles or phases than {group[0].folder}; compare them without by-name")
        else:
            group.append(run)
    labels = unique_labels([group[0] for _, group in groups])
    return [Experiment(label, group, until=until) for label, (_, group) in zip(labels, groups)]


def shape(run):
    """What runs of one row must have in common: number of particles and names of the phases."""
    return run.metrics.metadata.num_samples, tuple(run.metrics.time.phases)


def _identity_without_seed(run):
    if run.config is None:
        raise InputError(f"{run.folder}: has no config.yaml, so runs cannot be pooled over seeds")
    try:
        return {key: value for key, value in identity(OmegaConf.create(run.config)).items() if key != "seed"}
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

    The label-free pick needs the losses of the particles, which only the records have: it is left out.
    """
    units = {}
    for run in experiment.runs:
        m = run.metrics
        for i, unit in enumerate(run.units):
            lpips = stats.best_of_k([None if v is None else -v for v in m.lpips.sample[i]], k)
            values = {"psnr.best": stats.best_of_k(m.psnr.sample[i], k), "psnr.mean": m.psnr.mean[i],
                      "ssim.best": stats.best_of_k(m.ssim.sample[i], k), "ssim.mean": m.ssim.mean[i],
                      "lpips.best": None if lpips is None else -lpips, "lpips.mean": m.lpips.mean[i]}
            if m.modes:
                label = m.modes.label[i]
                upright, turned = [x == "0" for x in label], [x == "180" for x in label]
                either = [a or b for a, b in zip(upright, turned)]
                found = [stats.any_of_k(x, k) for x in (upright, turned, either)]
                values |= {"psnr_aligned.best": stats.best_of_k(m.modes.psnr_aligned[i], k),
                           "psnr_aligned.mean": experiment.units[unit]["psnr_aligned.mean"], "success": found[2],
                           "failed": experiment.units[unit]["failed"], "surviving": float(k),
                           "coverage": found[0] + found[1], "both_modes": found[0] + found[1] - found[2]}
            units[unit] = values
    return Experiment(f"{experiment.label}: best of {k} of {experiment.num_samples}", experiment.runs, units, k)


def compare(experiments, baseline=None):
    """One nested dict of numbers per experiment (json keys are the names in the tables' column lists).

    baseline: label of the experiment that costs are relative to and that differences are taken from. Raises InputError.
    """
    reference = find_label(experiments, baseline) if baseline else None
    return [summarise(experiment, reference) for experiment in experiments]


def find_label(experiments, label):
    """The experiment of that label or run folder."""
    for experiment in experiments:
        if label == experiment.label or Path(label).resolve() in [run.folder.resolve() for run in experiment.runs]:
            return experiment
    raise InputError(f"baseline={label}: choose from {', '.join(e.label for e in experiments)}")


def summarise(experiment, reference=None):
    """All numbers of one experiment; means are over images (and seeds), std is over images."""
    e = experiment
    row = {"experiment": e.label, "folders": [str(run.folder) for run in e.runs], "images": len(e.images),
           "seeds": sorted({unit.seed for unit in e.units}), "particles": _particles(e)}
    for name in SCORES:
        row[name] = {part: mean_std(e, f"{name}.{part}") for part in ("best", "mean", "pick", "spread")}
    for name in RATES:
        row[name] = _rate(e.values(name), e.clusters(name))
    row["failed"], row["failures"] = _failed(e), _failures(e)
    for name in ("pick_psnr", "coverage", "pairwise_distance"):
        row[name] = mean_std(e, name)
    row["trivial"] = {"name": next(iter(e.runs[0].trivial), None), "psnr": mean_std(e, "psnr.trivial"),
                      "gain": _difference(stats.clustered_mean(e.clusters("psnr.gain")), len(e.clusters("psnr.gain")))}
    row["phases"] = None if e.derived else phases(e)
    row["cost"] = cost(e, reference)
    row["paired"] = paired(e, reference) if reference is not None and reference is not e else None
    return row


def _particles(e):
    n = e.num_samples
    if e.derived:
        return str(e.subset)
    if e.runs[0].metrics.pruning is None:
        return str(n)
    active = statistics.fmean(run.active(i) for run in e.runs for i in range(run.metrics.metadata.num_images))
    return f"{n} → {active:.3g}"


def _rate(values, clusters):
    if not values:
        return None
    found = stats.wilson(statistics.fmean(values), len(clusters))
    return {"rate": found.value, "count": math.fsum(values), "n": len(values), "low": found.low, "high": found.high}


def _failed(e):
    """The rate of surviving particles that failed, with counts of particles and an interval over images.

    Particles of one image fail together, so images are resampled. Where there is little to resample (all images
    agree, such as on no failure at all, or they are few), the interval is Wilson's with n = number of images.
    """
    clusters, failed, surviving = {}, 0.0, 0
    for unit, values in e.units.items():
        if values.get("failed") is not None:
            count = round(values["surviving"])
            clusters.setdefault((unit.data, unit.image), []).extend([values["failed"]] * count)
            failed, surviving = failed + values["failed"] * count, surviving + count
    found = stats.clustered_mean(list(clusters.values()))
    if found is None:
        return None
    if found.low == found.high or len(clusters) < stats.FEW:
        found = stats.wilson(found.value, len(clusters))
    return {"rate": found.value, "count": round(failed, 9), "n": surviving, "low": found.low, "high": found.high}


def _failures(e):
    """{count, ids} of the images in which no particle succeeded; ids carry their seeds where there are several.

    Of several seeds the mean number. Of a derived experiment the expected number, and the images that fail with some
    subset. None without labels.
    """
    success = {unit: values["success"] for unit, values in e.units.items() if values.get("success") is not None}
    if not success:
        return None
    lost, sets = {}, {unit.data for unit in success}
    for unit in sorted((unit for unit in success if success[unit] < 1), key=lambda u: (str(u.data), u.image, u.seed)):
        image = f"{Path(unit.data).name} {unit.image}" if len(sets) > 1 else unit.image
        lost.setdefault(image, []).append(str(unit.seed))
    several = len({unit.seed for unit in success}) > 1
    count = math.fsum(1 - statistics.fmean(values) for values in e.clusters("success"))
    return {"count": count if e.derived or several else round(count),
            "ids": [f"{image} ({', '.join(seeds)})" if several else image for image, seeds in lost.items()]}


def _difference(estimate, images):
    """An utils.stats.Estimate of a difference over so many images as a table cell; None where it is not known."""
    return None if estimate is None else {"difference": estimate.value, "low": estimate.low, "high": estimate.high,
                                          "n": images}


def paired(e, reference):
    """Differences e - reference on the common images: {quantity: {difference, low, high, n}}, n = images."""
    common = [unit for unit in e.units if unit in reference.units]
    row = {"baseline": reference.label, "images": len({(unit.data, unit.image) for unit in common})}
    for quantity in PAIRED:
        clusters = {}
        for unit in common:
            a, b = e.units[unit].get(quantity), reference.units[unit].get(quantity)
            if a is not None and b is not None:
                clusters.setdefault((unit.data, unit.image), []).append(a - b)
        estimate = stats.paired_rate if quantity in RATES else stats.clustered_mean
        found = estimate(list(clusters.values()))
        if quantity == "failed" and found is not None and found.low == found.high:  # the images agree: nothing to resample
            found = stats.paired_rate(list(clusters.values()))
        row[quantity] = _difference(found, len(clusters))
    return row


def per_image(experiments):
    """One flat dict per experiment, data set, seed and image, sorted by image."""
    rows = [{"experiment": e.label, "data": unit.data, "seed": unit.seed, "image": unit.image, **values}
            for e in experiments for unit, values in e.units.items()]
    order = {e.label: i for i, e in enumerate(experiments)}
    return sorted(rows, key=lambda row: (str(row["data"]), row["image"], row["seed"], order[row["experiment"]]))
