"""Finished runs read back: found under folders, checked, and taken apart image by image."""

import json
import os.path
import statistics
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import islice
from operator import getitem
from pathlib import Path
from typing import NamedTuple

import yaml

from utils.errors import InputError
from utils.records.aggregate import aggregate, at_best, finite, spread
from utils.records.files import RecordError, to_json
from utils.records.kept import KEPT, has_records, read_records
from utils.records.metrics import Metrics, check_metrics

TIMESTEPS = 1000
FOUND = ("0", "180")  # labels of a success
READ = ("data.root", "step_clock", "repulsion_scale", "repulsion.end_step", "pruning_step", "optimization_step")
SCIENCE = (
    "psnr",
    "ssim",
    "lpips",
    "modes",
    "selection",
    "loss",
    "free",
    "diversity",
    "pruning",
    "tree",
    "optimization",
    "summary",
    "population",
    "diverged",
)
OPTIONAL = ("modes", "pruning", "optimization")  # blocks that all records of a run have, or none
SOURCES = ("metrics.json", KEPT)  # of a run's metrics: the file, or the records to aggregate


class Unit(NamedTuple):
    """What two experiments must share for a pair: same data, seed and image have the same y and initial noise."""

    data: str | None
    seed: int
    image: int


@dataclass
class Run:
    """One run folder. metrics: utils.records.metrics.Metrics; config: the merged config as a dict, None where it is missing."""

    folder: Path
    metrics: Metrics
    config: dict | None

    @property
    def name(self):
        return self.metrics.metadata.name

    @property
    def data(self):
        """Root of the data set, None where the config is missing."""
        return self.config["data"]["root"] if self.config else None

    @property
    def units(self):
        """One Unit per image, in the order of the file."""
        return [Unit(self.data, self.metrics.metadata.seed, image) for image in self.metrics.metadata.image_ids]

    @cached_property
    def trivial(self):
        """{name: {image id: dB}} of tools/evidence/trivial_reconstruction.py, the best first; empty where it has not run."""
        path = self.folder / "trivial.json"
        if not path.is_file():
            return {}
        try:
            found = json.loads(path.read_text())
            names = sorted(found["psnr"], key=lambda name: name != found["floor"])
            by_image = {name: dict(zip(found["image_ids"], found["psnr"][name], strict=True)) for name in names}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: damaged ({type(error).__name__}); run tools/evidence/trivial_reconstruction.py again"
            ) from None
        missing = next(
            (i for i in self.metrics.metadata.image_ids if any(i not in scores for scores in by_image.values())), None
        )
        if missing is not None:
            raise InputError(f"{path}: has no image {missing}; run tools/evidence/trivial_reconstruction.py again")
        return by_image

    @cached_property
    def timesteps(self):
        """t of every annealing step, falling; None if not known. Under the noise clock it stands in the records alone."""
        if self.config and self.config["step_clock"] == "progress":
            n = len(self.metrics.diversity.pairwise_distance[0])
            return [TIMESTEPS * (n - i) / n for i in range(n)]
        records = self.records(1)
        return records[0][0]["trace"]["timestep"] if records else None

    def records(self, count=None):
        """[(record, arrays)] of the first `count` of its images; empty where the records are missing."""
        return _read(self.folder, self.metrics.metadata.image_ids, count)

    def only(self, images):
        """The run as if it had sampled these images (a set of ids) alone, from its records. Raises InputError."""
        records = [record for record, _ in self.records() if record["image_id"] in images]
        if len(records) < len(images):
            raise InputError(f"{self.folder}: common images need its records, and {len(images) - len(records)} are missing")
        return replace(self, metrics=check_metrics(_aggregated(self.folder, records, self.name), self.folder))

    def active(self, image):
        """Number of particles of one image (its position): of a sequential population those started, else those after the
        pruning, children included."""
        pruning, tree, population = self.metrics.pruning, self.metrics.tree, self.metrics.population
        if population is not None:
            return population.started[image]
        kept = self.metrics.metadata.num_samples - (len(pruning.dropped[image]) if pruning else 0)
        return kept if tree is None else kept * tree.stay + len(tree.parent[image])


def find(arguments):
    """What the runs' metrics are read from: paths of metrics.json, of records.jsonl.gz for kept runs. Raises InputError.

    arguments: such files, run folders, or folders of runs.
    """
    found = []
    for argument in map(Path, arguments):
        if argument.is_file():
            paths = [argument]
        elif source(argument):
            paths = [source(argument)]
        elif argument.is_dir():
            folders = {path.parent for name in SOURCES for path in argument.rglob(name)}
            paths = [path for path in map(source, sorted(folders)) if path]
        else:
            raise InputError(f"{argument}: no such file or folder")
        if not paths:
            _refuse(argument)
        found += paths
    once = {}  # however often and however it is named
    for path in found:
        once.setdefault(path.resolve(), path)
    return list(once.values())


