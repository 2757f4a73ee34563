"""What each shipped algorithm but LatentDAPS accepts, checked before torch is imported. One of your own may take anything."""

from typing import Any, Literal

from pydantic import Field, ValidationError

from utils.config.operators import OURS as OPERATORS
from utils.config.operators import SPECTRA
from utils.config.section import Section, refusal
from utils.errors import InputError
from utils.sampling.vocabulary import CANDIDATES


class Classical(Section):
    solver: Literal["hio", "raar", "er"]
    restarts: int = Field(ge=1, le=100_000)
    iterations: int = Field(ge=10, le=1_000_000)
    beta: float = Field(gt=0, le=1)


CLASSICAL = "utils.algorithms.classical.Classical"
OURS: dict[str, type[Section]] = {CLASSICAL: Classical}


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
        raise refusal("sampler", error) from None
    if isinstance(checked, Classical):
        if operator in OPERATORS and operator not in SPECTRA:
            raise InputError(f"sampler=classical: {operator} measures no spectrum; choose phase_retrieval, or another sampler")
        if most_particles > min(checked.restarts, CANDIDATES):
            raise InputError(
                f"sampler.restarts={checked.restarts}: particle k is the k-th best of them, of {CANDIDATES} at most, "
                f"and there are {most_particles} particles; give more restarts, or fewer num_samples"
            )
