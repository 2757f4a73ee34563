"""Which tables there are, their columns and notes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from utils.analysis.stats import FEW
from utils.mechanisms.registry import PLANS
from utils.metrics.base import BETTER_ORIENTATION, Described, described, heading, table_key
from utils.metrics.registry import ORDER


class Column(NamedTuple):
    key: str
    head: str
    best: str | None = None  # max | min: the best value of the column is set in bold
    digits: int = 2
    optional: bool = False  # left out of a kind's own columns where no row has it


class Table(NamedTuple):
    title: str
    columns: list[Column]
    rows: list[list]  # one list of values per row, as long as columns
    notes: tuple[str, ...] = ()
    own_notes: tuple[str, ...] = ()  # those of the notes that hold for this table alone, not for all of its kind


# what a user without the truth gets: the pick, and the mean of the particles that agree with it
MEAN = Column("aligned_mean", "aligned mean PSNR (dB)", "max", optional=True)
LABEL_FREE = (Column("pick_psnr", "label-free pick PSNR (dB)", "max"), MEAN)

FAILED = Column("failed", "single particles failed", "min")

FIRST = [Column("experiment", "experiment"), Column("images", "images"), Column("particles", "particles")]


def of_metrics(kind: str) -> list[Column]:
    """The columns that our metrics have in a table."""
    return [column_of(metric, part, head) for metric in ORDER for part, head in metric.tables.get(kind, ())]


def column_of(metric: Described, part: str, head: str) -> Column:
    """part: best, mean or pick. What is computed from the measurement has no best: it may be too good."""
    best = metric.direction if metric.of == "image" else None
    return Column(f"{table_key(metric)}.{part}", head, best, metric.digits, metric.optional)


def kind(title: str, *columns: Column, first: Sequence[Column] = FIRST) -> tuple[str, list[Column]]:
    """(title, columns) of a table."""
    return title, [*first, *columns]


KINDS: dict[str, tuple[str, list[Column]]] = {
    "quality": kind(
        "PSNR in dB",
        *of_metrics("quality"),
        Column("psnr_aligned.best", "better orientation: best", "max"),
        Column("psnr_aligned.mean", "better orientation: mean", "max"),
        Column("psnr_aligned.spread", "std over particles"),
        Column("psnr_aligned.pick", "better orientation: pick", "max"),
        MEAN,
    ),
    "robust": kind(
        "PSNR (dB): mean / median / 5 % quantile",
        Column("robust.single", "single particles"),
        Column("robust.pick", "label-free pick"),
        Column("robust.best", "best of the particles"),
        MEAN,
        Column("success_single", "success of single particles", "max"),
        Column("success_pick", "success of the label-free pick", "max"),
        Column("success", "success of the best", "max"),
    ),
    "perception": kind(
        "SSIM and LPIPS as is",
        *of_metrics("perception"),
        *LABEL_FREE,
    ),
    "metrics": kind("Metrics of one's own, as is"),  # and what `own_columns` finds
    "modes": kind(
        "Success and modes",
        Column("success", "success rate", "max"),
        FAILED,
        Column("both_modes", "both orientations", "max"),
        Column("coverage", "orientations found", "max"),
        Column("pairwise_distance", "pairwise distance, end of phase 1"),
        Column("success_pick", "success of the label-free pick", "max"),
        *LABEL_FREE,
    ),
    "tuning": kind(
        "Settings",
        Column("cost.passes_per_particle", "decoder passes per particle", "min", 0),
        Column("cost.in_passes", "time in decoder passes", "min", 0, optional=True),
        FAILED,
        Column("success", "success rate", "max"),
        Column("psnr_aligned.best", "best PSNR, better orientation (dB)", "max"),
        Column("psnr_aligned.mean", "mean PSNR, better orientation (dB)", "max"),
        Column("psnr_aligned.spread", "std over particles (dB)"),
        Column("both_modes", "both orientations", "max"),
        *LABEL_FREE,
    ),
    "loss": kind(
        "Measurement loss / noise floor",
        Column("noise_floor", "noise floor", None, 3),
        Column("loss.mean", "loss / floor: mean", None, 3),
        Column("loss.pick", "label-free pick", None, 3),
        Column("loss.best", "best by the truth", None, 3),
        Column("loss.deviation", "pick above the floor (sd)", None, 1, optional=True),
        *of_metrics("loss"),
        *LABEL_FREE,
    ),
    "failures": kind(
        "Images in which no particle succeeded",
        Column("failures.count", "images without success", "min", 1),
        Column("failures.ids", "their ids"),
        Column("success_pick", "success of the label-free pick", "max"),
        MEAN,
    ),
    "tasks": kind(
        "PSNR in dB against the best trivial reconstruction",
        Column("trivial.name", "trivial reconstruction"),
        Column("trivial.psnr", "trivial"),
        Column("psnr.mean", "mean"),
        Column("psnr.best", "best"),
        Column("pick_psnr", "label-free pick"),
        MEAN,
        Column("trivial.gain", "gain of the mean"),
    ),
    "cost": kind(
        "Cost per image",
        Column("cost.seconds", "seconds", "min"),
        Column("cost.peak_mb", "peak memory (MB)", "min", 1),
        Column("cost.passes", "decoder passes", "min", 0),
        Column("cost.in_passes", "time in decoder passes", "min", 0, optional=True),
        *(Column(f"cost.{key}", head, None, digits) for plan in PLANS for key, head, digits in plan.measured),
        Column("cost.time_x_memory_mb_s", "time × memory (MB s)", "min", 1),
        Column("cost.relative_time", "time / baseline", "min"),
        Column("cost.relative_passes", "passes / baseline", "min"),
        Column("cost.relative_time_x_memory", "time × memory / baseline", "min"),
        *LABEL_FREE,
    ),
    "phases": kind(
        "Phases, per image",
        Column("phase", "phase"),
        Column("seconds", "seconds"),
        Column("peak_mb", "peak memory (MB)", None, 1),
        Column("steps", "steps", None, 0),
        Column("decoder_forward_backward", "passes per particle", None, 1),
        Column("denoiser_calls", "denoiser calls per particle", None, 1),
        *LABEL_FREE,
        first=FIRST[:1],
    ),
    "paired": kind(
        "Paired differences to {baseline}, 95 % intervals",
        Column("paired.images", "common images"),
        Column("paired.psnr.best", "PSNR as is: best (dB)"),
        Column("paired.psnr_aligned.best", "PSNR: best (dB)"),
        Column("paired.psnr_aligned.mean", "PSNR: mean (dB)"),
        Column("paired.pick_psnr", "PSNR: label-free pick (dB)"),
        Column("paired.aligned_mean", "PSNR: aligned mean (dB)", optional=True),
        Column("paired.failed", "single particles failed", None, 3),
        Column("paired.success", "success rate", None, 3),
        Column("paired.success_pick", "success of the pick", None, 3),
        Column("paired.both_modes", "both orientations", None, 3),
        Column("paired.pairwise_distance", "pairwise distance"),
        first=FIRST[:1],
    ),
    "paired_tests": kind(
        "Paired tests against {baseline}",
        Column("paired.images", "common images"),
        Column("paired.changed.success", "images rescued / lost (McNemar's p)"),
        Column("paired.changed.success_pick", "label-free pick: rescued / lost (McNemar's p)"),
        Column("paired.wilcoxon.best", "best: median difference in dB (Wilcoxon's p)", None, 3),
        Column("paired.wilcoxon.mean", "mean: median difference in dB (Wilcoxon's p)", None, 3),
        Column("paired.wilcoxon.pick", "label-free pick: median difference in dB (Wilcoxon's p)", None, 3),
        first=FIRST[:1],
    ),
}


def own_columns(summaries: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Of all metrics of one's own that some summaries of utils.analysis.comparison have."""
    metrics = {name: described(name, numbers) for s in summaries for name, numbers in s.get("metrics", {}).items()}
    return [column_of(m, part, f"{heading(m)}: {part}") for m in metrics.values() for part in ("best", "mean", "pick")]