def source(folder):
    """The one of SOURCES that a run folder has; None if it has neither."""
    return next((path for path in (Path(folder) / name for name in SOURCES) if path.is_file()), None)


def _refuse(folder):
    raise InputError(f"{folder}: holds no {' or '.join(SOURCES)}; name a run folder, a folder of runs, or the file itself")


def load(path, from_records=False):
    """The Run of a run folder, or of its metrics.json or records.jsonl.gz; of the latter, named after the folder.

    Raises InputError.

    from_records: aggregate the records beside metrics.json anew, where there are any, and refuse it if it says otherwise.
    """
    path = Path(path)
    if path.is_dir():
        path = source(path) or _refuse(path)
    if path.name == KEPT:
        name = Path(os.path.abspath(path.parent)).name  # of "." too
        metrics = check_metrics(_aggregated(path.parent, [record for record, _ in _read(path.parent)], name), path)
        return Run(path.parent, metrics, _config(path.parent / "config.yaml"))
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: damaged, not JSON ({error}); run its command again to write it anew") from None
    metrics = check_metrics(data, path)
    if from_records and has_records(path.parent):
        metrics = check_metrics(_anew(path, data), path)
    return Run(path.parent, metrics, _config(path.parent / "config.yaml"))


def _read(folder, images=None, count=None):
    """read_records as a list, of the first `count`. Raises InputError."""
    try:
        return list(islice(read_records(folder, images), count))
    except (RecordError, OSError) as error:
        raise InputError(str(error)) from None


def _aggregated(folder, records, name):
    """The content of metrics.json as it would be read back. Raises InputError where the records are not of one run."""
    for record in records:
        if any((record[key] is None) != (records[0][key] is None) for key in OPTIONAL) or (
            record["fingerprint"] != records[0]["fingerprint"]
        ):
            raise InputError(
                f"{folder}: the records of images {records[0]['image_id']} and {record['image_id']} belong to different "
                "configurations; keep one run in a folder"
            )
    return json.loads(to_json(aggregate(records, name)))


def _anew(path, data):
    """The content of metrics.json from the records beside it."""
    anew = _aggregated(path.parent, [record for record, _ in _read(path.parent)], data["metadata"]["name"])
    if anew["metadata"]["image_ids"] != data["metadata"]["image_ids"]:
        raise InputError(
            f"{path}: has {len(data['metadata']['image_ids'])} images, its records have "
            f"{anew['metadata']['num_images']}; run its command again to write it anew"
        )
    wrong = next((key for key in SCIENCE if key in data and anew.get(key) != data[key]), None)
    if wrong:
        raise InputError(f"{path}: {wrong} differs from its records; run its command again to write it anew")
    return anew


def _config(path):
    if not path.is_file():
        return None
    try:
        config = yaml.safe_load(path.read_text())
        for key in READ:
            reduce(getitem, key.split("."), config)
    except (yaml.YAMLError, ValueError, TypeError, KeyError, OSError) as error:
        raise InputError(f"{path}: damaged or not a run's config ({type(error).__name__})") from None
    return config


def restrict_to_common(runs, by_data=False):
    """The runs, each cut down to the images (same data, same id) that all of them hold, by_data: all on its data set.

    Raises InputError where there are none.
    """
    if by_data:
        sets = {run.data: [other for other in runs if other.data == run.data] for run in runs}
        cut = {run.folder: less for of_set in sets.values() for run, less in zip(of_set, restrict_to_common(of_set))}
        return [cut[run.folder] for run in runs]
    held = [{(run.data, image) for image in run.metrics.metadata.image_ids} for run in runs]
    common = {image for _, image in set.intersection(*held)}
    if not common:
        raise InputError("common: the runs share no image (same data and id); leave it out or name other runs")
    return [run if len(images) == len(common) else run.only(common) for run, images in zip(runs, held)]


def exploration_end(run):
    """The timestep t at which phase 1 ends: `repulsion.end_step`, or an event before it; None without a config."""
    if run.config is None:
        return None
    return max(run.config["repulsion"]["end_step"], run.config["pruning_step"], run.config["optimization_step"])


def steps_above(run, t):
    """Number of annealing steps whose timestep is above `t`; None if not known."""
    if t is None or run.timesteps is None:
        return None
    return next((i for i, timestep in enumerate(run.timesteps) if timestep <= t), len(run.timesteps))


