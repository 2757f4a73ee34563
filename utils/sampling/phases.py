"""The phases of a run: where a mechanism changes it for good, one phase ends and another begins. No torch."""

from collections.abc import Sequence
from typing import NamedTuple

WHOLE = "sampling"  # the phase of a run in which nothing opens another one


class Opening(NamedTuple):
    """Where a mechanism opens a phase: that of annealing step `step` and what follows; both phases' names."""

    step: int
    before: str
    after: str
    ends_search: bool = True  # whether particles no longer look for solutions after it


class Phases:
    """Of one run. openings: in the order of the run; apart: phases without steps; names: of all phases, in order.

    Between two openings the phase has both names, the one that ended before and the one that begins after, as one.
    """

    def __init__(self, openings: Sequence[Opening] = (), apart: Sequence[str] = ()) -> None:
        self.openings = tuple(openings)
        between = [f"{a.after}_{b.before}" for a, b in zip(openings, openings[1:])]
        self.of_steps = (openings[0].before, *between, openings[-1].after) if openings else (WHOLE,)
        self.names = (*apart, *self.of_steps)

    def of(self, step: int) -> str:
        """The phase that an annealing step belongs to."""
        return self.of_steps[sum(step >= opening.step for opening in self.openings)]