PAIRED = ("paired", "paired_tests")  # kinds whose rows are differences to a baseline

NEEDS = {
    "paired": "more than one run",
    "paired_tests": "more than one run",
    "metrics": "a run with metrics of its own (docs/extending.md)",
    "loss": "metrics.json with losses; of an older run by --from-records",
    "phases": "a measured run",
    "tasks": "trivial.json of the runs, by tools/evidence/trivial_reconstruction.py",
}  # what a table cannot be made without

PRIOR = [
    Column("file", "measured in"),
    Column("family", "family"),
    Column("samples", "samples"),
    Column("distance", "distance of samples"),
    Column("floor", "floor: images to images"),
    Column("ratio", "ratio"),
    Column("layout.ratio", "ratio, layout alone"),
    Column("detail.ratio", "ratio, detail alone"),
    Column("psnr_upright.mean", "autoencoder, upright: mean (dB)"),
    Column("psnr_upright.min", "minimum"),
    Column("psnr_rotated.mean", "rotated: mean (dB)"),
    Column("psnr_rotated.min", "minimum"),
    Column("decoder_ms", "decoder forward + backward (ms a latent)"),
]

RATES = "Success: a particle labelled 0 or 180. Rates with 95 % Wilson intervals, n = number of images."

FAILURES = (
    "Single particles: n = number of surviving particles, diverged ones count as failed; 95 % intervals by a "
    f"bootstrap over images (Wilson over images where all agree or are fewer than {FEW})."
)

