"""What experiments cost: seconds, memory, network passes and optimisation per image, as a whole and per phase."""

import statistics
from typing import Any

from utils.analysis.experiments import Experiment
from utils.analysis.runs import Run
from utils.mechanisms import registry
from utils.mechanisms.registry import PLANS
from utils.records.aggregate import finite, spread


def mean_std(e: Experiment, quantity: str) -> dict[str, Any] | None:
    """{mean, std, n, missing} over the n images that have a value; None where none has.

    std: over images (ddof 1), each the mean of its seeds; missing: images without a value.
    """
    clusters = e.clusters(quantity)
    if not clusters:
        return None
    return {
        "mean": statistics.fmean(value for cluster in clusters for value in cluster),
        "std": spread([statistics.fmean(c) for c in clusters]),
        "n": len(clusters),
        "missing": len(e.images) - len(clusters),
    }


def phases(e: Experiment) -> dict[str, dict[str, float | None]]:
    """{phase: seconds, steps and passes per image, peak MB} over the runs of one experiment."""
    images = sum(run.metrics.metadata.num_images for run in e.runs)
    rows = {}
    for name in e.runs[0].metrics.time.phases:
        parts = [(run.metrics, run.metrics.time.phases[name]) for run in e.runs]
        peaks = finite([m.vram[f"{name}_peak_mb"] for m, _ in parts])
        per_particle = {
            key: sum(getattr(p, key) * m.metadata.num_images for m, p in parts) / images
            for key in ("decoder_forward", "decoder_forward_backward", "denoiser_calls", "encoder_forward")
        }
        rows[name] = {
            "seconds": sum(p.time_s for _, p in parts) / images,
            "steps": sum(p.steps for _, p in parts) / images,
            "peak_mb": max(peaks, default=None),
            **per_particle,
            "passes": sum(_passes(run, name) for run in e.runs) / images,
        }
    return rows


def _passes(run: Run, name: str) -> float:
    """Decoder passes of all images in one phase; of an older program's run from the number of its particles."""
    m, phase = run.metrics, run.metrics.time.phases[name]
    n = m.metadata.num_images
    if phase.passes is not None:
        return n * phase.passes
    is_first = name == next(iter(m.time.phases))
    all_are_there = m.population is None and (is_first or not registry.resized(m))
    particles = n * m.metadata.num_samples if all_are_there else sum(run.active(i) for i in range(n))
    return phase.decoder_forward_backward * particles


def pass_seconds(run: Run) -> float | None:
    """Seconds of one particle's pass forward and backward through decoder and data term, as the run itself took it.

    From its inner chains, where nothing else runs, of the last phase that has one: passes of a coarse level before it are
    cheaper, and so early a mechanism may act within the chain. None for a run of an older program, without a chain, or one that
    was compiled, whose first passes are no measure.
    """
    if run.metrics.time.compile_s is not None:
        return None
    parts = [p for p in run.metrics.time.phases.values() if p.chain_s and p.chain_passes]
    return parts[-1].chain_s / parts[-1].chain_passes if parts else None


def in_passes(e: Experiment) -> float | None:
    """Time of an image, with all networks, solver and certificate, in units of a decoder pass of the same run."""
    units = [pass_seconds(run) for run in e.runs]
    if None in units:
        return None
    images = sum(run.metrics.metadata.num_images for run in e.runs)
    return sum(run.metrics.time.total_s / unit for run, unit in zip(e.runs, units) if unit) / images


def cost(e: Experiment, reference: Experiment | None = None) -> dict[str, Any] | None:
    """Per image: seconds, passes (decoder forward + backward over all particles), optimisation, time x memory.

    passes_per_particle: of one that is there from start to end; in_passes: the seconds in units of one pass.

    relative_*: over the reference's, null where one of the two is not known.
    """
    if e.derived:
        return None
    parts = phases(e)
    images = sum(run.metrics.metadata.num_images for run in e.runs)
    products = [run.metrics.cost.time_x_memory_mb_s for run in e.runs]
    row = {
        "seconds": sum(run.metrics.time.total_s for run in e.runs) / images,
        "peak_mb": max(finite([p["peak_mb"] for p in parts.values()]), default=None),
        "passes": sum(p["passes"] for p in parts.values()),
        "in_passes": in_passes(e),
        "passes_per_particle": sum(p["decoder_forward_backward"] for p in parts.values()),
        **{key: mean_std(e, key) for plan in PLANS for key, _, _ in plan.measured},
        "time_x_memory_mb_s": None if None in products else sum(products) / images,
    }
    other = None if reference is None or reference.derived else cost(reference)
    for name, key in (("time", "seconds"), ("passes", "passes"), ("time_x_memory", "time_x_memory_mb_s")):
        comparable = other is not None and other[key] and row[key] is not None
        row[f"relative_{name}"] = row[key] / other[key] if comparable else None
    return row
