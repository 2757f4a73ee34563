"""Finished runs read back: found under folders, checked, and taken apart image by image."""

import os.path
import statistics
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import islice
from operator import getitem
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from pydantic import BaseModel, FiniteFloat

from utils.config.fingerprint import without_removed
from utils.digests import Digests, other_content
from utils.errors import InputError, one_line
from utils.mechanisms import registry
from utils.mechanisms.registry import IN_RECORDS, PLANS
from utils.metrics.base import table_key
from utils.metrics.loss import Loss
from utils.metrics.registry import BESIDE_LOSS
from utils.plain_files import Unreadable, read_json, read_yaml, shaped
from utils.records.aggregate import aggregate, at_best, finite, spread
from utils.records.births import births
from utils.records.files import RecordAndArrays, RecordError, read_array, record_path
from utils.records.kept import KEPT, read_kept, read_records
from utils.records.metrics import Metrics, check_metrics

TIMESTEPS = 1000
SUCCESSFUL = ("0", "180")  # labels of a success
READ = {"data.root": str, **registry.types_read()}  # of a config
MOST_BYTES = 2**30  # of metrics.json, some ten kilobytes an image
SCIENCE = (
    "modes",
    "selection",
    "loss",
    "diversity",
    *(str(plan.block) for plan in IN_RECORDS),
    "summary",
    "population",
    "diverged",
)
OPTIONAL = (
    "modes",
    *(str(plan.block) for plan in IN_RECORDS if plan.recorded),
)  # blocks that all records of a run have, or none
SOURCES = ("metrics.json", KEPT)  # of a run's metrics: the file, or the records to aggregate


class Trivial(BaseModel):
    """trivial.json: PSNR of each reconstruction, for each image."""

    image_ids: list[int]
    floor: str  # the best one
    psnr: dict[str, list[FiniteFloat]]


class Unit(NamedTuple):
    """What two experiments must share for a pair: same data, seed and image have the same y and initial noise."""

    data: str | None
    seed: int
    image: int

    @property
    def picture(self) -> tuple[str | None, int]:
        """What all seeds of an image share."""
        return self.data, self.image


@dataclass
class Run:
    """One run folder. config: as merged, less retired keys where they did nothing; None where it is missing; kept_records:
    its records, where they are all in one file and so were all read."""

    folder: Path
    metrics: Metrics
    config: dict[str, Any] | None
    kept_records: list[dict[str, Any]] | None = None

    @property
    def name(self) -> str:
        return self.metrics.metadata.name

    @property
    def data(self) -> str | None:
        """Root of the data set, None where the config is missing."""
        return self.config["data"]["root"] if self.config else None

    @property
    def units(self) -> list[Unit]:
        """One Unit per image, in the order of the file."""
        return [Unit(self.data, self.metrics.metadata.seed, image) for image in self.metrics.metadata.image_ids]

    @cached_property
    def trivial(self) -> dict[str, dict[int, float]]:
        """{name: {image id: dB}} of tools/evidence/trivial_reconstruction.py, the best first; empty where it has not run."""
        path = self.folder / "trivial.json"
        if not path.is_file():
            return {}
        try:
            content = read_json(path, Trivial, MOST_BYTES)
            names = sorted(content.psnr, key=lambda name: name != content.floor)
            by_image = {name: dict(zip(content.image_ids, content.psnr[name], strict=True)) for name in names}
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path}: damaged ({one_line(error)}); run tools/evidence/trivial_reconstruction.py again"
            ) from None
        missing = next(
            (i for i in self.metrics.metadata.image_ids if any(i not in scores for scores in by_image.values())), None
        )
        if missing is not None:
            raise InputError(f"{path}: has no image {missing}; run tools/evidence/trivial_reconstruction.py again")
        return by_image

    @cached_property
    def timesteps(self) -> list[float] | None:
        """t of every annealing step, falling; None if not known. Of a run by the retired noise clock the records say it."""
        if self.config and self.config.get("step_clock", "progress") == "progress":
            after = sum(plan.steps_after(self.config) for plan in PLANS)
            n = len(self.metrics.diversity.pairwise_distance[0]) - after
            return [TIMESTEPS * (n - i) / n for i in range(n)] + [0.0] * after
        records = self.records(1)
        return records[0][0]["trace"]["timestep"] if records else None

    def records(
        self, count: int | None = None, wanted: Collection[str] = (), digests: Collection[str] | None = None
    ) -> list[RecordAndArrays]:
        """[(record, arrays)] of the first `count` of its images, with the arrays that are `wanted`; empty where the records
        are missing. digests: only images whose file has one of these sha256."""
        with _reading():
            if self.kept_records is not None:
                pairs = ((record, {}) for record in self.kept_records)
            else:
                pairs = read_records(self.folder, self.metrics.metadata.image_ids, wanted)
            return list(islice((pair for pair in pairs if digests is None or pair[0]["sha256"] in digests), count))

    def arrays(self, name: str) -> list[np.ndarray]:
        """The array of that name of each image whose record file has one. Raises InputError."""
        paths = (record_path(self.folder, image) for image in self.metrics.metadata.image_ids)
        with _reading():
            return [array for path in paths if path.exists() and (array := read_array(path, name)) is not None]

    def only(self, images: set[int]) -> "Run":
        """The run as if it had sampled these images (a set of ids) alone, from its records. Raises InputError."""
        records = [record for record, _ in self.records() if record["image_id"] in images]
        if len(records) < len(images):
            raise InputError(f"{self.folder}: common images need its records, and {len(images) - len(records)} are missing")
        metrics = _aggregated(self.folder, records, self.name)
        return replace(self, metrics=metrics, kept_records=None if self.kept_records is None else records)

    def active(self, image: int) -> int:
        """Number of particles of one image (its position): of a sequential population those started, else those
        that the mechanisms leave, with the newborn."""
        m = self.metrics
        if m.population is not None:
            return m.population.started[image]
        left = registry.remaining(m, image, m.metadata.num_samples)
        return left + sum(birth.gain for birth in births(blocks[image] for blocks in m.mechanisms.values()))


