"""Pyramid, coarse to fine: keys, checks, its levels, and its block. What it does: act.py.

A run with levels 32 and 64 is two: one at 32 pixels, with all mechanisms, and one at 64 that begins where the first ended.
utils/config/levels.py makes the settings of each.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from utils.config.operators import OURS, SPECTRA
from utils.config.section import LARGEST_SIDE, MOST_STEPS, Section
from utils.errors import InputError
from utils.mechanisms.plan import Course, Level, Nodes, Plan, Settings, check_level
from utils.records.blocks import Block, Number, PerImage
from utils.sampling.schedule import first_level

SHIPPED = "natural-32"  # model of the levels for which none is named
NOTE = (
    "Particles of the coarser levels. loss: over the noise floor of the level. agreement: correlation of the best picture with "
    "the nearest of the others that went on, in the better orientation; near 1 where they agree. Of a level whose particles "
    "began at their mean it says little."
)


class Chain(Section):
    """Of the levels after the first; null: as the sampler and the task group have it."""

    mc_algo: Literal["langevin", "hmc"] | None = None
    num_steps: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    momentum: float | None = Field(default=None, ge=0, lt=1)
    keep_velocity: bool | None = None


class Pyramid(Section):
    levels: list[Annotated[int, Field(ge=8, le=LARGEST_SIDE)]]  # sizes, rising, to that of the run's own model; none: off
    models: list[str] | None  # of configs/model, for the levels but the last
    keep: int = Field(ge=1)  # particles that a level hands on, by loss
    sigma: float = Field(gt=0)  # noise level at which they begin the next one
    consensus: bool = False  # they begin at their mean, not each at its own picture; records from before the choice: false
    solutions: int = Field(default=0, ge=0, le=1024)  # of the classical solver, whose mean they begin half way to; 0: none
    chain: Chain


OFF = Pyramid(levels=[], models=None, keep=4, sigma=1.0, consensus=True, solutions=0, chain=Chain(num_steps=20))


class Keys(Section):
    pyramid: Pyramid = OFF


class LevelOfImage(Block):
    """What one level before the last found on one image."""

    resolution: int  # pixels a side
    loss: list[Number]  # of each particle, over the noise floor; null where it was not there at the end
    kept: list[int]  # numbers of the particles that went on, best first
    agreement: Number  # of the best of them with the nearest other
    blocks: dict[str, Any]  # of the mechanisms that acted there


class Recorded(Block):
    field: int
    levels: list[LevelOfImage]


class Aggregated(Block):
    """What the levels before the last found; absent when off."""

    field: int  # pixels of the object
    levels: PerImage[list[LevelOfImage]]


class PyramidPlan(Plan):
    name, key, Keys = "pyramid", "pyramid", Keys
    block, Recorded, Aggregated = "pyramid", Recorded, Aggregated
    shared = ("field",)
    rounded = True
    needs_all = True
    resizes = True

    def off(self) -> dict[str, Any]:
        return {self.key: OFF}

    def is_on(self, s: Settings) -> bool:
        """At the levels after the first."""
        return s.below is not None

    def asked(self, s: Settings) -> bool:
        return bool(s.pyramid.levels)

    def switch(self, s: Settings) -> str:
        return f"pyramid.levels={s.pyramid.levels}"

    def levels(self, s: Settings) -> Sequence[Level]:
        if not s.pyramid.levels:
            return ()
        *below, last = s.pyramid.levels
        models = s.pyramid.models if s.pyramid.models is not None else [SHIPPED] * len(below)
        chain = {key: value for key, value in s.pyramid.chain if value is not None}
        named = [Level(size, model, chain if i else {}) for i, (size, model) in enumerate(zip(below, models))]
        return [*named, Level(last, None, chain if below else {})]

    def of_level(self, s: Settings) -> dict[str, Any]:
        return {self.key: s.pyramid.model_copy(update={"levels": []})}

    def step(self, s: Settings) -> int:
        """The first annealing step of a level after the first."""
        return first_level(s.sampler.annealing_sigmas, s.pyramid.sigma)

    def check(self, s: Settings, course: Course) -> None:
        if not s.pyramid.levels:
            return
        pyramid, levels, side, switch = s.pyramid, s.pyramid.levels, s.data.resolution, self.switch(s)
        if s.group.operator.target in OURS and s.group.operator.target not in SPECTRA:
            raise InputError(f"{switch}: {s.group.operator.target} measures no spectrum; choose phase_retrieval, or []")
        if levels != sorted(set(levels)):
            raise InputError(f"{switch}: write rising sizes, the last one that of the model")
        if levels[-1] != s.model.resolution:
            raise InputError(
                f"{switch}: the last must be model.resolution={s.model.resolution}, the size of the run's own prior"
            )
        if levels[-1] > side:
            raise InputError(f"{switch}: the last must not exceed data.resolution={side}, the size of the object")
        if pyramid.models is not None and len(pyramid.models) != len(levels) - 1:
            raise InputError(
                f"pyramid.models={pyramid.models}: name one for each of the levels {levels[:-1]}, the last has the run's own"
            )
        if len(levels) == 1:  # it only says at which size the object is solved, and hands nothing on
            return
        if pyramid.keep > s.num_samples:
            raise InputError(
                f"pyramid.keep={pyramid.keep}: must not exceed num_samples={s.num_samples}, those of the first level"
            )
        if pyramid.solutions and not pyramid.consensus and pyramid.solutions < pyramid.keep:
            raise InputError(
                f"pyramid.solutions={pyramid.solutions}: without a consensus each of pyramid.keep={pyramid.keep} particles has "
                "its own; give at least as many, or 0"
            )
        if pyramid.solutions and s.data_term.free_scale:
            raise InputError(
                f"pyramid.solutions={pyramid.solutions}: the classical solver knows the range of the object, and of a free "
                "exposure it is not known; give data.scale=known, or pyramid.solutions=0"
            )
        check_level("pyramid.sigma", pyramid.sigma, s.sampler.annealing_sigmas)

    def unused(self, nodes: Nodes) -> tuple[str, ...]:
        return () if nodes.get("pyramid", {}).get("levels") else ("pyramid",)

    def retired(self, nodes: Nodes) -> Nodes:
        """Without a consensus, or without classical solutions, it is what it was before there was a choice."""
        return {key: value for key, value in nodes.items() if (key, value) not in (("consensus", False), ("solutions", 0))}

    def remaining(self, block: Any, image: int, particles: int) -> int:
        return len(block.levels[image][-1].kept) if block.levels[image] else particles

    def absence(self, record: Mapping[str, Any], particle: int) -> str | None:
        block = record.get(self.block)
        gone = block and block["levels"] and particle not in block["levels"][-1]["kept"]
        return "left at a coarser level" if gone else None

    def tables(self, block: Any, image_ids: Sequence[int]) -> list[tuple[str, list[str], list[list[Any]], str]]:
        """What each level found."""
        rows = []
        for image, levels in zip(image_ids, block.levels):
            for level in levels:
                losses = [loss for loss in level.loss if loss is not None]
                best = f"{min(losses):.2f}" if losses else "-"
                agreement = "-" if level.agreement is None else f"{level.agreement:.2f}"
                kept = ", ".join(f"p{number}" for number in level.kept)
                rows.append([image, f"{level.resolution} of {block.field}", len(level.loss), best, kept, agreement])
        heads = ["image", "pixels", "particles", "best loss", "went on", "agreement"]
        return [("Coarse to fine", heads, rows, NOTE)] if rows else []

    def of_levels(self, block: Any) -> Mapping[str, Mapping[str, list[dict[str, Any]]]]:
        levels: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for level in (level for image in block.levels for level in image):
            of_mechanisms = levels.setdefault(f"{level.resolution} pixels", {})
            for name, recorded in level.blocks.items():
                of_mechanisms.setdefault(name, []).append(recorded)
        return levels


PLAN = PyramidPlan()
