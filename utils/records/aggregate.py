"""Records, one file per image, and their aggregation to metrics.json.

metrics.json is a pure function of the records, so resuming, sharding and merging are the same operation.
"""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from utils.records.files import clean
from utils.records.record import PHASES, SCHEMA

Records = list[dict[str, Any]]
Value = TypeVar("Value")

SCORES = ("psnr", "ssim", "lpips")
OPTIONAL_SCORES = ("lpips_alex", "gradient_error")  # in metrics.json where a record has them


def finite(values: Iterable[Value | None]) -> list[Value]:
    return [v for v in values if v is not None]


def spread(values: Iterable[float | None]) -> float | None:
    """Standard deviation with ddof 1; 0 for one value, None for none."""
    known = finite(values)
    return None if not known else 0.0 if len(known) == 1 else statistics.stdev(known)


def present_scores(records: Records) -> tuple[str, ...]:
    """The names of the scores of some records of one run."""
    return (*SCORES, *(name for name in OPTIONAL_SCORES if any(r["scores"].get(name) is not None for r in records)))


def score_block(records: Records, name: str) -> dict[str, list]:
    """An optional score is null in the records that were made without it."""
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
    found = [{label for label in row if label in ("0", "180")} for row in labels]
    return {
        "label": labels,
        "psnr_aligned": [r["modes"]["psnr_aligned"] for r in records],
        "psnr_rotated_truth": [r["modes"]["psnr_rotated_truth"] for r in records],
        "coverage": [len(f) for f in found],
        "success": [bool(f) for f in found],
    }


def loss_block(records: Records) -> dict[str, Any]:
    """Measurement loss per particle, the expected loss of the true image per image, and their ratios (None at floor 0).

    deviation: by how many standard deviations of the true image's loss a particle's lies above its expectation; absent where
    no record knows them.
    """
    samples, floors = [r["loss"] for r in records], [r["noise_floor"] for r in records]
    spreads = [r.get("floor_std") for r in records]
    block: dict[str, Any] = {
        "sample": samples,
        "noise_floor": floors,
        "ratio": [[v / floor if floor and v is not None else None for v in row] for row, floor in zip(samples, floors)],
        **terms_block(records),
        **_r_factors(records),
    }
    if any(spreads):
        block["deviation"] = [
            [(v - floor) / std if std and v is not None else None for v in row]
            for row, floor, std in zip(samples, floors, spreads)
        ]
    return block


def terms_block(records: Records) -> dict[str, Any]:
    """The same of each term of the data term, unweighted; absent where it is the default."""
    found = [r["loss_terms"] for r in records if "loss_terms" in r]
    if len(found) < len(records):
        return {}
    return {
        "terms": {
            n: {"sample": [t[n]["loss"] for t in found], "noise_floor": [t[n]["noise_floor"] for t in found]} for n in found[0]
        }
    }


def _r_factors(records: Records) -> dict[str, list]:
    """Of records that have them: sum |A(x) - y| / sum |y| per particle."""
    if not any(r.get("r_factor") for r in records):
        return {}
    return {"r_factor": [r.get("r_factor") or [None] * len(r["particles"]) for r in records]}


def free_block(records: Records) -> dict[str, Any] | None:
    """The same as `loss_block` of the measurements kept out of the fit; None without free_fraction."""
    if not records[0].get("free"):
        return None
    return loss_block([{**r["free"], "particles": r["particles"]} for r in records])


def at_best(values: Sequence[Value], scores: Sequence[float | None]) -> Value | None:
    """The value of the particle of the highest score (the first of several); None where no particle has a score."""
    known = [(score, -i) for i, score in enumerate(scores) if score is not None]
    return values[-max(known)[1]] if known else None


def pruning_block(records: Records) -> dict[str, Any] | None:
    if records[0]["pruning"] is None:
        return None
    reports = [r["pruning"] for r in records]
    return {
        "step_index": reports[0]["step_index"],
        "timestep": reports[0]["timestep"],
        **{key: [report[key] for report in reports] for key in ("kept", "dropped", "parents", "loss", "distance")},
    }


def tree_block(records: Records) -> dict[str, Any]:
    """Of records made with children: when they were born, and per image each one's parent; absent where there are none."""
    reports = [r["tree"] for r in records if r.get("tree") is not None]
    if not reports:
        return {}
    same = {key: reports[0][key] for key in ("step_index", "timestep", "stay")}
    return {"tree": {**same, "parent": [report["parent"] for report in reports]}}


