"""Records, one file per image, and their aggregation to metrics.json.

metrics.json is a pure function of the records, so resuming, sharding and merging are the same operation.
"""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from utils.errors import InputError
from utils.mechanisms import registry
from utils.metrics.loss import Loss
from utils.metrics.registry import BESIDE_LOSS, SCORES
from utils.records.metrics import Metrics, check_metrics
from utils.records.record import SCHEMA

Records = list[dict[str, Any]]
Value = TypeVar("Value")


def finite(values: Iterable[Value | None]) -> list[Value]:
    return [v for v in values if v is not None]


def spread(values: Iterable[float | None]) -> float | None:
    """Standard deviation with ddof 1; 0 for one value, None for none."""
    numbers = finite(values)
    return None if not numbers else 0.0 if len(numbers) == 1 else statistics.stdev(numbers)


def present_scores(records: Records) -> tuple[str, ...]:
    """The names of the scores of some records of one run: ours, then one's own."""
    ours = (m.name for m in SCORES if not m.optional or any(r["scores"].get(m.name) is not None for r in records))
    return (*ours, *described(records))


def described(records: Records) -> dict[str, dict[str, Any]]:
    """{name: what tables need to know} of the metrics of one's own that any record has."""
    return {name: about for r in records for name, about in r.get("metrics", {}).items()}


def score_block(records: Records, name: str) -> dict[str, list]:
    """A score is null in the records that were made without it."""
    samples = [r["scores"].get(name) or [None] * len(r["particles"]) for r in records]
    present = [finite(values) for values in samples]
    return {
        "sample": samples,
        "mean": [statistics.fmean(v) if v else None for v in present],
        "std": [spread(v) for v in present],
        "max": [max(v) if v else None for v in present],
        "min": [min(v) if v else None for v in present],
    }


def modes_block(records: Records) -> dict[str, list] | None:
    if records[0]["modes"] is None:
        return None
    labels = [r["modes"]["label"] for r in records]  # None: pruned or diverged
    orientations = [{label for label in row if label in ("0", "180")} for row in labels]
    return {
        "label": labels,
        "psnr_aligned": [r["modes"]["psnr_aligned"] for r in records],
        "psnr_rotated_truth": [r["modes"]["psnr_rotated_truth"] for r in records],
        "coverage": [len(f) for f in orientations],
        "success": [bool(f) for f in orientations],
    }


def loss_block(records: Records) -> dict[str, Any]:
    """Measurement loss per particle, the expected loss of the true image per image, and their ratios (None at floor 0).

    deviation: by how many standard deviations of the true image's loss a particle's lies above its expectation; absent where
    no record knows them. decoder_deviation: the same of what the prior's decoder cannot draw. terms: those of the data term,
    unweighted.
    """
    samples, floors = [r["loss"] for r in records], [r["noise_floor"] for r in records]
    spreads = [r.get("floor_std") for r in records]
    block: dict[str, Any] = {
        "sample": samples,
        "noise_floor": floors,
        "ratio": [[v / floor if floor and v is not None else None for v in row] for row, floor in zip(samples, floors)],
    }
    terms = [r["loss_terms"] for r in records if "loss_terms" in r]
    if len(terms) == len(records):  # absent where the data term is the default
        block["terms"] = {
            n: {"sample": [t[n]["loss"] for t in terms], "noise_floor": [t[n]["noise_floor"] for t in terms]} for n in terms[0]
        }
    for name in (m.name for m in BESIDE_LOSS if m is not Loss):
        if any(r.get(name) for r in records):
            block[name] = [r.get(name) or [None] * len(r["particles"]) for r in records]
    if any(spreads):
        block["deviation"] = [
            [(v - floor) / std if std and v is not None else None for v in row]
            for row, floor, std in zip(samples, floors, spreads)
        ]
    if any(r.get("decoder_floor") is not None for r in records) and any(spreads):
        block["decoder_deviation"] = [
            r["decoder_floor"] / std if std and r.get("decoder_floor") is not None else None for r, std in zip(records, spreads)
        ]
    for name in ("r_factor_noise", "scale"):
        if any(r.get(name) is not None for r in records):
            block[name] = [r.get(name) for r in records]
    return block


