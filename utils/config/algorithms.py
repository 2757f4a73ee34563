"""What each shipped algorithm but LatentDAPS accepts, checked before torch is imported. One of your own may take anything."""

from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from utils.config.operators import LINEAR, SPECTRA
from utils.config.operators import OURS as OPERATORS
from utils.config.section import MOST_STEPS, Section, refusal
from utils.errors import InputError
from utils.sampling.schedule import TIMESTEPS
from utils.sampling.vocabulary import CANDIDATES


class Classical(Section):
    solver: Literal["hio", "raar", "er"]
    restarts: int = Field(ge=1, le=100_000)
    iterations: int = Field(ge=10, le=1_000_000)
    beta: float = Field(gt=0, le=1)


class GuidedDDIM(Section):
    num_steps: int = Field(ge=1, le=TIMESTEPS)
    beta_start: float = Field(ge=1e-6, le=0.1)
    beta_end: float = Field(ge=1e-6, le=0.1)

    @field_validator("beta_end")
    @classmethod
    def _not_below(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("beta_start", value):
            raise ValueError(f"must not lie below beta_start={info.data['beta_start']}")
        return value


class LatentDPS(GuidedDDIM):
    omega: float = Field(ge=0)


class PSLD(LatentDPS):
    gamma: float = Field(ge=0)


class ReSample(GuidedDDIM):
    guidance: float = Field(ge=0)
    resampling: float = Field(gt=0)
    every: int = Field(ge=1, le=TIMESTEPS)
    pixel_iterations: int = Field(ge=0, le=MOST_STEPS)
    pixel_rate: float = Field(gt=0)
    latent_iterations: int = Field(ge=0, le=MOST_STEPS)
    latent_rate: float = Field(gt=0)


CLASSICAL = "utils.algorithms.classical.Classical"
OURS: dict[str, type[Section]] = {
    CLASSICAL: Classical,
    "utils.algorithms.ldps.LatentDPS": LatentDPS,
    "utils.algorithms.psld.PSLD": PSLD,
    "utils.algorithms.resample.ReSample": ReSample,
    "utils.algorithms.resample_fair.FairReSample": ReSample,
}


def check_algorithm(target: str, arguments: dict[str, Any], operator: str, most_particles: int) -> None:
    """Raises InputError for a wrong argument of one of our algorithms, or a task that it cannot solve.

    arguments: the block `sampler` without `_target_`; operator: the task's class; most_particles: the highest number of a
    particle, and one more.
    """
    if target not in OURS:
        if target.startswith("utils.algorithms."):
            raise InputError(f"sampler._target_={target}: no such algorithm; ours are {', '.join(OURS)}")
        return
    try:
        checked = OURS[target].model_validate(arguments)
    except ValidationError as error:
        raise refusal(error, arguments, "sampler") from None
    if isinstance(checked, PSLD) and operator in OPERATORS and operator not in LINEAR:
        raise InputError(
            f"sampler=psld: {operator} is not linear; choose a task with "
            f"{', '.join(name.rpartition('.')[2] for name in LINEAR)}, or sampler=ldps"
        )
    if isinstance(checked, Classical):
        if operator in OPERATORS and operator not in SPECTRA:
            raise InputError(f"sampler=classical: {operator} measures no spectrum; choose phase_retrieval, or another sampler")
        if most_particles > min(checked.restarts, CANDIDATES):
            raise InputError(
                f"sampler.restarts={checked.restarts}: particle k is the k-th best of them, of {CANDIDATES} at most, "
                f"and there are {most_particles} particles; give more restarts, or fewer num_samples"
            )