DISTANCE = "Pairwise distance: of the latents, in all rows at the t where the first phase 1 ends."

NOTES = {
    "quality": "Mean ± standard deviation over images. As is: in the orientation as found, the official row; better "
    f"orientation: {BETTER_ORIENTATION}; best: per image by the truth; mean: over particles; pick: the particle chosen "
    "without the truth, by the lowest measurement loss.",
    "robust": "In the better orientation where the task has two; single particles: all that were not pruned; best: per "
    f"image by the truth; pick: by the lowest measurement loss. {RATES} {FAILURES} Of a subset of the particles only "
    "expectations are known, and they have no quantiles.",
    "perception": "Mean ± standard deviation over images, in the orientation as found (the official row).",
    "metrics": "Mean ± standard deviation over images. Best: by the metric itself; of one of the measurement, that of the "
    "particle that is best by the truth.",
    "modes": f"{RATES} {FAILURES}",
    "tuning": f"Mean ± standard deviation over images. {RATES} {FAILURES}",
    "loss": "Mean ± standard deviation over images. Loss: sum of squared residuals of the measurement; noise floor: its "
    "expected value at the true image. Near 1 a particle explains the measurement up to its noise; below, it fits noise too.",
    "failures": "Success: a particle labelled 0 or 180. Where several seeds are pooled their mean number, and the seeds in "
    "brackets; of a subset of the particles the expected number, and the images that fail with some subset.",
    "tasks": "Mean ± standard deviation over images; mean and best are over an image's particles. Gain: paired on the images, "
    f"95 % interval by a bootstrap over images (Student's t below {FEW} images).",
    "prior": "Frechet distance of latent statistics (tools/prior_quality.py): unconditional samples to test images, and as a "
    "floor test images to as many others; ± standard deviation over divisions of the images. Ratio: distance / "
    "floor; layout: the pooled values, detail: the energies of the fine structure. Compare rows of one family and "
    "number of samples. Autoencoder: the shipped test images. Decoder time: the fastest of 30 passes of 4 latents.",
    "paired": f"95 % intervals: PSNR, distances and failed particles by a bootstrap over images (Student's t below {FEW} "
    "images), other rates from Wilson intervals of the discordant images. PSNR in the better orientation where not said "
    "otherwise.",
    "paired_tests": "On the common images and seeds, in the better orientation where the task "
    "has two. Rescued: images that succeed here and not there, lost: the reverse (of several seeds by the sign of the mean), "
    "with the exact two-sided p of McNemar's test. Wilcoxon's signed-rank test is of the differences per image.",
}

ALIGNED_MEAN = (
    "Aligned mean: of the image's particles that agree with the label-free pick, each turned onto it where the measurement "
    "does not see the turn; found without the truth, scored in the better orientation; – where a run is older than it."
)

IN_PASSES = (
    "Time in decoder passes: of all an image costs, in units of one particle's pass forward and backward as the same run's "
    "chains took it; – where a run is older than it, or compiled."
)

COMPARISONS = (
    "{tests} in this table, not corrected for their number: where nothing differs about one in 20 still stands out "
    "(Bonferroni's bound for one of them: p = {bound})."
)

MINUS = "Experiment minus {baseline} on the common images and seeds."


def known_keys() -> dict[str, Column]:
    """All keys that a column list may name, besides those of the phases."""
    return {column.key: column for kind, (_, columns) in KINDS.items() if kind != "phases" for column in columns}
