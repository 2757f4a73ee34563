"""What a record must hold for the aggregation, and with its arrays for the pictures; further keys are welcome."""

from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, ValidationError, create_model, model_validator

from utils.mechanisms.registry import IN_RECORDS
from utils.metrics.registry import SCORES
from utils.records.blocks import Part

SCHEMA = 1
ARRAYS = {  # kinds of dtype, dimensions
    "y": ("fc", None),
    "z": ("f", None),
    "images": ("u", 4),
    "truth": ("u", 3),
    "summary_mean": ("u", 3),  # of `summary`: the aligned mean
    "summary_std": ("f", 3),  # (C, H, W), of pixels in [0, 1]
    "summary_prtf": ("f", 1),
}
OPTIONAL_ARRAYS = ("truth", "summary_mean", "summary_std", "summary_prtf")  # no truth of a measurement, no mean of one particle

Numbers = list[float | None]


class Described(Part):
    """A metric of one's own, as tables need to know it: utils/metrics/base.py."""

    title: str
    unit: str
    direction: Literal["max", "min"]
    digits: int = Field(ge=0, le=12)
    of: Literal["image", "measurement"]


class Modes(Part):
    label: list[Literal["0", "180", "mixed", "failed"] | None]
    psnr_aligned: Numbers
    psnr_rotated_truth: float | None


class Selection(Part):
    picked: int | None = Field(ge=0)
    psnr: float | None
    psnr_aligned: float | None
    rule: str


class KeptTrace(Part):
    timestep: Numbers
    pairwise_distance: Numbers


class Trace(KeptTrace):
    psnr: list[Numbers]
    loss: list[Numbers]


class Phase(Part):
    time_s: float
    steps: int
    decoder_forward: float
    decoder_forward_backward: float
    denoiser_calls: float
    encoder_forward: float = 0.0
    particles: float | None = None  # of the image; not in records of an older program
    peak_mb: float | None


class Time(Part):
    image_s: float
    step_s: list[float]
    compile_s: float | None = None
    phases: dict[str, Phase]


class Term(Part):
    loss: Numbers
    noise_floor: float


class Summary(Part):
    """What the particles say together: utils/evaluation/aligned.py. Of two particles or more."""

    agreeing: list[bool | None]
    psnr: float | None
    resolution: float | None


class Round(Part):
    """Of a sequential population: numbers of particles."""

    particles: list[int] = Field(min_length=1)  # that it started
    passing: list[int]  # of all started so far
    stopped: list[int] | None = None  # early, of those that it started; only in records of before that was retired


class Population(Part):
    """How a sequential population grew: utils/population/certificate.py."""

    rounds: list[Round] = Field(min_length=1)
    signals: dict[str, Numbers]
    accepted: bool
    rule: dict[str, float | None]


class Resolved(Part):
    """Of pictures that were solved at fewer pixels than the object has, and are scaled up."""

    pixels: int
    of: int


class Device(Part):
    type: str
    name: str
    core: int | None = None  # of several cores of one device


class Run(Part):
    """What metrics.json says about the run as a whole."""

    seed: int
    num_samples: int
    overrides: list[str]
    git_commit: str | None
    versions: dict[str, str]


def _of_mechanisms() -> type[Part]:
    """The blocks of our mechanisms that the aggregation reads, each under its key."""
    fields: dict[str, Any] = {}
    for plan in IN_RECORDS:
        if plan.Recorded is not None:
            fields[str(plan.block)] = (plan.Recorded | None, ... if plan.recorded else None)
    return create_model("OfMechanisms", __base__=Part, **fields)


OfMechanisms: Any = _of_mechanisms()


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
    scores: dict[str, Numbers | None]  # by the name of the metric; null where it was not known
    modes: Modes | None
    loss: Numbers
    noise_floor: float
    floor_std: float | None = None  # standard deviation of the true image's loss; not in records of an older program
    loss_terms: dict[str, Term] = {}  # of a data term that is not the default
    r_factor: Numbers | None = None  # not in records of an older program
    selection: Selection
    trace: KeptTrace
    summary: Summary | None = None  # not in records of an older program
    population: Population | None = None  # only of a sequential one
    metrics: dict[str, Described] = {}  # those of one's own among the scores
    resolved: Resolved | None = None  # where that is less than the object
    time: Time
    diverged: list[bool | None]
    device: Device
    run: Run

    @model_validator(mode="after")
    def one_value_per_particle(self) -> Self:
        count = len(self.particles)
        rows: dict[str, list] = {"loss": self.loss, "diverged": self.diverged}
        missing = [m.name for m in SCORES if not m.optional and self.scores.get(m.name) is None]
        if missing:
            raise ValueError(f"scores.{missing[0]} is missing")
        rows |= {f"scores.{name}": values for name, values in self.scores.items() if values is not None}
        rows |= {f"loss_terms.{name}": term.loss for name, term in self.loss_terms.items()}
        if self.modes is not None:
            rows |= {"modes.label": self.modes.label, "modes.psnr_aligned": self.modes.psnr_aligned}
        if self.r_factor is not None:
            rows["r_factor"] = self.r_factor
        if self.summary is not None:
            rows["summary.agreeing"] = self.summary.agreeing
        if self.population is not None:
            rows |= {f"population.signals.{name}": values for name, values in self.population.signals.items()}
        _one_value_each(rows, count)
        if not set(self.survivors) <= set(self.particles):
            raise ValueError(f"survivors={self.survivors} are not among particles={self.particles}")
        if self.selection.picked is not None and self.selection.picked >= count:
            raise ValueError(f"selection.picked={self.selection.picked}, but there are {count} particles")
        return self


class Record(KeptRecord):
    """As a run writes it, beside its arrays."""

    trace: Trace

    @model_validator(mode="after")
    def one_traced_value_per_particle(self) -> Self:
        psnr, loss = self.trace.psnr, self.trace.loss
        rows = {f"trace.psnr[{i}]": row for i, row in enumerate(psnr)} | {f"trace.loss[{i}]": row for i, row in enumerate(loss)}
        _one_value_each(rows, len(self.particles))
        if not len(psnr) == len(loss) == len(self.trace.pairwise_distance) == len(self.time.step_s):
            raise ValueError("psnr, loss and pairwise_distance of trace and step_s of time differ in their number of steps")
        return self


def _one_value_each(rows: dict[str, list], count: int) -> None:
    wrong = next((name for name, row in rows.items() if len(row) != count), None)
    if wrong:
        raise ValueError(f"{wrong} has not one value for each of the {count} particles")


def problem(record: Any, arrays: dict[str, np.ndarray]) -> str | None:
    """What is wrong with a record as read from its file, in one line; None if nothing is. Without arrays it is a kept one."""
    try:
        (Record if arrays else KeptRecord).model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc']) or 'record'}: {first['msg']}"
    if not arrays:
        return None
    for name, (kinds, dimensions) in ARRAYS.items():
        if name not in arrays and name in OPTIONAL_ARRAYS:
            continue
        if name not in arrays:
            return f"array {name} is missing"
        array = arrays[name]
        if array.dtype.kind not in kinds or array.size == 0 or dimensions not in (None, array.ndim):
            return f"array {name} has dtype {array.dtype} and shape {array.shape}"
    return None