def events(run):
    """[(name, annealing step index)] of the events of a run, in order."""
    found, phases = [], run.metrics.time.phases
    end = steps_above(run, exploration_end(run))
    if end is not None and run.config["repulsion_scale"] > 0:
        found.append(("repulsion ends", end))
    if run.metrics.recombination:
        found += [("exchange", event.step_index + 1) for event in run.metrics.recombination.events[0]]
    if run.metrics.pruning:
        found.append(("pruning", run.metrics.pruning.step_index))
    if run.metrics.optimization:
        share = 1 - phases["optimization"].steps / sum(phase.steps for phase in phases.values())
        found.append(("hard data consistency", round(share * len(run.metrics.time.per_step_s[0]))))
    return found


def image_values(run, position, until):
    """{quantity: number or None} of one image: what tables average and pairs compare.

    until: the timestep t down to which the particles have moved where `pairwise_distance` is read; None: not read.

    best, mean, pick: over the surviving particles by the truth, their mean, the particle picked without the truth;
    pick_psnr: of the pick, in the better orientation where the task has two; surviving: particles that were not
    pruned; failed: the share of them that is labelled neither 0 nor 180, diverged ones included; trivial, gain: of the
    best trivial reconstruction, and by how much the mean over particles exceeds it; noise_floor: the expected loss of the
    true image, of which the loss.* are multiples, as the free.* are of that of the measurements kept out of the fit;
    loss.deviation: of the pick over the floor, in standard deviations;
    r_factor: unexplained share of the measurement; aligned_mean: PSNR of the mean of the particles that agree with the pick.
    """
    m, i = run.metrics, position
    picked = m.selection.picked[i]
    values = {}
    for name in ("psnr", "ssim", "lpips"):
        block = getattr(m, name)
        values |= {
            f"{name}.best": (block.min if name == "lpips" else block.max)[i],
            f"{name}.mean": block.mean[i],
            f"{name}.pick": None if picked is None else block.sample[i][picked],
            f"{name}.spread": block.std[i],
        }
    if m.modes:
        aligned = finite(m.modes.psnr_aligned[i])
        survivors = [label for label, diverged in zip(m.modes.label[i], m.diverged[i]) if label is not None or diverged]
        values |= {
            "psnr_aligned.best": max(aligned, default=None),
            "psnr_aligned.mean": _mean(aligned),
            "psnr_aligned.pick": m.selection.psnr_aligned[i],
            "psnr_aligned.spread": spread(aligned),
            "success": float(m.modes.success[i]),
            "coverage": float(m.modes.coverage[i]),
            "both_modes": float(m.modes.coverage[i] == 2),
            "surviving": float(len(survivors)),
            "failed": statistics.fmean(label not in FOUND for label in survivors) if survivors else None,
            "success_pick": float(picked is not None and m.modes.label[i][picked] in FOUND),
        }
    if m.loss:
        ratio, aligned = m.loss.ratio[i], m.modes.psnr_aligned[i] if m.modes else m.psnr.sample[i]
        values |= {
            "loss.best": at_best(ratio, aligned),
            "loss.mean": _mean(ratio),
            "loss.pick": None if picked is None else ratio[picked],
            "noise_floor": m.loss.noise_floor[i],
        }
    for name, block in (("free", m.free and m.free.ratio), ("r_factor", m.loss and m.loss.r_factor)):
        if block:
            values |= {f"{name}.mean": _mean(block[i]), f"{name}.pick": None if picked is None else block[i][picked]}
    if m.summary:
        values["aligned_mean"] = m.summary.psnr[i]
    if m.loss and m.loss.deviation is not None:
        values["loss.deviation"] = None if picked is None else m.loss.deviation[i][picked]
    values["pick_psnr"] = values["psnr_aligned.pick" if m.modes else "psnr.pick"]
    if run.trivial:
        floor = next(iter(run.trivial.values()))[m.metadata.image_ids[i]]
        values |= {"psnr.trivial": floor, "psnr.gain": None if m.psnr.mean[i] is None else m.psnr.mean[i] - floor}
    steps = steps_above(run, until)
    values["pairwise_distance"] = m.diversity.pairwise_distance[i][steps - 1] if steps else None
    values["seconds"] = m.time.per_image_s[i]
    if m.optimization:
        values["optimization_calls"] = float(sum(m.optimization.calls[i]))
        values["optimization_iterations"] = float(sum(m.optimization.iterations[i]))
    return values


def _mean(values):
    """Of those that are known; None of none."""
    known = finite(values)
    return statistics.fmean(known) if known else None