def find(arguments: Iterable[str | Path]) -> list[Path]:
    """What the runs' metrics are read from: paths of metrics.json, of records.jsonl.gz for kept runs. Raises InputError.

    arguments: such files, run folders, or folders of runs.
    """
    named = []
    for argument in map(Path, arguments):
        if argument.is_file():
            paths = [argument]
        elif of_run := source(argument):
            paths = [of_run]
        elif argument.is_dir():
            folders = {path.parent for name in SOURCES for path in argument.rglob(name)}
            paths = [path for path in map(source, sorted(folders)) if path]
        else:
            raise InputError(f"{argument}: no such file or folder")
        if not paths:
            _refuse(argument)
        named += paths
    once: dict[Path, Path] = {}  # however often and however it is named
    for path in named:
        once.setdefault(path.resolve(), path)
    return list(once.values())


def source(folder: str | Path) -> Path | None:
    """The one of SOURCES that a run folder has; None if it has neither."""
    return next((path for path in (Path(folder) / name for name in SOURCES) if path.is_file()), None)


def _refuse(folder: Path) -> NoReturn:
    raise InputError(f"{folder}: holds no {' or '.join(SOURCES)}; name a run folder, a folder of runs, or the file itself")


def load(path: str | Path, from_records: bool = False) -> Run:
    """The Run of a run folder, or of its metrics.json or records.jsonl.gz; of the latter, named after the folder.

    Raises InputError.

    from_records: aggregate the records beside metrics.json anew, where there are any, and refuse it if it says otherwise.
    """
    path = Path(path)
    if path.is_dir():
        path = source(path) or _refuse(path)
    folder, config = path.parent, _config(path.parent / "config.yaml")
    if path.name == KEPT:
        with _reading():
            records = read_kept(path)
        return Run(folder, _aggregated(folder, records, Path(os.path.abspath(folder)).name), config, records)  # of "." too
    try:
        data = read_json(path, most=MOST_BYTES)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or folder; name a run folder, or its metrics.json") from None
    except (OSError, Unreadable) as error:
        raise InputError(f"{path}: damaged, {one_line(error)}; run its command again to write it anew") from None
    run = Run(folder, check_metrics(data, path), config)
    if not from_records:
        return run
    with _reading():
        records = [record for record, _ in read_records(folder, wanted=())]
    return replace(run, metrics=_anew(path, data, records)) if records else run


@contextmanager
def _reading() -> Iterator[None]:
    """Inside, a record that cannot be read is an InputError."""
    try:
        yield
    except (RecordError, OSError) as error:
        raise InputError(str(error)) from None


def _aggregated(folder: Path, records: list[dict[str, Any]], name: str) -> Metrics:
    """What metrics.json would hold. Raises InputError where the records are not of one run."""
    digests: Digests = {}
    for record in records:
        if any((record[key] is None) != (records[0][key] is None) for key in OPTIONAL) or (
            record["fingerprint"] != records[0]["fingerprint"]
        ):
            raise InputError(
                f"{folder}: the records of images {records[0]['image_id']} and {record['image_id']} belong to different "
                "configurations; keep one run in a folder"
            )
        if other := other_content(digests, record.get("digests", {})):
            raise InputError(
                f"{folder}: image {record['image_id']} was made with {other} than those before it; keep one run in a folder"
            )
        digests |= record.get("digests", {})
    return aggregate(records, name)


def _anew(path: Path, data: dict[str, Any], records: list[dict[str, Any]]) -> Metrics:
    """The same from the records beside metrics.json, of which `data` is the content."""
    metrics = _aggregated(path.parent, records, data["metadata"]["name"])
    anew = metrics.content()
    if anew["metadata"]["image_ids"] != data["metadata"]["image_ids"]:
        raise InputError(
            f"{path}: has {len(data['metadata']['image_ids'])} images, its records have "
            f"{anew['metadata']['num_images']}; run its command again to write it anew"
        )
    wrong = next((key for key in (*metrics.scores, *SCIENCE) if key in data and anew.get(key) != data[key]), None)
    if wrong:
        raise InputError(f"{path}: {wrong} differs from its records; run its command again to write it anew")
    return metrics


