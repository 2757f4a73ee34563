"""Polish: keys, checks, when it acts, and its block. What it does: act.py.

It begins after the last annealing step: the particles with the smallest losses go back to noise level polish.sigma and anneal
once more, with a chain of their own.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from utils.config.section import MOST_STEPS, Section
from utils.errors import InputError
from utils.mechanisms.plan import Course, Nodes, Plan, Settings, check_level
from utils.records.blocks import Block, Number, PerImage
from utils.sampling.phases import Opening
from utils.sampling.schedule import StepClock, annealing_sigmas, first_level
from utils.sampling.vocabulary import Stage


class Chain(Section):
    """Of the second stage; its rate and its likelihood are those of the first."""

    mc_algo: Literal["langevin", "hmc"]
    num_steps: int = Field(ge=1, le=MOST_STEPS)
    momentum: float = Field(ge=0, lt=1)


class Polish(Section):
    keep: int = Field(ge=0)  # particles of an image that go on, by loss; 0: off
    sigma: float = Field(gt=0)  # noise level to which they go back
    num_steps: int = Field(ge=1, le=MOST_STEPS)  # of a whole annealing, of which those from sigma down are run
    chain: Chain


OFF = Polish(keep=0, sigma=0.25, num_steps=50, chain=Chain(mc_algo="hmc", num_steps=65, momentum=0.41))


class Keys(Section):
    polish: Polish = OFF


class Recorded(Block):
    step_index: int
    kept: list[int]
    dropped: list[int]
    loss: list[Number]


class Aggregated(Block):
    """Who annealed once more; absent when off."""

    step_index: int  # first step of the second stage
    kept: PerImage[list[int]]  # numbers of those that went on
    dropped: PerImage[list[int]]  # numbers of those that ended
    loss: PerImage[list[Number]]  # of all, before it


class PolishPlan(Plan):
    name, key, Keys = "polish", "polish", Keys
    block, Recorded, Aggregated = "polish", Recorded, Aggregated
    shared = ("step_index",)
    needs_all = True
    resizes = True
    ends_annealing = True
    BEFORE, AFTER = "annealing", "polish"

    def off(self) -> dict[str, Any]:
        return {self.key: OFF}

    def is_on(self, s: Settings) -> bool:
        return s.polish.keep > 0

    def switch(self, s: Settings) -> str:
        return f"polish.keep={s.polish.keep}"

    def stage(self, s: Settings) -> Stage | None:
        if not self.is_on(s):
            return None
        polish, grid = s.polish, s.sampler.annealing_scheduler_config
        sigmas = annealing_sigmas(polish.num_steps, grid.sigma_max, grid.sigma_min)
        first = first_level(sigmas, polish.sigma)
        chain = s.chain.model_copy(update={**dict(polish.chain), "keep_velocity": False})
        return Stage(sigmas[first:], chain, first)

    def opening(self, s: Settings, clock: StepClock) -> Opening | None:
        return Opening(clock.annealing_steps, self.BEFORE, self.AFTER) if self.is_on(s) else None

    def check(self, s: Settings, course: Course) -> None:
        if not self.is_on(s):
            return
        polish, grid = s.polish, s.sampler.annealing_scheduler_config
        if polish.keep > s.num_samples:
            raise InputError(f"{self.switch(s)}: must not exceed num_samples={s.num_samples}, an image's particles")
        sigmas = annealing_sigmas(polish.num_steps, grid.sigma_max, grid.sigma_min)
        check_level("polish.sigma", polish.sigma, sigmas, f"the last of polish.num_steps={polish.num_steps} levels")

    def unused(self, nodes: Nodes) -> tuple[str, ...]:
        return () if nodes.get("polish", {}).get("keep") else ("polish",)

    def steps_after(self, nodes: Nodes) -> int:
        if not nodes.get("polish", {}).get("keep"):
            return 0
        polish, grid = nodes["polish"], nodes["sampler"]["annealing_scheduler_config"]
        sigmas = annealing_sigmas(polish["num_steps"], grid["sigma_max"], grid["sigma_min"])
        return polish["num_steps"] - first_level(sigmas, polish["sigma"])

    def remaining(self, block: Any, image: int, particles: int) -> int:
        return len(block.kept[image])

    def events(self, block: Any, run: Any) -> list[tuple[str, int]]:
        return [("polish", block.step_index)] if block else []

    def absence(self, record: Mapping[str, Any], particle: int) -> str | None:
        dropped = (record.get(self.block) or {"dropped": ()})["dropped"]
        return "not polished" if particle in dropped else None


PLAN = PolishPlan()
