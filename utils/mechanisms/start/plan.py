"""Start from a bank: keys, checks, when particles join, and its block. What it does: act.py."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from utils.config.operators import OURS, SPECTRA
from utils.config.section import Section
from utils.errors import InputError
from utils.mechanisms.plan import Course, Nodes, Plan, Settings, check_level
from utils.records.blocks import Block, Number, PerImage
from utils.sampling.phases import Opening
from utils.sampling.schedule import StepClock, first_level

NOTE = "residual: of its three channels together, over what the noise leaves. turned: by 180 degrees as a whole."


class Start(Section):
    bank: int = Field(ge=0)  # the first so many particles of an image begin at solutions of a classical solver; 0: none
    sigma: float = Field(gt=0)  # noise level at which they join the annealing
    solver: Literal["hio", "raar", "er"]
    restarts: int = Field(ge=1, le=100_000)
    iterations: int = Field(ge=1, le=1_000_000)
    keep: int = Field(ge=1, le=256)  # candidates of each channel, by residual, of which objects are put together
    beta: float = Field(gt=0, le=1)
    turn: bool  # every second particle by 180 degrees, so that both orientations are tried


OFF = Start(bank=0, sigma=1.0, solver="hio", restarts=64, iterations=300, keep=32, beta=0.9, turn=True)


class Keys(Section):
    start: Start = OFF


class Recorded(Block):
    step_index: int
    timestep: float
    particles: list[int]
    rank: list[int]
    residual: list[Number]
    turned: list[bool]


class Aggregated(Block):
    """Which particles began at classical reconstructions; absent when off."""

    step_index: int  # annealing step at which they joined, from 0
    timestep: float  # of 1000
    particles: PerImage[list[int]]  # that began at the bank; the others began in noise
    rank: PerImage[list[int]]  # within the bank, 0 is the best
    residual: PerImage[list[Number]]  # over the noise floor
    turned: PerImage[list[bool]]  # by 180 degrees, as a whole


class StartPlan(Plan):
    name, key, Keys = "start", "start", Keys
    block, Recorded, Aggregated = "start", Recorded, Aggregated
    shared = ("step_index", "timestep")
    rounded = True
    BEFORE, AFTER, PHASE = "above_start", "below_start", "bank"

    def off(self) -> dict[str, Any]:
        return {self.key: OFF}

    def is_on(self, s: Settings) -> bool:
        """Whether a particle of this run begins at the bank: that of number k does where start.bank is above k."""
        return s.start.bank > s.first_particle

    def switch(self, s: Settings) -> str:
        return f"start.bank={s.start.bank}"

    def when(self, s: Settings) -> str:
        return f"start.sigma={s.start.sigma:g}"

    def step(self, s: Settings) -> int:
        """The first annealing step of the particles from the bank."""
        return first_level(s.sampler.annealing_sigmas, s.start.sigma)

    def opening(self, s: Settings, clock: StepClock) -> Opening | None:
        """None where all particles join: nothing is run before. Rounds of a sequential population share their phases."""
        last = s.first_particle + s.num_samples
        if not self.is_on(s) or (last <= s.start.bank and s.population == "fixed"):
            return None
        return Opening(self.step(s), self.BEFORE, self.AFTER, ends_search=False)

    def check(self, s: Settings, course: Course) -> None:
        if not self.is_on(s):
            return
        start, operator = s.start, s.group.operator
        if operator.target in OURS and operator.target not in SPECTRA:
            raise InputError(
                f"{self.switch(s)}: {operator.target} measures no spectrum, and the bank's solvers need one; "
                "choose phase_retrieval, or start.bank=0"
            )
        if s.data_term.free_scale:
            raise InputError(
                f"{self.switch(s)}: the bank's solvers know the object's range, and of a free exposure it is not known; "
                "give data.scale=known, or start.bank=0"
            )
        early = next((opening for opening in course.openings if opening.ends_search and opening.step <= self.step(s)), None)
        if early is not None:
            raise InputError(
                f"{self.switch(s)}: its particles join at t = {course.clock.timestep(self.step(s)):.0f}, and what opens the "
                f"phase {early.after} acts before; let it act later, or raise start.sigma"
            )
        if not s.first_particle and start.bank > s.num_samples:
            raise InputError(f"{self.switch(s)}: must not exceed num_samples={s.num_samples}, an image's particles")
        check_level("start.sigma", start.sigma, s.sampler.annealing_sigmas)
        if not start.bank <= start.keep <= start.restarts:
            raise InputError(
                f"start.keep={start.keep}: must lie between start.bank={start.bank} and start.restarts={start.restarts}"
            )

    def couples(self, config: Nodes, block: Any) -> bool:
        """Particle k begins at the k-th best of the bank."""
        return config.get("start", {}).get("bank", 0) > 0

    def copies(self, s: Settings) -> bool:
        """Two pictures of a bank may share the solution of a channel."""
        return s.start.bank > 1

    def unused(self, nodes: Nodes) -> tuple[str, ...]:
        return () if nodes.get("start", {}).get("bank") else ("start",)

    def tables(self, block: Any, image_ids: Sequence[int]) -> list[tuple[str, list[str], list[list[Any]], str]]:
        """Which particle began where."""
        rows = [
            [image, f"p{index}", rank, "-" if residual is None else f"{residual:.2f}", "yes" if turned else "no"]
            for image, *columns in zip(image_ids, block.particles, block.rank, block.residual, block.turned)
            for index, rank, residual, turned in zip(*columns)
        ]
        return [("Starts from the bank", ["image", "particle", "rank", "residual", "turned"], rows, NOTE)] if rows else []


PLAN = StartPlan()
