"""What a record must hold for the aggregation, and with its arrays for the pictures; further keys are welcome."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, Field, ValidationError, create_model, model_validator

from utils.errors import InputError, short, visible
from utils.mechanisms.registry import IN_RECORDS
from utils.metrics.registry import SCORES
from utils.records.blocks import EACH, Block, Number, OfEach, lists_of

SCHEMA = 1
ARRAYS = {  # kinds of dtype, dimensions
    "y": ("fc", None),
    "z": ("f", None),
    "images": ("u", 4),
    "truth": ("u", 3),
    "summary_mean": ("u", 3),  # of `summary`: the aligned mean
    "summary_std": ("f", 3),  # (C, H, W), of pixels in [0, 1]
    "summary_prtf": ("f", 1),
    "calculated": ("fc", None),  # of a measurement without a truth: what the pick's would be, shaped like y
}
OPTIONAL_ARRAYS = ("truth", "summary_mean", "summary_std", "summary_prtf", "calculated")  # a measurement has no truth


class Described(Block):
    """A metric of one's own, as tables need to know it: utils/metrics/base.py."""

    title: str  # in eval.md and in tables
    unit: str  # shown behind it
    direction: Literal["max", "min"]  # which end is good
    digits: int = Field(ge=0, le=12)  # shown after the point
    of: Literal["image", "measurement"]  # by the truth, or by the measurement


class Modes(Block):
    label: OfEach[Literal["0", "180", "mixed", "failed"] | None]
    psnr_aligned: OfEach[Number]
    psnr_rotated_truth: float | None


class Selection(Block):
    picked: int | None = Field(ge=0)
    psnr: float | None
    psnr_aligned: float | None
    rule: str


class KeptTrace(Block):
    timestep: list[Number]
    pairwise_distance: list[Number]


class Trace(KeptTrace):
    psnr: list[OfEach[Number]]  # of each annealing step
    loss: list[OfEach[Number]]


class Phase(Block):
    time_s: float
    steps: int
    decoder_forward: float
    decoder_forward_backward: float
    denoiser_calls: float
    encoder_forward: float = 0.0
    particles: float | None = None  # of the image; not in records of an older program
    chain_s: float = 0.0  # of the inner chains, and their passes, of all particles; likewise
    chain_passes: float = 0.0
    peak_mb: float | None


class Time(Block):
    image_s: float
    step_s: list[float]
    compile_s: float | None = None
    phases: dict[str, Phase]


class Term(Block):
    loss: OfEach[Number]
    noise_floor: float


class Summary(Block):
    """What the particles say together: utils/evaluation/aligned.py. Of two particles or more."""

    agreeing: OfEach[bool | None]
    psnr: float | None
    resolution: float | None


class Round(Block):
    """Of a sequential population."""

    particles: list[int] = Field(min_length=1)  # numbers of those started
    passing: list[int]  # numbers of those that pass after it
    stopped: list[int] | None = None  # early; only in runs of before that was retired


class Population(Block):
    """How a sequential population grew: utils/population/certificate.py."""

    rounds: list[Round] = Field(min_length=1)
    signals: dict[str, OfEach[Number]]
    accepted: bool
    rule: dict[str, float | None]


class Resolved(Block):
    """Pictures were solved at so many pixels a side, and are scaled up to those of the object."""

    pixels: int  # of a picture
    of: int  # of the object


class Device(Block):
    type: str
    name: str
    core: int | None = None  # of several cores of one device


class Run(Block):
    """What metrics.json says about the run as a whole."""

    seed: int
    num_samples: int
    overrides: list[str]
    git_commit: str | None
    versions: dict[str, str]


def of_mechanisms(base: type[BaseModel], kind: Literal["Recorded", "Aggregated"]) -> Any:
    """The blocks of our mechanisms, each under its key; null where it is off."""
    fields: dict[str, Any] = {}
    for plan in IN_RECORDS:
        fields[str(plan.block)] = (getattr(plan, kind) | None, ... if plan.recorded else None)
    return create_model("OfMechanisms", __base__=base, **fields)


OfMechanisms: Any = of_mechanisms(Block, "Recorded")


