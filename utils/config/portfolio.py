"""What the single keys of a portfolio's entries cannot tell."""

from utils.config.operators import OURS, SPECTRA
from utils.config.sections import TAU_MIN
from utils.config.settings import Settings
from utils.errors import InputError
from utils.sampling.schedule import StepClock


def check_portfolio(s: Settings) -> None:
    """Raises InputError for an entry that could not act, or that nobody would take.

    A single run, num_samples=1, may have the portfolio of the batch that its particle belongs to.
    """
    taken = s.particles.stop
    if s.num_samples > 1 and (idle := len(s.portfolio) - taken) > 0:
        raise InputError(
            f"portfolio: has {len(s.portfolio)} entries, of which the last {idle} would belong to no particle (numbers "
            f"{s.first_particle} to {taken - 1}); leave them out, or raise num_samples={s.num_samples}"
        )
    for i, entry in enumerate(s.portfolio):
        key = f"portfolio[{i}]"
        if (entry.lowpass is None) != (entry.lowpass_until is None):
            if entry.lowpass is None:
                raise InputError(f"{key}.lowpass_until={entry.lowpass_until}: give lowpass too, the share seen until then")
            raise InputError(f"{key}.lowpass={entry.lowpass}: give lowpass_until too, the timestep from which all is seen")
        if s.chain.tau * entry.tau < TAU_MIN:
            raise InputError(
                f"{key}.tau={entry.tau}: times tau={s.chain.tau} it must be at least {TAU_MIN}, as a likelihood's width; "
                "choose a larger factor"
            )
        if entry.lowpass is not None and s.group.operator.target in OURS and s.group.operator.target not in SPECTRA:
            raise no_spectrum(key, entry.lowpass, s.group.operator.target)


def no_spectrum(key: str, lowpass: float, operator: str) -> InputError:
    return InputError(
        f"{key}.lowpass={lowpass}: the measurement of {operator} is no spectrum (operators.base.Operator.spectrum); "
        "leave it out"
    )


def check_low_pass(s: Settings, clock: StepClock) -> None:
    """Raises InputError where the whole spectrum would never return, or would be there from the start."""
    for i, entry in enumerate(s.portfolio):
        if entry.lowpass_until is None:
            continue
        first, key = clock.first_step(entry.lowpass_until), f"portfolio[{i}].lowpass_until={entry.lowpass_until}"
        if first is None:
            raise InputError(
                f"{key}: the last of {clock.num_steps} annealing steps is at t = {clock.timestep(clock.num_steps - 1):g}, so "
                "the whole spectrum would never be seen; choose a larger timestep"
            )
        if first == 0:
            raise InputError(f"{key}: the annealing begins at t = {clock.timestep(0):.0f}; choose a smaller timestep")
