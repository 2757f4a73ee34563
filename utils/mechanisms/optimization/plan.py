"""Hard data consistency: keys, checks, when it acts, and its block. What it does: act.py.

It acts after the chain of every `every`-th step with t <= optimization_step, and of the last one.
"""

from typing import Any

from pydantic import Field

from utils.config.section import MOST_STEPS, Section
from utils.mechanisms.plan import Finished, Nodes, Plan, Settings, switched
from utils.records.blocks import Block, OfEach, PerImage, PerParticle
from utils.sampling.phases import Opening
from utils.sampling.schedule import StepClock


class Optimization(Section):
    every: int = Field(ge=1)
    max_iterations: int = Field(ge=1, le=MOST_STEPS)
    lr: float = Field(gt=0)
    stop_factor: float = Field(ge=0)
    max_move: float = Field(gt=0)


class Keys(Section):
    optimization_step: int = Field(ge=-1, le=1000)
    optimization: Optimization


class Recorded(Block):
    calls: OfEach[int]
    iterations: OfEach[int]
    calls_without_iteration: OfEach[int]
    stopped_by: OfEach[list[str]]
    time_s: float


class Aggregated(Block):
    """How far each particle was optimised; null when off."""

    calls: PerParticle[int]  # of the optimisation
    iterations: PerParticle[int]  # of all calls
    stopped_by: PerParticle[list[str]]  # of each call
    time_s: PerImage[float]  # seconds


class OptimizationPlan(Plan):
    name, key, Keys = "optimization", "optimization_step", Keys
    block, Recorded, Aggregated = "optimization", Recorded, Aggregated
    recorded = aggregated = True
    ends_annealing = True
    removed = {"parametrization": "free"}
    read = ("optimization_step",)
    measured = (("optimization_calls", "optimisation calls", 1), ("optimization_iterations", "iterations", 1))
    PHASE = "optimization"

    def is_on(self, s: Settings) -> bool:
        return s.optimization_step >= 0

    def opening(self, s: Settings, clock: StepClock) -> Opening | None:
        step = switched(self.key, s.optimization_step, clock)
        return None if step is None else Opening(step, f"pre_{self.PHASE}", self.PHASE)

    def unused(self, nodes: Nodes) -> tuple[str, ...]:
        return ("optimization",) if nodes["optimization_step"] < 0 else ()

    def explores_until(self, config: Nodes) -> int:
        return config["optimization_step"]

    def values(self, block: Any, image: int) -> dict[str, float]:
        return {
            "optimization_calls": float(sum(block.calls[image])),
            "optimization_iterations": float(sum(block.iterations[image])),
        }

    def events(self, block: Any, run: Finished) -> list[tuple[str, int]]:
        if not block or run.config is None or run.timesteps is None:
            return []
        switch = run.config["optimization_step"]
        first = next((i for i, timestep in enumerate(run.timesteps) if timestep <= switch), None)
        return [] if first is None else [("hard data consistency", first)]


PLAN = OptimizationPlan()