class KeptRecord(OfMechanisms):
    """What the aggregation reads."""

    version: Literal[1] = Field(alias="schema")
    image_id: int = Field(ge=0)
    file: str
    sha256: str
    fingerprint: str
    digests: dict[str, str] = {}  # utils/digests.py; not in records of an older program
    particles: list[int] = Field(min_length=1)  # at the start; lists per particle follow it
    survivors: list[int] = Field(min_length=1)  # whose latents and pictures the arrays hold
    scores: dict[str, OfEach[Number] | None]  # by the name of the metric; null where it was not known
    modes: Modes | None
    loss: OfEach[Number]
    noise_floor: float
    floor_std: float | None = None  # standard deviation of the true image's loss; not in records of an older program
    loss_terms: dict[str, Term] = {}  # of a data term that is not the default
    exposure: OfEach[Number] | None = None  # the intensity of y over that of the picture, where it was fitted
    r_factor: OfEach[Number] | None = None  # not in records of an older program
    decoder_floor: float | None = None  # what the loss rises by where the decoder cannot draw the object; where it is known
    r_factor_noise: float | None = None  # of a measurement without a truth: of noise alone, as the next one
    scale: float | None = None  # by which calculated values fit the measured ones best
    selection: Selection
    trace: KeptTrace
    summary: Summary | None = None  # not in records of an older program
    population: Population | None = None  # only of a sequential one
    mechanisms: dict[str, Any] = {}  # the blocks of one's own
    metrics: dict[str, Described] = {}  # those of one's own among the scores
    resolved: Resolved | None = None  # where that is less than the object
    time: Time
    diverged: OfEach[bool | None]
    device: Device
    run: Run

    @model_validator(mode="after")
    def one_value_per_particle(self) -> Self:
        count = len(self.particles)
        missing = [m.name for m in SCORES if not m.optional and self.scores.get(m.name) is None]
        if missing:
            raise ValueError(f"scores.{missing[0]} is missing")
        for key, values, length in lists_of(self):
            entries = count if length == EACH else self.run.num_samples
            if len(values) != entries:
                raise ValueError(f"{key} has not one value for each of the {entries} particles")
        for name, numbers in (("particles", self.particles), ("survivors", self.survivors)):
            if len(set(numbers)) < len(numbers):
                raise ValueError(f"{name}={numbers} names one twice")
        if count < self.run.num_samples:
            raise ValueError(f"particles={self.particles} are fewer than run.num_samples={self.run.num_samples}")
        if not set(self.survivors) <= set(self.particles):
            raise ValueError(f"survivors={self.survivors} are not among particles={self.particles}")
        if self.selection.picked is not None and self.selection.picked >= count:
            raise ValueError(f"selection.picked={self.selection.picked}, but there are {count} particles")
        return self


class Record(KeptRecord):
    """As a run writes it, beside its arrays."""

    trace: Trace

    @model_validator(mode="after")
    def as_many_steps(self) -> Self:
        trace, steps = self.trace, len(self.time.step_s)
        if not len(trace.psnr) == len(trace.loss) == len(trace.pairwise_distance) == steps:
            raise ValueError("psnr, loss and pairwise_distance of trace and step_s of time differ in their number of steps")
        return self


class ArrayType(NamedTuple):
    """What is known of an array before it is read."""

    dtype: np.dtype
    shape: tuple[int, ...]


def refuse_newer(record: Any, source: str) -> None:
    """Raises InputError for a record that a newer program wrote: it is whole, and not for this one to judge."""
    version = record.get("schema") if isinstance(record, dict) else None
    if isinstance(version, int) and version > SCHEMA:
        raise InputError(f"{source}: record of schema {version}, and this program reads {SCHEMA}; use the newer program")


def problem(record: Any, arrays: Mapping[str, ArrayType | np.ndarray]) -> str | None:
    """What is wrong with a record as read from its file, in one line; None if nothing is. Without arrays it is a kept one."""
    try:
        checked = (Record if arrays else KeptRecord).model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(visible(short(str(part))) for part in first['loc']) or 'record'}: {first['msg']}"
    if not arrays:
        return None
    pictures = arrays["images"].shape[1:] if "images" in arrays else ()  # (H, W, C)
    count = len(checked.survivors)
    expected = {
        "images": (count, *pictures),
        "truth": pictures,
        "summary_mean": pictures,
        "calculated": arrays["y"].shape if "y" in arrays else (),
        "summary_std": (pictures[-1:] + pictures[:2]),
    }
    for name, (kinds, dimensions) in ARRAYS.items():
        if name not in arrays and name in OPTIONAL_ARRAYS:
            continue
        if name not in arrays:
            return f"array {name} is missing"
        dtype, shape = arrays[name].dtype, arrays[name].shape
        fits = (
            dimensions in (None, len(shape)) and shape == expected.get(name, shape) and (name != "z" or shape[:1] == (count,))
        )
        if dtype.kind not in kinds or 0 in shape or not shape or not fits:
            return f"array {name} has dtype {dtype} and shape {shape}"
    if checked.modes is not None and "truth" not in arrays:
        return "array truth is missing"
    if checked.summary is not None and "summary_mean" not in arrays:
        return "array summary_mean is missing"
    return None


def not_finite(record: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> str | None:
    """Which of these arrays holds what is no number although it did when it was written; None if none does.

    Of a particle that did not diverge the latents were finite. NaN in y is a pixel that was not measured.
    """
    diverged = dict(zip(record["particles"], record["diverged"]))
    fine = [not diverged[number] for number in record["survivors"]]
    finite = {
        "z": lambda z: np.isfinite(z[fine]).all(),
        "y": lambda y: not np.isinf(y).any() and not np.isnan(y).all(),
        "summary_std": lambda std: np.isfinite(std).all(),
    }
    wrong = next((name for name, holds in finite.items() if name in arrays and not holds(arrays[name])), None)
    return f"array {wrong} is not finite" if wrong else None
