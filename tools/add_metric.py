"""Compute a metric of finished runs from their records, write it into them and aggregate metrics.json and eval.md anew.

    python tools/add_metric.py gradient_error results/old
    PYTHONPATH=my_parts python tools/add_metric.py sharpness=sharpness.Sharpness results/demo --set floor=0.01

METRIC is one of ours that older records lack, one of your own as name=module.Class, or the name alone of one that the run's
own config has, with --trust module.Class. Images that have it already keep their numbers. Pictures in records have 8 bits a
channel, so numbers differ in the last digits from what the run itself would have written. Exit status: 0; 2 if it cannot be
computed, in which case every run is as it was.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from utils.analysis import runs
from utils.command_line import Parser, run, say
from utils.digests import of_config, of_modules, other_content
from utils.errors import InputError, counted, one_line, short
from utils.metrics.base import Metric, numbers
from utils.metrics.registry import ORDER, SCORES
from utils.plain_files import Unreadable, parse_yaml
from utils.records.claim import unclaimed
from utils.records.files import RecordError, read_record, record_paths, write_record
from utils.records.folder import RunFolder
from utils.running.finished import TRUST, refuse_code_of_others, refuse_other_content, settings_of_finished

Row = list[float | None]


def main() -> None:
    about, _, remarks = __doc__.split("\n\n")
    parser = Parser(prog="add_metric.py", description=f"{about} {remarks}")
    parser.add_argument("metric", metavar="METRIC", help="name, or name=module.Class")
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="run folders, <save_dir>/<name>")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="an argument of the class; repeatable")
    parser.add_argument("--trust", action="append", default=[], metavar="MODULE.CLASS", help=TRUST)
    args = parser.parse_intermixed_args()
    trusted = {*args.trust, args.metric.partition("=")[2]}
    scored = []
    for folder in args.runs:
        finished = runs.load(folder)
        metric = chosen(args.metric, dict(map(argument, args.set)), finished, trusted)
        scored.append((finished.folder, metric, values(metric, finished, trusted)))
    for folder, metric, rows in scored:
        add(folder, metric, rows)
        say(f"{folder}: {metric.name} of {counted(len(rows), 'image')}")


def argument(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"set={text}: write --set key=value")
    try:
        return key, parse_yaml(value.encode())
    except Unreadable as error:
        raise InputError(f"set={short(text)}: {error}") from None


def chosen(text: str, arguments: dict[str, Any], finished: runs.Run, trusted: Collection[str]) -> Metric:
    """The metric that METRIC names. Raises InputError."""
    name, equals, target = text.partition("=")
    ours = {metric.name: metric for metric in ORDER}
    configured = {} if equals else (finished.config or {}).get("metrics") or {}
    if name in configured:
        refuse_code_of_others(configured[name], finished.folder, trusted, f"metrics.{name}")

    from utils.running.build import own_metrics

    if equals or name in configured:
        (metric,) = own_metrics({name: {"_target_": target, **arguments} if equals else configured[name]})
        return metric
    if name not in ours:
        raise InputError(f"metric={name}: choose from {', '.join(ours)}, or write name=module.Class")
    return ours[name]()


def values(metric: Metric, finished: runs.Run, trusted: Collection[str]) -> dict[Path, Row]:
    """{record: a value for each of its particles} of the images that have none. Raises InputError."""
    rows, of, module = {}, None, of_modules(type(metric).__module__)
    other = None  # of what the images that have it were scored with
    for path in record_paths(finished.folder):
        record, arrays = read(path)
        if any(v is not None for v in block(record, metric).get(metric.name) or []):
            other = other or other_content(record.get("digests", {}), module)
            continue
        if metric.of == "measurement" and of is None:
            of = operator(finished, trusted, record)
        rows[path] = row(metric, record, arrays, of)
    if not record_paths(finished.folder):
        raise InputError(f"{finished.folder}: holds no records with pictures; name a run folder as the run has left it")
    if not rows:
        raise InputError(f"{finished.folder}: all of its images have {metric.name} already")
    if other:
        raise InputError(f"{finished.folder}: some images have {metric.name} of {other}; choose another name for it")
    return rows


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Record and arrays. Raises InputError."""
    try:
        return read_record(path)
    except RecordError as error:
        raise InputError(f"{error}; run its command again, which samples the image anew") from None


def block(record: dict[str, Any], metric: Metric) -> dict[str, Any]:
    """Where a metric's values stand in a record."""
    return record if metric.beside_loss else record["scores"]


def operator(finished: runs.Run, trusted: Collection[str], record: dict[str, Any]) -> Any:
    """The run's, its data term included, on the CPU. Raises InputError if `record` was measured with another one."""
    from operators.fidelity import WithFidelity
    from utils.running.build import load_operator

    if finished.config is None:
        raise InputError(f"{finished.folder}: has no config.yaml, so its operator is not known")
    settings = settings_of_finished(finished.config, finished.folder, trusted)
    if settings.pixel != 1:
        raise InputError(
            f"{finished.folder}: its pictures are scaled up, and its measurement is that of a coarse level; only "
            "metrics of an image and the truth can be added"
        )
    named = {key: value for key, value in settings.composition.identity.items() if key in ("task", "fidelity")}
    refuse_other_content([record], finished.folder, of_config(named))
    operator = load_operator(settings)
    return operator if settings.data_term.is_default else WithFidelity(operator, settings.data_term)


def row(metric: Metric, record: dict[str, Any], arrays: dict[str, np.ndarray], of: Any) -> Row:
    """A value for each particle of one image, None where it is not there or diverged. Raises InputError."""
    import torch

    from utils.metrics.pixels import from_pixels

    image = f"image {record['image_id']}"
    if "images" not in arrays:
        raise InputError(f"{image}: its record holds no pictures; name a run folder as the run has left it")
    x = from_pixels(arrays["images"])
    if metric.of == "image":
        if "truth" not in arrays:
            raise InputError(f"{metric.name}: {image} was measured and has no truth to compare with")
        compared_with: tuple[Any, ...] = (from_pixels(arrays["truth"][None])[0],)
    else:
        y = torch.from_numpy(arrays["y"])
        compared_with = y.expand(len(x), *y.shape), of
    try:
        scores = numbers(metric, x, *compared_with)
    except InputError:
        raise
    except Exception as error:  # of a class of one's own, anything
        raise InputError(f"{metric.name}: fails for {image} ({type(error).__name__}: {one_line(error)})") from None
    if scores is None:
        raise InputError(f"{metric.name}: cannot be had of {image}; its weights are missing, or the images are too small")
    score_of = dict(zip(record["survivors"], scores))
    return [None if lost else score_of.get(index) for index, lost in zip(record["particles"], record["diverged"])]


def add(folder: Path, metric: Metric, rows: dict[Path, Row]) -> None:
    """Write the values into the records, each in one step, and aggregate them."""
    fingerprint = read(next(iter(rows)))[0]["fingerprint"]
    with unclaimed(folder, metric.name):  # of two of these commands one would write what it read before the other
        for path, each in rows.items():
            record, arrays = read(path)
            block(record, metric)[metric.name] = each
            record["digests"] = of_modules(type(metric).__module__) | record.get("digests", {})
            if not isinstance(metric, SCORES) and not metric.beside_loss:
                record.setdefault("metrics", {})[metric.name] = metric.about()
            write_record(folder, record, arrays)
        RunFolder(folder, fingerprint).aggregate()


if __name__ == "__main__":
    run(main)
