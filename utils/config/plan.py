"""When the parts of a run act, checked: an event that cannot fire or has nothing to act on is refused."""

from utils.config.portfolio import check_low_pass
from utils.config.settings import Settings
from utils.errors import InputError
from utils.sampling.events import Events
from utils.sampling.schedule import StepClock, annealing_sigmas


def plan(settings: Settings, clock: StepClock) -> Events:
    """The events of a run on its clock. Raises InputError.

    Under the progress clock it needs no prior, so wrong switches end before torch is imported.
    """
    repels = settings.repulsion_scale > 0 and max(settings.rounds) > 1
    thresholds = settings.sequential.thresholds if settings.population == "sequential" else None
    stop_step = thresholds.stop_step if thresholds else None
    events = Events(
        clock,
        repels,
        settings.repulsion.end_step,
        settings.pruning_step,
        settings.optimization_step,
        settings.optimization.every,
        stop_step,
    )
    for key, switch, index in (
        ("pruning_step", settings.pruning_step, events.pruning_index),
        ("optimization_step", settings.optimization_step, events.optimization_index),
    ):
        if switch >= 0 and index is None:
            raise InputError(
                f"{key}={switch}: the last of {clock.num_steps} annealing steps is at "
                f"t = {clock.timestep(clock.num_steps - 1):g}, so this never happens; choose a larger timestep, or -1 for off"
            )
        if switch == 1000:
            raise InputError(f"{key}={switch}: nothing has been sampled yet at t = 1000; choose a smaller timestep")
    if repels and not events.repulsion_steps:
        raise InputError(
            f"repulsion.end_step={settings.repulsion.end_step}: the annealing begins at "
            f"t = {clock.timestep(0):.0f}, so nothing would push; choose a smaller timestep, or repulsion_scale=0"
        )
    if events.pruning_index == 0:
        raise InputError(
            f"pruning_step={settings.pruning_step}: nothing has been sampled yet at the first step; "
            f"choose at most {clock.timestep(1):.0f}"
        )
    if stop_step is not None:
        _check_stop(events, stop_step)
    check_low_pass(settings, clock)
    _check_branch_sigma(settings, events)
    first = clock.first_step(settings.recombination_step) if settings.recombination_step >= 0 else 0
    if first is None or first == clock.num_steps - 1 > 0:
        raise InputError(
            f"recombination_step={settings.recombination_step}: the last of {clock.num_steps} annealing steps is at "
            f"t = {clock.timestep(clock.num_steps - 1):g}, and it acts before that one; choose a larger timestep, or -1 for off"
        )
    return events


def _check_stop(events: Events, step: int) -> None:
    """Raises InputError for an early stop that spares nothing, or that leaves images of unequal numbers to the repulsion."""
    clock, key = events.clock, f"sequential.thresholds.stop_step={step}"
    if events.stop_index is None or events.stop_index == clock.num_steps - 1:
        raise InputError(
            f"{key}: the last of {clock.num_steps} annealing steps is at t = {clock.timestep(clock.num_steps - 1):g}, so "
            "nothing would be spared; choose a larger timestep, or leave out both keys of the stop"
        )
    if events.repulsion_steps > events.stop_index + 1:
        raise InputError(
            f"{key}: the repulsion acts until t = {clock.timestep(events.repulsion_steps - 1):g} and needs all particles of "
            "a round; choose a smaller timestep, or end the repulsion earlier (repulsion.end_step)"
        )


def _check_branch_sigma(settings: Settings, events: Events) -> None:
    """Raises InputError for a noise level that children could not leave their parents under."""
    sigma, index = settings.tree.branch_sigma, events.pruning_index
    if not settings.children or sigma is None or index is None:
        return
    annealing = settings.sampler.annealing_scheduler_config
    grid = annealing.num_steps, annealing.sigma_max, annealing.sigma_min
    own = max(annealing_sigmas(*grid, spacing)[index] for spacing in (1.0, *(e.spacing for e in settings.portfolio)))
    if not own <= sigma <= annealing.sigma_max:
        raise InputError(
            f"tree.branch_sigma={sigma}: must lie between {own:.3g}, the annealing's own level at pruning_step="
            f"{settings.pruning_step}, and sigma_max={annealing.sigma_max}; or write null for its own"
        )