def _config(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        config = read_yaml(path)
        for key, kind in READ.items():
            try:
                shaped(reduce(getitem, key.split("."), config), kind)
            except Unreadable as error:
                raise Unreadable(f"{key}: {error}") from None
        for plan in PLANS:
            plan.steps_after(config)
        return without_removed(config)
    except (OSError, Unreadable) as error:
        raise InputError(f"{path}: damaged or not a run's config ({one_line(error)})") from None
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError, OverflowError) as error:
        raise InputError(f"{path}: damaged or not a run's config ({type(error).__name__})") from None


def restrict_to_common(runs: Sequence[Run], by_data: bool = False) -> list[Run]:
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


def exploration_end(run: Run) -> int | None:
    """The timestep t at which phase 1 ends: the first one that a mechanism says; None without a config."""
    if run.config is None:
        return None
    return max(plan.explores_until(run.config) for plan in PLANS)


def steps_above(run: Run, t: float | None) -> int | None:
    """Number of annealing steps whose timestep is above `t`; None if not known."""
    if t is None or run.timesteps is None:
        return None
    return next((i for i, timestep in enumerate(run.timesteps) if timestep <= t), len(run.timesteps))


def events(run: Run) -> list[tuple[str, int]]:
    """[(name, annealing step index)] of the events of a run, in order."""
    exploring = steps_above(run, exploration_end(run))
    return registry.events(run.metrics, registry.Finished(run.config, run.timesteps, exploring))


def image_values(run: Run, position: int, until: float | None) -> dict[str, float | None]:
    """{quantity: number or None} of one image: what tables average and pairs compare.

    until: the timestep t down to which the particles have moved where `pairwise_distance` is read; None: not read.

    best, mean, pick: over the surviving particles by the truth, their mean, the particle picked without the truth;
    pick_psnr: of the pick, in the better orientation where the task has two; surviving: particles that were not
    pruned; failed: the share of them that is labelled neither 0 nor 180, diverged ones included; trivial, gain: of the
    best trivial reconstruction, and by how much the mean over particles exceeds it; noise_floor: the expected loss of the
    true image, of which the loss.* are multiples; loss.deviation: of the pick over the floor, in standard deviations;
    r_factor: unexplained share of the measurement; aligned_mean: PSNR of the mean of the particles that agree with the pick.
    """
    m, i = run.metrics, position
    picked = m.selection.picked[i]

    def of_pick(row: Sequence[float | None]) -> float | None:
        return None if picked is None else row[picked]

    values: dict[str, float | None] = {}
    by_truth = (m.modes.psnr_aligned if m.modes else m.psnr.sample)[i]
    for metric in m.compared:
        block = m.scores[metric.name]
        best = at_best(block.sample[i], by_truth) if metric.of == "measurement" else getattr(block, metric.direction)[i]
        values |= {
            f"{table_key(metric)}.best": best,
            f"{table_key(metric)}.mean": block.mean[i],
            f"{table_key(metric)}.pick": of_pick(block.sample[i]),
            f"{table_key(metric)}.spread": block.std[i],
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
            "failed": statistics.fmean(label not in SUCCESSFUL for label in survivors) if survivors else None,
            "success_pick": float(picked is not None and m.modes.label[i][picked] in SUCCESSFUL),
        }
    if m.loss:
        ratio = m.loss.ratio[i]
        values |= {
            "loss.best": at_best(ratio, by_truth),
            "loss.mean": _mean(ratio),
            "loss.pick": of_pick(ratio),
            "noise_floor": m.loss.noise_floor[i],
        }
        for metric in BESIDE_LOSS:
            if metric is not Loss and (rows := getattr(m.loss, str(metric.beside_loss))):
                values |= {f"{metric.name}.mean": _mean(rows[i]), f"{metric.name}.pick": of_pick(rows[i])}
        if m.loss.deviation is not None:
            values["loss.deviation"] = of_pick(m.loss.deviation[i])
    if m.summary:
        values["aligned_mean"] = m.summary.psnr[i]
    values["pick_psnr"] = values["psnr_aligned.pick" if m.modes else "psnr.pick"]
    if run.trivial:
        floor = next(iter(run.trivial.values()))[m.metadata.image_ids[i]]
        mean = m.psnr.mean[i]
        values |= {"psnr.trivial": floor, "psnr.gain": None if mean is None else mean - floor}
    steps = steps_above(run, until)
    values["pairwise_distance"] = m.diversity.pairwise_distance[i][steps - 1] if steps else None
    values["seconds"] = m.time.per_image_s[i]
    for plan, of_mechanism in registry.blocks_of(m):
        if of_mechanism is not None:
            values |= plan.values(of_mechanism, i)
    return values


def _mean(values: Iterable[float | None]) -> float | None:
    """Of those that are known; None of none."""
    numbers = finite(values)
    return statistics.fmean(numbers) if numbers else None
