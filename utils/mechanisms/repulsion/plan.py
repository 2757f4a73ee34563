"""Repulsion: keys, checks, and when it acts. What it does: act.py."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from utils.config.section import Section
from utils.errors import InputError
from utils.mechanisms.plan import Course, Finished, Nodes, Plan, Settings
from utils.records.blocks import Block

SIMILARITIES = ("latent", "rotation")  # what particles are compared on: `features` in act.py


def _similarity(name: str) -> str:
    if name not in SIMILARITIES and not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name):
        raise ValueError(f"is none of {', '.join(SIMILARITIES)}, and no module.function of your own")
    return name


class Repulsion(Section):
    decay: Literal["linear", "cosine"]
    end_step: int = Field(ge=0, le=1000)  # timestep
    bandwidth: Literal["median"] | Annotated[float, Field(gt=0)]
    place: Literal["drift", "chain"]
    similarity: Annotated[str, AfterValidator(_similarity)]


class Keys(Section):
    repulsion_scale: float = Field(ge=0)
    repulsion: Repulsion


class RepulsionPlan(Plan):
    name, key, Keys = "repulsion", "repulsion_scale", Keys
    read = ("repulsion_scale", "repulsion.end_step")

    def off(self) -> dict[str, Any]:
        return {"repulsion_scale": 0.0}

    def is_on(self, s: Settings) -> bool:
        return s.repulsion_scale > 0 and max(s.rounds) > 1

    def asked(self, s: Settings) -> bool:
        return s.repulsion_scale > 0

    def steps(self, s: Settings, course: Course) -> int:
        """In how many annealing steps it acts: to its own end, and to the first phase that another mechanism opens."""
        own_end = course.clock.first_step(s.repulsion.end_step)
        return min(course.clock.num_steps if own_end is None else own_end, course.search_end)

    def check(self, s: Settings, course: Course) -> None:
        if s.population == "sequential" and s.repulsion_scale and max(s.rounds) == 1:
            raise InputError(
                f"{self.switch(s)}: acts within a round, and each has one particle; choose sequential.start=2 or more, or 0"
            )
        if self.is_on(s) and not self.steps(s, course):
            raise InputError(
                f"repulsion.end_step={s.repulsion.end_step}: the annealing begins at t = {course.clock.timestep(0):.0f}, "
                "so nothing would push; choose a smaller timestep, or repulsion_scale=0"
            )

    def unused(self, nodes: Nodes) -> tuple[str, ...]:
        return ("repulsion",) if not nodes["repulsion_scale"] or nodes["num_samples"] == 1 else ()

    def explores_until(self, config: Nodes) -> int:
        return config["repulsion"]["end_step"]

    def couples(self, config: Nodes, block: Block | None) -> bool:
        return config["repulsion_scale"] != 0

    def events(self, block: Any, run: Finished) -> list[tuple[str, int]]:
        if run.config is None or run.exploring is None or not run.config["repulsion_scale"] > 0:
            return []
        return [("repulsion ends", run.exploring)]


PLAN = RepulsionPlan()
