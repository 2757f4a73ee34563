"""Pruning: keys, checks, when it acts, and its block. What it does: act.py.

It acts after the chain of the step before the first one with t <= pruning_step, so that this step and all later ones run on
the smaller batch.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from utils.config.section import Section
from utils.errors import InputError
from utils.mechanisms.plan import Course, Finished, Nodes, Plan, Settings, switched
from utils.records.blocks import Block, Number, OfStarted, PerImage, PerStarted
from utils.sampling.phases import Opening
from utils.sampling.schedule import StepClock


class Pruning(Section):
    near_distance: float = Field(ge=0)  # nearer than this fraction of the median pairwise distance is redundant
    loss_tolerance: float = Field(ge=0)  # a far particle's excess over the floor may be larger by this fraction
    fill: Literal["next_best", "clone", "drop"]


class Keys(Section):
    pruning_step: int = Field(ge=-1, le=1000)
    pruning_keep: int = Field(ge=1)
    pruning: Pruning


class Recorded(Block):
    step_index: int
    timestep: float
    kept: list[int]
    dropped: list[int]
    parents: dict[str, int]
    loss: OfStarted[Number]
    distance: list[Number]


class Aggregated(Block):
    """Whom the pruning kept; null when off."""

    step_index: int  # annealing step, from 0
    timestep: float  # of 1000
    kept: PerImage[list[int]]  # numbers of the particles
    dropped: PerImage[list[int]]  # likewise
    loss: PerStarted[Number]  # when it acted
    distance: PerImage[list[Number]]  # latent distance of each pair


class PruningPlan(Plan):
    name, key, Keys = "pruning", "pruning_step", Keys
    block, Recorded, Aggregated = "pruning", Recorded, Aggregated
    recorded = aggregated = True
    shared = ("step_index", "timestep")
    needs_all = True
    resizes = True
    read = ("pruning_step",)
    BEFORE, AFTER = "pre_pruning", "post_pruning"

    def is_on(self, s: Settings) -> bool:
        return s.pruning_step >= 0

    def opening(self, s: Settings, clock: StepClock) -> Opening | None:
        step = switched(self.key, s.pruning_step, clock)
        return None if step is None else Opening(step, self.BEFORE, self.AFTER)

    def check(self, s: Settings, course: Course) -> None:
        if self.is_on(s) and s.num_samples < 2:
            raise InputError(f"{self.switch(s)}: there is nothing to prune with num_samples={s.num_samples}")
        if self.is_on(s) and s.pruning_keep > s.num_samples:
            raise InputError(f"pruning_keep={s.pruning_keep}: must not exceed num_samples={s.num_samples}")

    def unused(self, nodes: Nodes) -> tuple[str, ...]:
        return ("pruning", "pruning_keep") if nodes["pruning_step"] < 0 else ()

    def explores_until(self, config: Nodes) -> int:
        return config["pruning_step"]

    def remaining(self, block: Any, image: int, particles: int) -> int:
        return particles - len(block.dropped[image])

    def events(self, block: Any, run: Finished) -> list[tuple[str, int]]:
        return [("pruning", block.step_index)] if block else []

    def absence(self, record: Mapping[str, Any], particle: int) -> str | None:
        dropped = (record.get(self.block) or {"dropped": ()})["dropped"]
        return "pruned" if particle in dropped else None


PLAN = PruningPlan()