def optimization_block(records: Records) -> dict[str, list] | None:
    if records[0]["optimization"] is None:
        return None
    reports = [r["optimization"] for r in records]
    return {
        **{
            key: [report[key] for report in reports]
            for key in ("calls", "iterations", "calls_without_iteration", "stopped_by", "time_s")
        }
    }


def recombination_block(records: Records) -> dict[str, Any] | None:
    """Of records made with it: per image its events."""
    reports = finite([r.get("recombination") for r in records])
    return {"events": [report["events"] for report in reports]} if reports else None


def summary_block(records: Records) -> dict[str, list] | None:
    """Of records that have it: per image which particles agree, PSNR of their aligned mean, resolution in pixels."""
    blocks = [r.get("summary") for r in records]
    if not any(blocks):
        return None
    keys = ("agreeing", "psnr", "resolution")
    known = [block or {"agreeing": [None] * len(r["particles"])} for block, r in zip(blocks, records)]
    return {key: [block.get(key) for block in known] for key in keys}


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
    found = [None if r["modes"] is None else [label in ("0", "180") for label in r["modes"]["label"]] for r in records]
    picks = [r["selection"]["picked"] for r in records]
    wrong = [None if ok is None else yes and not (i is not None and ok[i]) for ok, yes, i in zip(found, accepted, picks)]
    missed = [None if ok is None else not yes and any(ok) for ok, yes in zip(found, accepted)]
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
    known = finite(values)
    return statistics.fmean(known) if known else None


def own_blocks(records: Records) -> dict[str, Any]:
    """{name: block per image} of mechanisms of one's own; absent where there are none."""
    names = dict.fromkeys(name for r in records for name in r.get("mechanisms", {}))
    return {"mechanisms": {name: [r.get("mechanisms", {}).get(name) for r in records] for name in names}} if names else {}


def phase_names(records: Records) -> tuple[str, ...]:
    """Names of the phases of some records of one run, in the order of the run."""
    seen = {name for r in records for name in r["time"]["phases"]}
    return next((names for names in PHASES if set(names) == seen), tuple(sorted(seen)))


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
    cores = sorted({r["device"]["core"] for r in records if r["device"].get("core") is not None})
    if cores:
        own = {core: [r for r in records if r["device"].get("core") == core] for core in cores}
        device["cores"] = [
            {
                "core": core,
                "images": len(own[core]),
                "peak_memory_mb": max(finite(list(peaks(own[core]).values())), default=None),
            }
            for core in cores
        ]
    return {**device, "peak_memory_mb": highest}


def compile_seconds(records: Records) -> float | None:
    """Seconds of compiling over all images; None where nothing is compiled."""
    known = finite([r["time"].get("compile_s") for r in records])
    return sum(known) if known else None


def aggregate(records: Records, name: str) -> dict[str, Any]:
    """The content of metrics.json from records sorted by image id, all of one configuration; `name` is the run's.

    What the records say about the run (seed, overrides, commit, versions, device) is taken from the last one.
    """
    phases, peak_mb = phases_block(records), peaks(records)
    highest = max(finite(list(peak_mb.values())), default=None)
    known = all(p is not None or phases[name]["steps"] == 0 for name, p in peak_mb.items())
    device = records[-1]["device"]
    return clean(
        {
            "schema": SCHEMA,
            "metadata": {
                "name": name,
                **records[-1]["run"],
                "num_images": len(records),
                "image_ids": [r["image_id"] for r in records],
                "device": device_block(records, highest),
                "gpu": {"peak_vram_mb": highest if device["type"] == "cuda" else None},
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
            "free": free_block(records),
            "diversity": {"pairwise_distance": [r["trace"]["pairwise_distance"] for r in records]},
            "time": {
                "total_s": sum(r["time"]["image_s"] for r in records),
                "per_image_s": [r["time"]["image_s"] for r in records],
                "per_step_s": [r["time"]["step_s"] for r in records],
                "compile_s": compile_seconds(records),
                "phases": phases,
            },
            "vram": {f"{name}_peak_mb": peak for name, peak in peak_mb.items()},
            "cost": {"time_x_memory_mb_s": sum(phases[n]["time_s"] * (peak_mb[n] or 0.0) for n in phases) if known else None},
            "pruning": pruning_block(records),
            **tree_block(records),
            "optimization": optimization_block(records),
            "recombination": recombination_block(records),
            "summary": summary_block(records),
            **own_blocks(records),
            **population_block(records),
            "diverged": [r["diverged"] for r in records],
        }
    )
