"""What a metrics.json holds (schema version 1), as typed and checked values.

Keys that a later program adds are kept and do no harm; missing keys, wrong types, lists of the wrong length and
non-finite numbers are refused with one line.
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_serializer, model_validator

from utils.errors import InputError
from utils.metrics.base import Described as Metric
from utils.metrics.registry import COMPARED, SCORES, of_ones_own
from utils.records.blocks import EACH, STARTED, Block, Number, PerImage, PerParticle, PerStep, lists_of
from utils.records.record import SCHEMA, Described, Resolved, Round, of_mechanisms


class Device(Block):
    type: str  # cpu, cuda or xla
    peak_memory_mb: Number  # of the whole run


class Gpu(Block):
    peak_vram_mb: Number  # the same, of a GPU


class Metadata(Block):
    name: str  # of the run
    seed: int  # keys all noise
    overrides: list[str]  # of the command
    git_commit: str | None  # of the program
    versions: dict[str, str]  # of Python and packages
    num_images: int = Field(ge=1)  # done so far
    image_ids: PerImage[int]  # positions in the whole set
    files: PerImage[str] | None = None  # of measurements without a truth, which their users know by name
    num_samples: int = Field(ge=1)  # particles of an image at the start
    num_children: int = Field(default=0, ge=0)  # of an image, at most; lists per particle hold them after its particles
    device: Device  # what the networks computed on
    gpu: Gpu  # its memory, where it is a GPU

    @property
    def listed(self) -> int:
        """Entries of a list per particle."""
        return self.num_samples + self.num_children


class Score(Block):
    """Of one metric: per particle, and over each image's surviving particles."""

    sample: PerParticle[Number]  # in the orientation as found; null where a particle was pruned or diverged
    mean: PerImage[Number]  # over the particles that are left
    std: PerImage[Number]  # of the same
    max: PerImage[Number]  # the best by the truth, the official row where more is better
    min: PerImage[Number]  # the same where less is better


class Modes(Block):
    label: PerParticle[Literal["0", "180", "mixed", "failed"] | None]  # mixed: its channels disagree; failed: none fits
    # in the better orientation: as found or turned by 180 degrees, whichever is nearer to the truth
    psnr_aligned: PerParticle[Number]
    psnr_rotated_truth: PerImage[Number]  # of the truth turned by 180 degrees against the truth
    coverage: PerImage[int]  # orientations that were found
    success: PerImage[bool]  # whether a particle is labelled 0 or 180


class Selection(Block):
    picked: PerImage[int | None]  # position within the image's particles
    psnr: PerImage[Number]  # of the pick
    psnr_aligned: PerImage[Number]  # of the pick, in the better orientation
    rule: str  # how the pick is chosen


class Term(Block):
    sample: PerParticle[Number]  # without its weight
    noise_floor: PerImage[Number]  # expected value of it at the true image


class Loss(Block):
    sample: PerParticle[Number]  # the data term: by default the sum of squared residuals of the measurement
    noise_floor: PerImage[Number]  # expected value of it at the true image
    ratio: PerParticle[Number]  # of the two: the only score where no truth is known
    terms: dict[str, Term] | None = None  # of a data term that is not the default, without their weights
    # R-factor: sum |A(x) - y| / sum |y| over what is measured, 0 at best; A(x) is what the picture x would measure, y what was
    r_factor: PerParticle[Number] | None = None
    exposure: PerParticle[Number] | None = None  # the intensity of y over that of the picture, where it was fitted
    r_factor_noise: PerImage[Number] | None = None  # of a measurement without a truth: of noise alone
    scale: PerImage[Number] | None = None  # of the same: by which the pick's calculated values fit the measured ones best
    decoder_deviation: PerImage[Number] | None = None  # by how many standard deviations the decoder's error raises the floor
    # (loss - floor) in standard deviations of the true image's loss; not of older runs
    deviation: PerParticle[Number] | None = None


class Diversity(Block):
    pairwise_distance: PerStep[Number]  # mean latent distance of an image's particles


class Phase(Block):
    time_s: float  # seconds
    steps: int  # annealing steps
    decoder_forward: float  # of a particle
    decoder_forward_backward: float  # the same, with gradient
    denoiser_calls: float  # a differentiated one counts as one
    encoder_forward: float = 0.0  # per particle
    passes: Number = None  # decoder forward + backward of an image's particles, mean over images; not of an older program
    chain_s: Number = None  # seconds of the inner chains, over all images; not of an older program
    chain_passes: Number = None  # decoder forward + backward in them, of all particles and images


class Time(Block):
    total_s: float  # seconds of all images
    per_image_s: PerImage[float]  # seconds
    per_step_s: PerStep[float]  # seconds
    compile_s: Number = None  # of XLA or torch.compile; contained in the others
    phases: dict[str, Phase]  # of each phase of the annealing


class Cost(Block):
    time_x_memory_mb_s: Number  # sum over the phases of time times peak memory


