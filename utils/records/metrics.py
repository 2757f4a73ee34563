"""What a metrics.json holds (schema version 1), as typed and checked values.

Keys that a later program adds are kept and do no harm; missing keys, wrong types, lists of the wrong length and
non-finite numbers are refused with one line.
"""

from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from utils.errors import InputError
from utils.records.record import PHASES, SCHEMA

Number = float | None  # null: not known, pruned, not started or diverged
PerImage = list[Number]
PerParticle = list[list[Number]]


class Block(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Device(Block):
    type: str
    peak_memory_mb: Number


class Gpu(Block):
    peak_vram_mb: Number


class Metadata(Block):
    name: str
    seed: int
    overrides: list[str]
    git_commit: str | None
    versions: dict[str, str]
    num_images: int = Field(ge=1)
    image_ids: list[int]
    num_samples: int = Field(ge=1)
    num_children: int = Field(default=0, ge=0)  # of an image, at most; lists per particle hold them after its particles
    device: Device
    gpu: Gpu

    @property
    def listed(self) -> int:
        """Entries of a list per particle."""
        return self.num_samples + self.num_children


class Score(Block):
    """psnr (dB), ssim, lpips, lpips_alex, gradient_error: per particle, and over each image's surviving particles."""

    sample: PerParticle
    mean: PerImage
    std: PerImage
    max: PerImage
    min: PerImage


class Modes(Block):
    label: list[list[Literal["0", "180", "mixed", "failed"] | None]]
    psnr_aligned: PerParticle
    psnr_rotated_truth: PerImage
    coverage: list[int]
    success: list[bool]


class Selection(Block):
    picked: list[int | None]  # position within the image's particles
    psnr: PerImage
    psnr_aligned: PerImage
    rule: str


class Term(Block):
    sample: PerParticle
    noise_floor: PerImage


class Loss(Block):
    sample: PerParticle  # the data term: by default the sum of squared residuals of the measurement
    noise_floor: PerImage  # expected value of it at the true image
    ratio: PerParticle
    terms: dict[str, Term] | None = None  # of a data term that is not the default, without their weights
    r_factor: PerParticle | None = None  # sum |A(x) - y| / sum |y|
    deviation: PerParticle | None = None  # (loss - floor) in standard deviations of the true image's loss; not of older runs


class Diversity(Block):
    pairwise_distance: list[list[Number]]  # per annealing step


class Phase(Block):
    time_s: float
    steps: int
    decoder_forward: float  # network calls per particle
    decoder_forward_backward: float
    denoiser_calls: float
    encoder_forward: float = 0.0


class Time(Block):
    total_s: float
    per_image_s: list[float]
    per_step_s: list[list[float]]
    compile_s: Number = None
    phases: dict[str, Phase]


class Cost(Block):
    time_x_memory_mb_s: Number


class Pruning(Block):
    step_index: int
    timestep: float
    kept: list[list[int]]
    dropped: list[list[int]]
    loss: PerParticle
    distance: list[list[Number]]


class Tree(Block):
    """Children, born at a pruning."""

    step_index: int
    timestep: float
    stay: bool  # whether the parents went on beside them
    parent: list[dict[str, int]]  # per image: {number of a child: number of its parent}


class Optimization(Block):
    calls: list[list[int]]
    iterations: list[list[int]]
    stopped_by: list[list[list[str]]]
    time_s: list[float]


class Recombined(Block):
    """One particle of one image at one event."""

    index: int
    donors: list[int]  # whose channels it has now, by number
    turned: list[bool]
    loss: PerImage  # per channel, before
    score: PerImage  # of each candidate
    accepted: bool


class Event(Block):
    step_index: int
    timestep: float
    particles: list[Recombined]


class Recombination(Block):
    events: list[list[Event]]  # per image


class Summary(Block):
    """Of the particles of an image together."""

    agreeing: list[list[bool | None]]  # with the label-free pick
    psnr: PerImage  # of their aligned mean, in the better orientation where the task has two
    resolution: PerImage  # pixels a period


class Round(Block):
    particles: list[int]
    passing: list[int]
    stopped: list[int] | None = None  # only where particles may stop early


class Population(Block):
    """Of a sequential population."""

    rule: dict[str, Number]
    accepted_share: float
    mean_started: float  # particles of an image
    most_started: int
    false_accepts: Number  # shares of all images, by the truth
    false_rejects: Number
    accepted: list[bool]
    started: list[int]
    wrong: list[bool | None]
    missed: list[bool | None]
    rounds: list[list[Round]]
    signals: dict[str, PerParticle]


class Metrics(Block):
    """The whole file."""

    version: Literal[1] = Field(alias="schema")
    metadata: Metadata
    psnr: Score
    ssim: Score
    lpips: Score
    lpips_alex: Score | None = None  # only where its backbone was found
    gradient_error: Score | None = None  # not in files of an older program
    modes: Modes | None
    selection: Selection
    loss: Loss | None = None  # not in files of an older program
    free: Loss | None = None  # of what free_fraction kept out of the fit
    diversity: Diversity
    time: Time
    vram: dict[str, Number]
    cost: Cost
    pruning: Pruning | None
    tree: Tree | None = None
    optimization: Optimization | None
    recombination: Recombination | None = None
    summary: Summary | None = None  # not in files of an older program
    population: Population | None = None  # of a sequential one
    diverged: list[list[bool]]

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        """Every list per image has num_images entries, every list per particle one for each at the start and each child."""
        n, p = self.metadata.num_images, self.metadata.listed
        for key, values in _lists(self, per_image=True):
            if len(values) != n:
                raise ValueError(f"{key} has {len(values)} entries for {n} images")
        for key, values in _lists(self, per_image=False):
            entries = self.metadata.num_samples if key == "pruning.loss" else p  # before there were children
            wrong = next((len(row) for row in values if len(row) != entries), None)
            if wrong is not None:
                raise ValueError(f"{key} has {wrong} entries for {entries} particles")
        if len(set(self.metadata.image_ids)) < n:
            raise ValueError("metadata.image_ids names an image twice")
        wrong = next((i for i in self.selection.picked if i is not None and not 0 <= i < p), None)
        if wrong is not None:
            raise ValueError(f"selection.picked is {wrong} for {p} particles")
        for key, rows in (
            ("diversity.pairwise_distance", self.diversity.pairwise_distance),
            ("time.per_step_s", self.time.per_step_s),
        ):
            if len({len(row) for row in rows}) > 1:
                raise ValueError(f"{key} has not the same number of steps for all images")
        if tuple(self.time.phases) not in PHASES:
            raise ValueError(f"time.phases are {', '.join(self.time.phases)}")
        if set(self.vram) != {f"{name}_peak_mb" for name in self.time.phases}:
            raise ValueError(f"vram has {', '.join(self.vram)} for the phases {', '.join(self.time.phases)}")
        return self


def _lists(m: Metrics, per_image: bool) -> Iterator[tuple[str, list]]:
    """(key, list) of all lists that have one entry per image, or of those whose rows have one per particle."""
    blocks = {
        "psnr": m.psnr,
        "ssim": m.ssim,
        "lpips": m.lpips,
        "lpips_alex": m.lpips_alex,
        "gradient_error": m.gradient_error,
        "modes": m.modes,
        "selection": m.selection,
        "loss": m.loss,
        "free": m.free,
        "diversity": m.diversity,
        "pruning": m.pruning,
        "tree": m.tree,
        "optimization": m.optimization,
        "summary": m.summary,
        "population": m.population,
    }
    rows = {
        "psnr": ("sample",),
        "ssim": ("sample",),
        "lpips": ("sample",),
        "lpips_alex": ("sample",),
        "gradient_error": ("sample",),
        "modes": ("label", "psnr_aligned"),
        "loss": ("sample", "ratio", "r_factor", "deviation"),
        "free": ("sample", "ratio", "r_factor"),
        "pruning": ("loss",),
        "optimization": ("calls", "iterations", "stopped_by"),
        "summary": ("agreeing",),
    }
    columns = {
        **{name: ("mean", "std", "max", "min") for name in ("psnr", "ssim", "lpips", "lpips_alex", "gradient_error")},
        "modes": ("psnr_rotated_truth", "coverage", "success"),
        "selection": ("picked", "psnr", "psnr_aligned"),
        "loss": ("noise_floor",),
        "free": ("noise_floor",),
        "diversity": ("pairwise_distance",),
        "pruning": ("kept", "dropped", "distance"),
        "tree": ("parent",),
        "optimization": ("time_s",),
        "summary": ("psnr", "resolution"),
        "population": ("accepted", "started", "wrong", "missed", "rounds"),
    }
    for name, block in blocks.items():
        for key in rows.get(name, ()) + (columns.get(name, ()) if per_image else ()):
            if block is not None and getattr(block, key) is not None:
                yield f"{name}.{key}", getattr(block, key)
    for name, term in ((m.loss and m.loss.terms) or {}).items():
        yield f"loss.terms.{name}.sample", term.sample
        if per_image:
            yield f"loss.terms.{name}.noise_floor", term.noise_floor
    for name, values in (m.population.signals if m.population else {}).items():
        yield f"population.signals.{name}", values
    yield "diverged", m.diverged
    if per_image:
        yield "metadata.image_ids", m.metadata.image_ids
        yield "time.per_image_s", m.time.per_image_s
        yield "time.per_step_s", m.time.per_step_s


def check_metrics(data: Any, source: str) -> Metrics:
    """Metrics of the parsed content of one metrics.json; `source` names it in errors. Raises InputError."""
    version = data.get("schema") if isinstance(data, dict) else None
    if version is None:
        raise InputError(f"{source}: not a metrics.json of this program (it has no schema number)")
    if version != SCHEMA:
        raise InputError(f"{source}: schema {version}, this program reads {SCHEMA}; run its command again to write it anew")
    try:
        return Metrics.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        message = f"{key}: {message[0].lower()}{message[1:]}" if key else message
        raise InputError(f"{source}: damaged: {message}; run its command again to write it anew") from None