def at_best(values: Sequence[Value], scores: Sequence[float | None]) -> Value | None:
    """The value of the particle of the highest score (the first of several); None where no particle has a score."""
    known = {i: score for i, score in enumerate(scores) if score is not None}
    return values[max(known, key=known.__getitem__)] if known else None


def summary_block(records: Records) -> dict[str, list] | None:
    """Of records that have it: per image which particles agree, PSNR of their aligned mean, resolution in pixels."""
    blocks = [r.get("summary") for r in records]
    if not any(blocks):
        return None
    keys = ("agreeing", "psnr", "resolution")
    per_image = [block or {"agreeing": [None] * len(r["particles"])} for block, r in zip(blocks, records)]
    return {key: [block.get(key) for block in per_image] for key in keys}


def started(record: dict[str, Any]) -> int:
    """How many particles of an image were started: all, or those of a sequential population's rounds."""
    population = record.get("population")
    return sum(len(r["particles"]) for r in population["rounds"]) if population else len(record["particles"])


def population_block(records: Records) -> dict[str, Any]:
    """Of a sequential population: per image its rounds, signals and verdict, and over images how it went; else absent.

    With a truth, wrong: the particle picked from those that pass is no success; missed: none passes, and one of those
    started is. Null where there are no labels.
    """
    if not any(r.get("population") for r in records):
        return {}
    blocks = [r["population"] for r in records]
    accepted, counts = [block["accepted"] for block in blocks], [started(r) for r in records]
    solved = [None if r["modes"] is None else [label in ("0", "180") for label in r["modes"]["label"]] for r in records]
    picks = [r["selection"]["picked"] for r in records]
    wrong = [None if ok is None else yes and not (i is not None and ok[i]) for ok, yes, i in zip(solved, accepted, picks)]
    missed = [None if ok is None else not yes and any(ok) for ok, yes in zip(solved, accepted)]
    block = {
        "rule": blocks[0]["rule"],
        "accepted_share": statistics.fmean(accepted),
        "mean_started": statistics.fmean(counts),
        "most_started": max(counts),
        "false_accepts": _share(wrong),
        "false_rejects": _share(missed),
        "accepted": accepted,
        "started": counts,
        "wrong": wrong,
        "missed": missed,
        "rounds": [block["rounds"] for block in blocks],
        "signals": {name: [block["signals"][name] for block in blocks] for name in blocks[0]["signals"]},
    }
    return {"population": block}


def _share(values: Sequence[bool | None]) -> float | None:
    """Of all images; None where nothing is known of them."""
    judged = finite(values)
    return statistics.fmean(judged) if judged else None


def own_blocks(records: Records) -> dict[str, Any]:
    """{name: block per image} of mechanisms of one's own; absent where there are none."""
    names = dict.fromkeys(name for r in records for name in r.get("mechanisms", {}))
    return {"mechanisms": {name: [r.get("mechanisms", {}).get(name) for r in records] for name in names}} if names else {}


def phase_names(records: Records) -> tuple[str, ...]:
    """Names of the phases of some records of one run, in the order of the run."""
    return tuple(dict.fromkeys(name for r in records for name in r["time"]["phases"]))


def phases_block(records: Records) -> dict[str, dict[str, float]]:
    """Times and steps add up over images, network calls stay per particle: their mean over images, or over particles
    started where images have different numbers of them."""
    phases = {}
    encodes = any("encoder_forward" in phase for r in records for phase in r["time"]["phases"].values())
    calls = ("decoder_forward", "decoder_forward_backward", "denoiser_calls", *(("encoder_forward",) if encodes else ()))
    for name in phase_names(records):
        present = [r for r in records if name in r["time"]["phases"]]
        parts = [r["time"]["phases"][name] for r in present]
        counts = [started(r) for r in present]
        weights = counts if len(set(counts)) > 1 else None  # of one particle, times their number: what an image costs
        phases[name] = {
            "time_s": sum(p["time_s"] for p in parts),
            "steps": sum(p["steps"] for p in parts),
            **{key: statistics.fmean([p.get(key, 0.0) for p in parts], weights) for key in calls},
        }
        if any("chain_passes" in p for p in parts):
            phases[name] |= {key: sum(p.get(key, 0.0) for p in parts) for key in ("chain_s", "chain_passes")}
        if all("particles" in p for p in parts):
            phases[name]["passes"] = statistics.fmean([p["decoder_forward_backward"] * p["particles"] for p in parts])
    return phases


