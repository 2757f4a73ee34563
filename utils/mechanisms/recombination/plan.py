"""Recombination: keys, checks, when it acts, and its block. What it does: act.py."""

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from utils.config.operators import OURS, SEPARABLE
from utils.config.section import Section
from utils.errors import InputError
from utils.mechanisms.plan import Course, Finished, Nodes, Plan, Settings
from utils.records.blocks import Block, Number, PerImage

NOTE = (
    "Every event in which a particle of these images changed; the particles that are not named stayed as they were. "
    "own: the particle's own channel, p1: that of particle 1, turned: by 180 degrees against what it was."
)


class Recombination(Section):
    every: int = Field(ge=1)  # annealing steps from event to event
    excess: float = Field(ge=0)  # a channel is bad if it fits worse than the donor's by this times the donor's excess
    deviation: float = Field(ge=0)  # plus this many standard deviations of a true channel's loss
    turns: bool
    donors: bool
    sigmas: list[Annotated[float, Field(gt=0)]] = Field(min_length=1)  # noise levels of the prior's score


class Keys(Section):
    recombination_step: int = Field(default=-1, ge=-1, le=1000)
    recombination: Recombination


class Recombined(Block):
    """One particle of one image at one event."""

    index: int  # number of the particle
    donors: list[int]  # whose channels it has now, by number
    turned: list[bool]  # each channel, by 180 degrees
    loss: list[Number]  # per channel, before
    score: list[Number]  # of each candidate
    accepted: bool  # whether it was changed

    @model_validator(mode="after")
    def one_turn_a_donor(self) -> Self:
        if len(self.donors) != len(self.turned):
            raise ValueError(f"turned={self.turned} has not one value for each of donors={self.donors}")
        return self


class Event(Block):
    step_index: int  # annealing step, from 0
    timestep: float  # of 1000
    particles: list[Recombined]


class Recorded(Block):
    events: list[Event]


class Aggregated(Block):
    """Who took which channels; null when off."""

    events: PerImage[list[Event]]  # of the image, in order


class RecombinationPlan(Plan):
    name, key, Keys = "recombination", "recombination_step", Keys
    block, Recorded, Aggregated = "recombination", Recorded, Aggregated
    aggregated = True
    rounded = True
    removed = {"rescue": "none", "choice": "prior"}
    separable = True

    def is_on(self, s: Settings) -> bool:
        return s.recombination_step >= 0

    def check(self, s: Settings, course: Course) -> None:
        if not self.is_on(s):
            return
        clock, operator = course.clock, s.group.operator
        first = clock.first_step(s.recombination_step)
        if first is None or first == clock.annealing_steps - 1:
            raise InputError(
                f"{self.switch(s)}: the last of {clock.annealing_steps} annealing steps is at "
                f"t = {clock.timestep(clock.annealing_steps - 1):g}, and it acts before that one; "
                "choose a larger timestep, or -1 for off"
            )
        if operator.target in OURS and operator.target not in SEPARABLE:
            raise InputError(
                f"{self.switch(s)}: the loss of {operator.target} is no sum over channels; "
                f"those of {', '.join(name.rpartition('.')[2] for name in SEPARABLE)} are; choose such a task, or -1 for off"
            )
        if s.data.channels == 1:
            raise InputError(f"data.channels=1: has no channels to exchange ({self.switch(s)}); write -1")
        if s.population == "sequential" and s.recombination.donors:
            raise InputError(
                "recombination.donors=true: with population=sequential an image's particles stay independent, so that "
                f"agreement counts ({self.switch(s)}); write recombination.donors=false"
            )

    def copies(self, s: Settings) -> bool:
        return self.is_on(s) and s.recombination.donors

    def unused(self, nodes: Nodes) -> tuple[str, ...]:
        return (self.key, self.name) if nodes.get(self.key, -1) < 0 else ()

    def retired(self, nodes: Nodes) -> Nodes:
        return {"choice": "prior", **nodes}

    def of_older_certificate(self, held: Nodes) -> Nodes:
        """It says `donors` alone of the section, and only where particles exchange nothing although they could."""
        if self.key not in held:
            return held
        others = {key: value for key, value in held.items() if key != "donors"}
        return {**others, self.name: self.retired({"donors": held.get("donors", True)})}

    def couples(self, config: Nodes, block: Any) -> bool:
        return config.get("recombination_step", -1) >= 0 and config.get("recombination", {}).get("donors", True)

    def events(self, block: Any, run: Finished) -> list[tuple[str, int]]:
        return [("exchange", event.step_index + 1) for event in block.events[0]] if block else []

    def tables(self, block: Any, image_ids: Sequence[int]) -> list[tuple[str, list[str], list[list[Any]], str]]:
        """Who gave which channel to whom: one row per child among these images."""
        rows = []
        for image, events in zip(image_ids, block.events):
            for event in events:
                for p in event.particles:
                    if p.accepted:
                        channels = [channel(p.index, donor, turn) for donor, turn in zip(p.donors, p.turned, strict=True)]
                        rows.append([image, f"{event.timestep:.0f}", f"p{p.index}", *channels])
        if not rows:
            return []
        names = ("red", "green", "blue") if len(rows[0]) == 6 else [f"channel {c}" for c in range(len(rows[0]) - 3)]
        return [("Ancestry", ["image", "t", "child", *names], rows, NOTE)]


def channel(index: int, donor: int, turned: bool) -> str:
    """The cell of one channel of the particle `index`."""
    return ("own" if donor == index else f"p{donor}") + (" turned" if turned else "")


PLAN = RecombinationPlan()
