"""Run folders made of invented records: the program's own aggregation, no sampling."""

from copy import deepcopy
from functools import cache

import numpy as np
from omegaconf import OmegaConf

from utils.records.aggregate import aggregate
from utils.records.files import to_json, write_record

STEPS = 10
PHASES = {
    (False, False): {"sampling": 10},
    (True, False): {"pre_pruning": 8, "post_pruning": 2},
    (False, True): {"pre_optimization": 8, "optimization": 2},
    (True, True): {"pre_pruning": 6, "post_pruning_pre_optimization": 2, "optimization": 2},
}
PEAK_MB = {"sampling": 100.0, "pre_pruning": 100.0, "pre_optimization": 100.0}  # 60 after these
PSNR = {"0": 25.0, "180": 24.0, "mixed": 18.0, "failed": 12.0, None: None}  # dB, plus a little per image


def write_run(
    parent,
    composed,
    labels,
    name="exp0",
    seed=42,
    overrides=(),
    gain=0.0,
    seconds=2.0,
    first_image=0,
    pictures=True,
    truth=True,
    means=None,
):
    """Write one run folder; labels: per image, per particle ("0", "180", "mixed", "failed", None = pruned).

    composed: the fixture; gain: added to every PSNR; seconds: per image. Particle 0 has the lowest measurement loss,
    then particle 1, and so on. truth=False: a run on measurements. means: per image the PSNR of its aligned mean, of all
    its particles; None: a run from before there was one.
    """
    folder = parent / name
    (folder / "records").mkdir(parents=True)
    cfg = deepcopy(_composed_once(composed, len(labels[0]), seed, *overrides))
    cfg.name, cfg.save_dir = name, str(parent)
    run = {
        "seed": seed,
        "num_samples": len(labels[0]),
        "overrides": list(overrides),
        "git_commit": None,
        "versions": {"torch": "2.9.0"},
    }
    records = []
    for i, row in enumerate(labels):
        record = {"fingerprint": "0", "run": run} | make_record(first_image + i, row, gain + 0.1 * i, seconds, cfg)
        if not truth:
            forget_truth(record)
        if means is not None:
            agreeing = [None if label is None else True for label in row]
            record["summary"] = {"agreeing": agreeing, "psnr": means[i] if truth else None, "resolution": 2.0}
        records.append(record)
        arrays = {
            "truth": picture(i),
            "y": np.zeros((3, 24, 24), np.float32),
            "z": np.zeros((len(record["survivors"]), 4, 8, 8), np.float32),
        }
        arrays["images"] = np.stack([np.rot90(picture(i), 2 * (row[k] == "180")) for k in record["survivors"]])
        if means is not None:
            arrays["summary_mean"], arrays["summary_std"] = picture(i), np.full((3, 16, 16), 0.01 * (i + 1), np.float16)
            arrays["summary_prtf"] = np.linspace(1, 0.1 * i, 9, dtype=np.float32)
        if not truth:
            del arrays["truth"]
        write_record(folder, record, arrays if pictures else {})
    (folder / "metrics.json").write_bytes(to_json(aggregate(records, name).content()))
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    return folder


@cache
def _composed_once(composed, particles, seed, *overrides):
    """The config of a run that has no name yet: to compose takes longer than all else here."""
    steps = f"sampler.annealing_scheduler_config.num_steps={STEPS}"
    return composed(f"num_samples={particles}", f"seed={seed}", steps, *overrides)


def forget_truth(record):
    """What a record of a measurement lacks."""
    unknown = [None] * len(record["particles"])
    record |= {"scores": {name: unknown for name in record["scores"]}, "modes": None}
    record["selection"] |= {"psnr": None, "psnr_aligned": None}
    record["trace"]["psnr"] = [unknown] * STEPS


def picture(seed):
    """(16, 16, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def make_record(image, labels, gain, seconds, cfg):
    """One image's record with the keys that utils.evaluation.evaluator writes."""
    n = len(labels)
    survivors = [k for k, label in enumerate(labels) if label is not None]
    aligned = [None if label is None else PSNR[label] + gain for label in labels]
    as_is = [10.0 if label == "180" else value for label, value in zip(labels, aligned)]
    picked = survivors[0]
    pruned, optimised = cfg.pruning_step >= 0, cfg.optimization_step >= 0
    phases = {
        name: {
            "time_s": seconds * steps / STEPS,
            "steps": steps,
            "decoder_forward": 0.0,
            "decoder_forward_backward": 2.0 * steps,
            "denoiser_calls": 2.0 * steps,
            "peak_mb": PEAK_MB.get(name, 60.0),
        }
        for name, steps in PHASES[pruned, optimised].items()
    }
    return {
        "schema": 1,
        "image_id": image,
        "file": f"{image}.png",
        "sha256": "0",
        "particles": list(range(n)),
        "survivors": survivors,
        "scores": {
            "psnr": as_is,
            "ssim": [None if v is None else v / 30 for v in as_is],
            "lpips": [None if v is None else 1 - v / 30 for v in as_is],
        },
        "modes": {
            "label": list(labels),
            "psnr_0": as_is,
            "psnr_180": [v if label == "180" else None if v is None else 10.0 for v, label in zip(aligned, labels)],
            "psnr_aligned": aligned,
            "psnr_rotated_truth": 9.0,
        },
        "loss": [float(k) for k in range(n)],
        "noise_floor": 1.0,
        "selection": {
            "picked": picked,
            "psnr": as_is[picked],
            "psnr_aligned": aligned[picked],
            "rule": "lowest measurement loss",
        },
        "trace": {
            "timestep": [1000 * (STEPS - i) / STEPS for i in range(STEPS)],
            "pairwise_distance": [float(i + 1) if n > 1 else None for i in range(STEPS)],
            "psnr": [as_is] * STEPS,
            "loss": [[float(k) for k in range(n)]] * STEPS,
        },
        "pruning": {
            "step_index": phases["pre_pruning"]["steps"],
            "timestep": float(cfg.pruning_step),
            "kept": survivors,
            "dropped": [k for k in range(n) if k not in survivors],
            "parents": {},
            "loss": [float(k) for k in range(n)],
            "distance": [1.0] * (n * (n - 1) // 2),
        }
        if pruned
        else None,
        "optimization": {
            "calls": [int(k in survivors) for k in range(n)],
            "iterations": [3 * (k in survivors) for k in range(n)],
            "calls_without_iteration": [0] * n,
            "stopped_by": [["max_iterations"] * (k in survivors) for k in range(n)],
            "time_s": 0.1,
        }
        if optimised
        else None,
        "time": {"image_s": seconds, "step_s": [seconds / STEPS] * STEPS, "phases": phases},
        "diverged": [False] * n,
        "fingerprint": "x",
        "device": {"type": "cpu", "name": "test"},
    }