def peaks(records: Records) -> dict[str, float | None]:
    """{phase: peak MB or None}, the maximum over images."""
    names = phase_names(records)
    return {
        name: max(finite([r["time"]["phases"][name]["peak_mb"] for r in records if name in r["time"]["phases"]]), default=None)
        for name in names
    }


def device_block(records: Records, highest: float | None) -> dict[str, Any]:
    """The device, its peak over all records, and the same for each of several cores."""
    device = {key: value for key, value in records[-1]["device"].items() if key != "core"}
    by_core: dict[int, Records] = {}
    for record in records:
        if (core := record["device"].get("core")) is not None:
            by_core.setdefault(core, []).append(record)
    if by_core:
        device["cores"] = [
            {"core": core, "images": len(of_core), "peak_memory_mb": max(finite(peaks(of_core).values()), default=None)}
            for core, of_core in sorted(by_core.items())
        ]
    return {**device, "peak_memory_mb": highest}


def run_block(record: dict[str, Any]) -> dict[str, Any]:
    """What a record says about the run; how many particles an image may have beside those at the start, where it may."""
    about = record["run"]
    newborn = len(record["particles"]) - about["num_samples"]
    return {**about, "num_children": newborn} if newborn > 0 else about


def aggregate(records: Records, name: str) -> Metrics:
    """As `_aggregate`. Raises InputError where records, each of them whole, do not fit together."""
    try:
        return _aggregate(records, name)
    except KeyError as error:
        raise InputError(f"records of {name}: only some of them have {error}; keep one run in a folder") from None


def _aggregate(records: Records, name: str) -> Metrics:
    """What metrics.json holds, from records sorted by image id, all of one configuration; `name` is the run's.

    What the records say about the run (seed, overrides, commit, versions, device) is taken from the last one.
    """
    phases, peak_mb = phases_block(records), peaks(records)
    highest = max(finite(peak_mb.values()), default=None)
    all_measured = all(p is not None or phases[name]["steps"] == 0 for name, p in peak_mb.items())
    compiling = finite(r["time"].get("compile_s") for r in records)  # nothing where nothing is compiled
    return check_metrics(
        {
            "schema": SCHEMA,
            "metadata": {
                "name": name,
                **run_block(records[-1]),
                "num_images": len(records),
                "image_ids": [r["image_id"] for r in records],
                **({} if any(finite(r["scores"]["psnr"]) for r in records) else {"files": [r["file"] for r in records]}),
                "device": device_block(records, highest),
                "gpu": {"peak_vram_mb": highest if records[-1]["device"]["type"] == "cuda" else None},
            },
            **{name: score_block(records, name) for name in present_scores(records)},
            "modes": modes_block(records),
            "selection": {
                "picked": [r["selection"]["picked"] for r in records],
                "psnr": [r["selection"]["psnr"] for r in records],
                "psnr_aligned": [r["selection"]["psnr_aligned"] for r in records],
                "rule": records[0]["selection"]["rule"],
            },
            "loss": loss_block(records),
            "diversity": {"pairwise_distance": [r["trace"]["pairwise_distance"] for r in records]},
            "time": {
                "total_s": sum(r["time"]["image_s"] for r in records),
                "per_image_s": [r["time"]["image_s"] for r in records],
                "per_step_s": [r["time"]["step_s"] for r in records],
                "compile_s": sum(compiling) if compiling else None,
                "phases": phases,
            },
            "vram": {f"{name}_peak_mb": peak for name, peak in peak_mb.items()},
            "cost": {
                "time_x_memory_mb_s": sum(phases[n]["time_s"] * (peak_mb[n] or 0.0) for n in phases) if all_measured else None
            },
            **registry.aggregated(records),
            "summary": summary_block(records),
            **own_blocks(records),
            **({"metrics": about} if (about := described(records)) else {}),
            **population_block(records),
            **({"resolved": records[0]["resolved"]} if "resolved" in records[0] else {}),
            "diverged": [r["diverged"] for r in records],
        },
        f"records of {name}",
    )
