"""What a record file must hold for the aggregation and the pictures to work; further keys are welcome."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

SCHEMA = 1
# the phases that a run can have, in their order
PHASES = (
    ("sampling",),
    ("pre_pruning", "post_pruning"),
    ("pre_optimization", "optimization"),
    ("pre_pruning", "post_pruning_pre_optimization", "optimization"),
)
ARRAYS = {"y": ("fc", None), "z": ("f", None), "images": ("u", 4), "truth": ("u", 3)}  # kinds of dtype, dimensions

Numbers = list[float | None]


class Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Scores(Part):
    psnr: Numbers
    ssim: Numbers
    lpips: Numbers


class Modes(Part):
    label: list[str | None]
    psnr_aligned: Numbers
    psnr_rotated_truth: float | None


class Selection(Part):
    picked: int | None = Field(ge=0)
    psnr: float | None
    psnr_aligned: float | None
    rule: str


class Trace(Part):
    timestep: Numbers
    pairwise_distance: Numbers
    psnr: list[Numbers]
    loss: list[Numbers]


class Phase(Part):
    time_s: float
    steps: int
    decoder_forward: float
    decoder_forward_backward: float
    denoiser_calls: float
    encoder_forward: float = 0.0
    peak_mb: float | None


class Time(Part):
    image_s: float
    step_s: Numbers
    compile_s: float | None = None
    phases: dict[str, Phase]


class Pruned(Part):
    step_index: int
    timestep: float
    kept: list[int]
    dropped: list[int]
    parents: dict[str, int]
    loss: Numbers
    distance: Numbers


class Optimised(Part):
    calls: list[int]
    iterations: list[int]
    calls_without_iteration: list[int]
    stopped_by: list[list[str]]
    time_s: float


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


class Record(Part):
    version: Literal[SCHEMA] = Field(alias="schema")
    image_id: int = Field(ge=0)
    file: str
    sha256: str
    fingerprint: str
    particles: list[int] = Field(min_length=1)  # at the start; lists per particle follow it
    survivors: list[int] = Field(min_length=1)  # whose latents and pictures the arrays hold
    scores: Scores
    modes: Modes | None
    loss: Numbers
    noise_floor: float
    selection: Selection
    trace: Trace
    pruning: Pruned | None
    optimization: Optimised | None
    time: Time
    diverged: list[bool | None]
    device: Device
    run: Run

    @model_validator(mode="after")
    def one_value_per_particle(self):
        count = len(self.particles)
        rows = {
            "scores.psnr": self.scores.psnr,
            "scores.ssim": self.scores.ssim,
            "scores.lpips": self.scores.lpips,
            "loss": self.loss,
            "diverged": self.diverged,
            **{f"trace.psnr[{i}]": row for i, row in enumerate(self.trace.psnr)},
            **{f"trace.loss[{i}]": row for i, row in enumerate(self.trace.loss)},
        }
        if self.modes is not None:
            rows |= {"modes.label": self.modes.label, "modes.psnr_aligned": self.modes.psnr_aligned}
        wrong = next((name for name, row in rows.items() if len(row) != count), None)
        if wrong:
            raise ValueError(f"{wrong} has not one value for each of the {count} particles")
        if not len(self.trace.psnr) == len(self.trace.loss) == len(self.trace.pairwise_distance):
            raise ValueError("trace: psnr, loss and pairwise_distance differ in their number of steps")
        if not set(self.survivors) <= set(self.particles):
            raise ValueError(f"survivors={self.survivors} are not among particles={self.particles}")
        if self.selection.picked is not None and self.selection.picked >= count:
            raise ValueError(f"selection.picked={self.selection.picked}, but there are {count} particles")
        return self


def problem(record: Any, arrays: dict):
    """What is wrong with a record as read from its file, in one line; None if nothing is."""
    try:
        Record.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc']) or 'record'}: {first['msg']}"
    if not arrays:  # stripped to what the aggregation needs, to be kept beside a publication
        return None
    for name, (kinds, dimensions) in ARRAYS.items():
        if name not in arrays and name == "truth":  # a measurement comes without one
            continue
        if name not in arrays:
            return f"array {name} is missing"
        array = arrays[name]
        if array.dtype.kind not in kinds or array.size == 0 or dimensions not in (None, array.ndim):
            return f"array {name} has dtype {array.dtype} and shape {array.shape}"
    return None
