"""All plans in the order in which the mechanisms act, and what the program asks of all of them. No torch."""

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Annotated, Any

from utils.config.section import Section
from utils.errors import InputError
from utils.mechanisms import ORDER
from utils.mechanisms.plan import Course, Finished, Level, Nodes, Plan, Settings
from utils.sampling.schedule import StepClock

PLANS: tuple[Plan, ...] = tuple(import_module(f"utils.mechanisms.{name}.plan").PLAN for name in ORDER)
NAMES = tuple(plan.name for plan in PLANS)
IN_RECORDS = tuple(plan for plan in PLANS if plan.block is not None)


def builder(plan: Plan) -> Callable[..., Any]:
    """`build` of the mechanism's act.py: (settings, course, prior, operator) -> utils.sampling.mechanism.Mechanism.

    It imports torch.
    """
    return import_module(f"utils.mechanisms.{plan.name}.act").build


def switched_on(s: Settings) -> list[Plan]:
    return [plan for plan in PLANS if plan.is_on(s)]


def check(s: Settings, clock: StepClock) -> Course:
    """When the mechanisms of a run act. Raises InputError for keys of theirs that do not go together."""
    opening = [(plan, step) for plan in PLANS if (step := plan.opening(s, clock)) is not None]
    for (first, a), (then, b) in zip(opening, opening[1:]):
        if b.step < a.step:
            raise InputError(f"{then.switch(s)}: must not lie above {first.when(s)}; the {first.name} comes first")
    course = Course(clock, tuple(step for _, step in opening))
    for plan in PLANS:
        plan.check(s, course)
    ending = [plan.switch(s) for plan in switched_on(s) if plan.ends_annealing]
    if len(ending) > 1:
        raise InputError(f"{ending[1]}: ends the annealing, and so does {ending[0]}; leave one of the two out")
    for plan in PLANS:
        if plan.needs_all and plan.asked(s) and s.population == "sequential":
            raise InputError(
                f"population=sequential: {plan.switch(s)} needs all of an image's particles at once; switch it off"
            )
        if plan.adds and plan.asked(s) and levels(s):
            raise InputError(
                f"{plan.switch(s)}: a run that solves its image at several sizes adds no particles on the way; switch it off"
            )
    return course


def levels(s: Settings) -> Sequence[Level]:
    """The sizes at which a run solves its image, coarse to fine; none: at that of its prior alone."""
    return next((levels for plan in PLANS if (levels := plan.levels(s))), ())


def all_off() -> dict[str, Any]:
    """{key: value} with which no mechanism does anything."""
    return {key: value for plan in PLANS for key, value in plan.off().items()}


def of_level(s: Settings) -> dict[str, Any]:
    """{key: value} with which the settings are those of one level."""
    return {key: value for plan in PLANS for key, value in plan.of_level(s).items()}


def blocks_of(metrics: Any) -> Iterator[tuple[Plan, Any]]:
    """(plan, its block or None) of a metrics.json; metrics: utils.records.metrics.Metrics."""
    for plan in IN_RECORDS:
        yield plan, getattr(metrics, str(plan.block))


def blocks_of_levels(metrics: Any) -> Iterator[tuple[str, Plan, Any]]:
    """(name of the level, plan, its block) of what acted at the coarser levels of a metrics.json."""
    of_name = {plan.name: plan for plan in IN_RECORDS}
    for outer, block in blocks_of(metrics):
        for level, recorded_there in (outer.of_levels(block) if block is not None else {}).items():
            for name, blocks in recorded_there.items():
                plan = of_name[name]
                assert plan.Aggregated is not None
                yield level, plan, plan.Aggregated.model_validate(plan.aggregate(blocks))


def recorded(blocks: dict[str, Any]) -> dict[str, Any]:
    """Of all blocks of an image's record {name of a mechanism: block} those of ours, under their keys."""
    ours = {str(plan.block): blocks.get(plan.name) for plan in IN_RECORDS}
    always = {plan.block for plan in IN_RECORDS if plan.recorded}
    return {key: block for key, block in ours.items() if block is not None or key in always}


def aggregated(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """{key: block of metrics.json} of all records of a run."""
    result: dict[str, Any] = {}
    for plan in IN_RECORDS:
        key = str(plan.block)
        blocks = [record[key] for record in records if record.get(key) is not None]
        if blocks:
            result[key] = plan.aggregate(blocks)
        elif plan.aggregated:
            result[key] = None
    return result


def types_read() -> dict[str, Any]:
    """{dotted key that finished runs are asked for: the type that pydantic holds it to}."""
    return {key: _type_of(plan.Keys, key) for plan in PLANS for key in plan.read}


def _type_of(section: type[Section], key: str) -> Any:
    name, _, below = key.partition(".")
    field = section.model_fields[name]
    if not below:
        return Annotated[field.annotation, *field.metadata]
    assert isinstance(field.annotation, type)
    return _type_of(field.annotation, below)


def remaining(metrics: Any, image: int, particles: int) -> int:
    """How many of an image's particles our mechanisms leave."""
    for plan, block in blocks_of(metrics):
        if block is not None:
            particles = plan.remaining(block, image, particles)
    return particles


def resized(metrics: Any) -> bool:
    """Whether an image's particles became more or fewer on the way."""
    return any(plan.resizes and block is not None for plan, block in blocks_of(metrics))


def coupled(config: Nodes, metrics: Any) -> bool:
    """Whether the particles of a finished run depended on one another."""
    blocks = dict(blocks_of(metrics))
    return any(plan.couples(config, blocks.get(plan)) for plan in PLANS)


def absence(record: dict[str, Any], particle: int) -> str | None:
    """Why a particle is not there at the end, as far as a mechanism knows."""
    reasons = (plan.absence(record, particle) for plan in reversed(PLANS))
    return next((reason for reason in reasons if reason is not None), None)


def events(metrics: Any, run: Finished) -> list[tuple[str, int]]:
    """[(name, first annealing step after it)] of a finished run."""
    blocks = dict(blocks_of(metrics))
    return [event for plan in PLANS for event in plan.events(blocks.get(plan), run)]
