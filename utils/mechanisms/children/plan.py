"""Children of a pruning: keys, checks, and their block. What it does: act.py. It builds on the pruning."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from utils.config.section import Section
from utils.errors import InputError
from utils.mechanisms.plan import Course, Nodes, Plan, Settings
from utils.mechanisms.pruning.plan import PLAN as PRUNING
from utils.records.births import births
from utils.records.blocks import Block, PerImage
from utils.sampling.schedule import annealing_sigmas


class Tree(Section):
    branch_sigma: float | None = Field(gt=0)  # noise level under which children leave their parent; None: the annealing's


class Keys(Section):
    children: int = Field(default=0, ge=0, le=64)  # of each kept particle
    tree: Tree = Tree(branch_sigma=None)


class Recorded(Block):
    step_index: int
    timestep: float
    stay: bool
    parent: dict[str, int]


class Aggregated(Block):
    """Children, born at a pruning."""

    step_index: int  # annealing step of their birth, from 0
    timestep: float  # of 1000
    stay: bool  # whether the parents went on beside them: in older runs alone
    parent: PerImage[dict[str, int]]  # {number of a child: number of its parent}


class ChildrenPlan(Plan):
    name, key, Keys = "children", "children", Keys
    block, Recorded, Aggregated = "tree", Recorded, Aggregated
    shared = ("step_index", "timestep", "stay")
    adds = True

    def off(self) -> dict[str, Any]:
        return {"children": 0}

    def is_on(self, s: Settings) -> bool:
        return s.children > 0

    def check(self, s: Settings, course: Course) -> None:
        if not self.is_on(s):
            return
        birth = PRUNING.opening(s, course.clock)
        if birth is None:
            raise InputError(
                f"{self.switch(s)}: they are born at the pruning, and pruning_step=-1; choose its timestep, or children=0"
            )
        sigma, grid = s.tree.branch_sigma, s.sampler.annealing_scheduler_config
        of_the_annealing = annealing_sigmas(grid.num_steps, grid.sigma_max, grid.sigma_min)[birth.step]
        if sigma is not None and not of_the_annealing <= sigma <= grid.sigma_max:
            raise InputError(
                f"tree.branch_sigma={sigma}: must lie between {of_the_annealing:.3g}, the annealing's own level at "
                f"{PRUNING.switch(s)}, and sigma_max={grid.sigma_max}; or write null for its own"
            )

    def unused(self, nodes: Nodes) -> tuple[str, ...]:
        return () if nodes.get("children") else ("children", "tree")

    def remaining(self, block: Any, image: int, particles: int) -> int:
        return particles * block.stay + len(block.parent[image])

    def absence(self, record: Mapping[str, Any], particle: int) -> str | None:
        """Also of children that a mechanism of one's own made."""
        born = births([record.get(self.block), *record.get("mechanisms", {}).values()])
        if any(particle in birth.parent.values() for birth in born):
            return "has children"
        return "not born" if born and PRUNING.absence(record, particle) is None else None


PLAN = ChildrenPlan()