class Summary(Block):
    """Of the particles of an image together."""

    agreeing: PerParticle[bool | None]  # whether it is the same solution as the label-free pick
    psnr: PerImage[Number]  # of their aligned mean, in the better orientation where the task has two
    resolution: PerImage[Number]  # pixels a period


class Population(Block):
    """Of a sequential population."""

    rule: dict[str, Number]  # thresholds of the certificate
    accepted_share: float  # of all images
    mean_started: float  # particles of an image
    most_started: int  # likewise
    false_accepts: Number  # share of all images, by the truth: accepted, and the pick is no success
    false_rejects: Number  # not accepted, though one of those started is a success
    accepted: PerImage[bool]  # whether a particle passes
    started: PerImage[int]  # how many particles
    wrong: PerImage[bool | None]  # accepted, and the pick is no success
    missed: PerImage[bool | None]  # not accepted, though one is a success
    rounds: PerImage[list[Round]]  # how it went
    signals: dict[str, PerParticle[Number]]  # the certificate's numbers


OfMechanisms: Any = of_mechanisms(Block, "Aggregated")


class Metrics(OfMechanisms):
    """The whole file."""

    version: Literal[1] = Field(alias="schema")  # of the file
    metadata: Metadata  # what was run, and where
    scores: dict[str, Score]  # by the name of the metric (below); each stands at the top of the file
    modes: Modes | None  # of phase retrieval: which orientation was found; else null
    selection: Selection  # the label-free pick: what a user without the truth gets
    loss: Loss | None = None  # how well the measurement is explained; not in older files
    diversity: Diversity  # how far apart particles are
    time: Time  # seconds and network calls
    vram: dict[str, Number]  # peak memory of each phase in MB
    cost: Cost  # time and memory in one number
    summary: Summary | None = None  # of an image's particles together; null for one, not in older files
    described: dict[str, Described] = Field({}, alias="metrics")  # metrics of your own: how each is shown
    population: Population | None = None  # of population=sequential; else absent
    resolved: Resolved | None = None  # where that is less than the object
    mechanisms: dict[str, PerImage[Any]] = {}  # what mechanisms of your own tell of each image
    diverged: PerParticle[bool]  # its numbers are null

    @property
    def psnr(self) -> Score:
        return self.scores["psnr"]

    @property
    def compared(self) -> tuple[Metric, ...]:
        """The metrics by which experiments are compared: ours, then those of one's own that this run has."""
        return (*COMPARED, *of_ones_own({name: about.model_dump() for name, about in self.described.items()}))

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, data: dict[str, Any]) -> dict[str, Any]:
        own_metrics = data["metrics"] if isinstance(data.get("metrics"), dict) else {}
        names = [*(m.name for m in SCORES if m.name in data and not (m.optional and data[m.name] is None)), *own_metrics]
        return {**{key: value for key, value in data.items() if key not in names}, "scores": {n: data.get(n) for n in names}}

    @model_serializer(mode="wrap")
    def _at_the_top(self, handler: Any) -> dict[str, Any]:
        content = handler(self)
        scores = content.pop("scores", {})
        first = {key: content.pop(key) for key in ("schema", "version", "metadata") if key in content}
        return {**first, **scores, **content}

    def content(self) -> dict[str, Any]:
        """What the file holds."""
        return self.model_dump(by_alias=True, exclude_unset=True)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        missing = [m.name for m in SCORES if not m.optional and m.name not in self.scores]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        return self

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        """Every list has as many entries as its annotation says."""
        n, started, listed = self.metadata.num_images, self.metadata.num_samples, self.metadata.listed
        for key, values, length in lists_of(self):
            key = key.removeprefix("scores.")  # they stand at the top of the file
            if len(values) != n:
                raise ValueError(f"{key} has {len(values)} entries for {n} images")
            if length == "steps" and len({len(row) for row in values}) > 1:
                raise ValueError(f"{key} has not the same number of steps for all images")
            if length in (EACH, STARTED):
                entries = listed if length == EACH else started
                wrong = next((len(row) for row in values if len(row) != entries), None)
                if wrong is not None:
                    raise ValueError(f"{key} has {wrong} entries for {entries} particles")
        if len(set(self.metadata.image_ids)) < n:
            raise ValueError("metadata.image_ids names an image twice")
        wrong = next((i for i in self.selection.picked if i is not None and not 0 <= i < listed), None)
        if wrong is not None:
            raise ValueError(f"selection.picked is {wrong} for {listed} particles")
        if set(self.vram) != {f"{name}_peak_mb" for name in self.time.phases}:
            raise ValueError(f"vram has {', '.join(self.vram)} for the phases {', '.join(self.time.phases)}")
        return self


def check_metrics(data: Any, source: str | Path) -> Metrics:
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
        key = ".".join(str(part) for part in first["loc"]).removeprefix("scores.")
        message = first["msg"].removeprefix("Value error, ")
        message = f"{key}: {message[0].lower()}{message[1:]}" if key else message
        raise InputError(f"{source}: damaged: {message}; run its command again to write it anew") from None
