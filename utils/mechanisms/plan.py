"""The contract of a mechanism's plan: all that the program knows of the mechanism without torch.

Config check, fingerprint, records, metrics.json, tables and figures ask every plan (utils/mechanisms/registry.py) and know
none by name. Each question has an answer that says "nothing of the kind".
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from utils.config.section import Section
from utils.errors import InputError
from utils.records.blocks import Block
from utils.sampling.phases import Opening
from utils.sampling.schedule import ROUNDING, StepClock
from utils.sampling.vocabulary import Stage

Settings = Any  # utils.config.settings.Settings, which has the keys of all plans
Nodes = Mapping[str, Any]  # a composed config, plain
Measured = tuple[str, str, int]  # key of a value per image, head of its column, digits


class Course(NamedTuple):
    """When things happen in a run."""

    clock: StepClock
    openings: tuple[Opening, ...]  # of the phases after the first, in order
    below: Any = None  # utils.algorithms.contract.Algorithm that solves the image at a coarser level first, where one does

    @property
    def search_end(self) -> int:
        """The annealing step at which the search of the particles ends; the number of steps where there is none."""
        return min((opening.step for opening in self.openings if opening.ends_search), default=self.clock.annealing_steps)


class Level(NamedTuple):
    """A size at which a run solves its image, before those that follow."""

    resolution: int  # pixels a side
    model: str | None  # name of its prior in configs/model; None: that of the run
    chain: Mapping[str, Any]  # what it has otherwise than the block `sampler.chain`


class Finished(NamedTuple):
    """What figures know of the course of a finished run."""

    config: Nodes | None  # None where it is missing
    timesteps: Sequence[float] | None  # of its annealing steps, falling; None where they are not known
    exploring: int | None  # annealing steps before phase 1 ends, where known


class Plan:
    """Of one mechanism.

    name:      its folder, and its name among the mechanisms
    key:       the key that switches it on
    block:     its key in a record and in metrics.json; None: it leaves nothing there
    recorded, aggregated: whether that key is there, null, where the mechanism is off: in a record, in metrics.json
    Keys:      its keys at the top level of the config
    Recorded, Aggregated: what its block holds, in a record and in metrics.json
    shared:    keys of its block that hold the same for all images
    rounded:   whether kept records may hold its block in fewer digits
    needs_all: whether it needs all of an image's particles at once
    resizes:   whether an image has another number of particles after it
    adds: whether it adds particles to those that are started
    ends_annealing: whether it is what an annealing ends with; only one may
    separable: whether it needs a data term that is a sum over channels
    removed:   keys of its section that are gone, with the value at which they did nothing
    read:      dotted keys that finished runs are asked for
    measured:  what its block tells of an image, in the table of costs
    """

    name: str
    key: str
    Keys: type[Section]
    block: str | None = None
    recorded = False
    aggregated = False
    Recorded: type[Block] | None = None
    Aggregated: type[Block] | None = None
    shared: tuple[str, ...] = ()
    rounded = False
    needs_all = False
    resizes = False
    adds = False
    ends_annealing = False
    separable = False
    removed: Mapping[str, Any] = {}
    read: tuple[str, ...] = ()
    measured: tuple[Measured, ...] = ()

    # of a config that is to run
    def is_on(self, s: Settings) -> bool:
        """Whether it is switched on."""
        return False

    def asked(self, s: Settings) -> bool:
        """Whether its switch is set, also where it would have nothing to act on."""
        return self.is_on(s)

    def switch(self, s: Settings) -> str:
        """The key that switches it on, with its value."""
        return f"{self.key}={getattr(s, self.key)}"

    def when(self, s: Settings) -> str:
        """The key that says from where on it acts, with its value."""
        return self.switch(s)

    def check(self, s: Settings, course: Course) -> None:
        """Raises InputError for keys that do not go together, with others' too; asked where it is off as well."""

    def opening(self, s: Settings, clock: StepClock) -> Opening | None:
        """The phase that it opens. Raises InputError where it never would."""
        return None

    def stage(self, s: Settings) -> Stage | None:
        """The annealing steps that it adds after the others."""
        return None

    def copies(self, s: Settings) -> bool:
        """Whether particles may take what they are from one another, so that two that agree need not have found it apart."""
        return False

    def levels(self, s: Settings) -> Sequence[Level]:
        """The sizes at which a run solves its image, the last one that of its own prior; none: at one alone."""
        return ()

    def of_level(self, s: Settings) -> dict[str, Any]:
        """{key: value} with which the settings are those of one level."""
        return {}

    def off(self) -> dict[str, Any]:
        """{key: value} with which it does nothing."""
        return {self.key: -1}

    # of any composed config, also an older one
    def unused(self, nodes: Nodes) -> tuple[str, ...]:
        """Its top-level keys that do nothing there: they are no part of what a run is."""
        return ()

    def retired(self, nodes: Nodes) -> Nodes:
        """Its section as every fingerprint has it: with what it held once, and without what changes nothing."""
        return nodes

    def steps_after(self, nodes: Nodes) -> int:
        """How many steps follow the annealing, all at t = 0."""
        return 0

    def of_older_certificate(self, held: Nodes) -> Nodes:
        """What a certificate holds for that was made before all settings were compared, under today's keys."""
        return held

    # of records
    def aggregate(self, blocks: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Its block of metrics.json from those of the images: what they share once, of all else a list over the images."""
        assert self.Recorded is not None
        per_image = {key: [block[key] for block in blocks] for key in self.Recorded.model_fields}
        return per_image | {key: blocks[0][key] for key in self.shared}

    # of finished runs, for tables and figures
    def explores_until(self, config: Nodes) -> int:
        """The timestep to which phase 1, in which particles look for solutions, is held by it; -1: not at all."""
        return -1

    def couples(self, config: Nodes, block: Block | None) -> bool:
        """Whether fewer particles would have ended otherwise."""
        return self.resizes and block is not None

    def remaining(self, block: Any, image: int, particles: int) -> int:
        """How many of an image's particles are left by it."""
        return particles

    def values(self, block: Any, image: int) -> dict[str, float]:
        """{key of `measured`: its value} of one image."""
        return {}

    def events(self, block: Any, run: Finished) -> list[tuple[str, int]]:
        """[(name, first annealing step after it)] of a run; block: of metrics.json, None without one."""
        return []

    def absence(self, record: Mapping[str, Any], particle: int) -> str | None:
        """Why a particle is not there at the end, if it is for this mechanism."""
        return None

    def tables(self, block: Any, image_ids: Sequence[int]) -> list[tuple[str, list[str], list[list[Any]], str]]:
        """(title, heads, rows, note) of what the report shows of the first images."""
        return []

    def of_levels(self, block: Any) -> Mapping[str, Mapping[str, list[dict[str, Any]]]]:
        """{name of a coarser level: {name of a mechanism: its block of each image's record}} of what acted there."""
        return {}


def check_level(key: str, sigma: float, sigmas: Sequence[float], last: str = "the annealing's last level") -> None:
    """Raises InputError for a noise level outside a grid, to rounding. last: what the lower end is called."""
    lowest, highest = sigmas[-2], sigmas[0]
    if not lowest <= sigma * (1 + ROUNDING) or not sigma <= highest * (1 + ROUNDING):
        raise InputError(f"{key}={sigma}: must lie between {last} {lowest:.3g} and sigma_max={highest:.3g}")


def switched(key: str, timestep: int, clock: StepClock) -> int | None:
    """The first annealing step at or below the timestep of a switch; None where it is off, -1. Raises InputError."""
    if timestep < 0:
        return None
    step = clock.first_step(timestep)
    if step is None:
        raise InputError(
            f"{key}={timestep}: the last of {clock.annealing_steps} annealing steps is at "
            f"t = {clock.timestep(clock.annealing_steps - 1):g}, so this never happens; choose a larger timestep, or -1 for off"
        )
    if timestep == 1000:
        raise InputError(f"{key}={timestep}: nothing has been sampled yet at t = 1000; choose a smaller timestep")
    return step
