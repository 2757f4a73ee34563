"""The whole config as typed values."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr

from utils.config.population import Sequential
from utils.config.section import Section
from utils.config.sections import (
    MCMC,
    Data,
    Fidelity,
    Model,
    Optimization,
    OwnMechanism,
    PathText,
    PortfolioEntry,
    Pruning,
    Recombination,
    Repulsion,
    Sampler,
    Selection,
    Success,
    TaskGroup,
    Tree,
)


@dataclass(frozen=True)
class Composition:
    """What was composed, beside the typed values."""

    nodes: dict[str, Any]  # the resolved config
    identity: dict[str, Any]  # the part of it that decides results
    fingerprint: str  # hash of the identity
    about: dict[str, Any]  # what every record says about the run
    documents: dict[str, str]  # what the run folder keeps, {file name: text}
    notes: tuple[str, ...] = ()  # what the log says of it


class Settings(Section):
    """The whole config, as typed and checked values. Field names are the keys that users write."""

    _composition: Composition | None = PrivateAttr(None)

    num_samples: int = Field(ge=1, lt=2**31)
    first_particle: int = Field(ge=0, lt=2**31)
    population: Literal["fixed", "sequential"] = "fixed"
    task_group: str
    seed: int = Field(ge=0, lt=2**32)
    step_clock: Literal["progress", "noise"]
    temperature: float | None = Field(default=None, gt=0)  # the likelihood's variance over that of the noise
    free_fraction: float = Field(default=0.0, ge=0, le=0.5)  # of the measured values, kept out of the fit
    selection: Selection = Selection(rule="loss")
    repulsion_scale: float = Field(ge=0)
    pruning_step: int = Field(ge=-1, le=1000)
    pruning_keep: int = Field(ge=1)
    children: int = Field(default=0, ge=0, le=64)
    coupling_scale: float = Field(default=0.0, ge=0, le=1)
    optimization_step: int = Field(ge=-1, le=1000)
    recombination_step: int = Field(default=-1, ge=-1, le=1000)
    use_tpu: bool
    gpu: int = Field(ge=-1)
    num_cores: int | None = Field(ge=1)
    batch_images: Annotated[int, Field(ge=1)] | Literal["auto"]
    max_particles_per_pass: int | None = Field(ge=1)
    precision: Literal["fp32", "tf32", "bf16"]
    compile: bool
    gradient_checkpointing: bool
    chain_check: bool | Literal["auto"] = "auto"
    shard: str
    save_dir: PathText
    name: PathText
    resume: bool
    repulsion: Repulsion
    pruning: Pruning
    tree: Tree = Tree(branch_sigma=None)
    optimization: Optimization
    recombination: Recombination
    sequential: Sequential = Sequential()
    fidelity: Fidelity = Fidelity()
    mechanisms: dict[str, OwnMechanism] = {}
    portfolio: list[PortfolioEntry] = []
    success: Success
    data: Data
    model: Model
    task: dict[str, TaskGroup]
    sampler: Sampler

    def composed(self, composition: Composition) -> Self:
        """The settings with what they were composed from."""
        self._composition = composition
        return self

    @property
    def composition(self) -> Composition:
        assert self._composition is not None, "settings that check() has not made"
        return self._composition

    @property
    def model_node(self) -> dict[str, Any]:
        """What the prior's loader is called with: its _target_ and arguments."""
        return {key: value for key, value in self.composition.nodes["model"].items() if key != "source"}

    @property
    def operator_node(self) -> dict[str, Any]:
        """The same for the operator; data.channels is its argument too."""
        node = self.composition.nodes["task"][self.task_group]["operator"]
        return node if self.data.channels is None else {**node, "channels": self.data.channels}

    @property
    def group(self) -> TaskGroup:
        """The hyper-parameters that `task_group` selects."""
        return self.task[self.task_group]

    @property
    def chain(self) -> MCMC:
        """The inner chain: the task group's, with what the sampler says otherwise, and the likelihood of `temperature`.

        The likelihood's standard deviation is tau / sqrt(2 likelihood_factor). A `temperature` T makes it sigma sqrt(T), with
        sigma that of the operator, in place of both keys. lr stays: the data's curvature, 2 likelihood_factor |J|^2 / tau^2
        with J the Jacobian of A(D(z)), falls by as much as the likelihood widens, and the chain slows down with it. So lr may
        rise by that ratio, while lr times the whole curvature (the prior's 1 / sigma_i^2 of the annealing included) stays
        below 2 for Langevin and 2 (1 + momentum) for HMC; else num_steps has to.
        """
        overrides: dict[str, Any] = {key: value for key, value in self.sampler.chain if value is not None}
        if self.temperature is not None:
            overrides |= {"tau": self.group.operator.sigma * self.temperature**0.5, "likelihood_factor": 0.5}
        return self.group.mcmc_sampler_config.model_copy(update=overrides)

    @property
    def data_term(self) -> Fidelity:
        """The block `fidelity`, its exposure free where data.scale says so."""
        return self.fidelity.model_copy(update={"free_scale": self.fidelity.free_scale or self.data.scale == "free"})

    @property
    def rounds(self) -> tuple[int, ...]:
        """How many particles of an image are started in each round; one round of all of a fixed population."""
        return self.sequential.rounds(self.num_samples) if self.population == "sequential" else (self.num_samples,)

    @property
    def differs(self) -> bool:
        """Whether the particles of an image differ in setting."""
        return any(entry != PortfolioEntry() for entry in self.portfolio)

    @property
    def num_children(self) -> int:
        """How many children an image has at most."""
        return self.pruning_keep * self.children

    @property
    def most_particles(self) -> int:
        """How many particles of an image are there at once, at most: in a round, or after the pruning."""
        return max(*self.rounds, self.num_children + self.pruning_keep * (self.coupling_scale > 0))

    @property
    def first_child(self) -> int:
        """The number of an image's first child: they follow the particles at the start."""
        return self.first_particle + self.num_samples

    @property
    def particles(self) -> range:
        """The numbers of every image's particles: those at the start, then their children."""
        return range(self.first_particle, self.first_child + self.num_children)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.save_dir).expanduser() / self.name

    @property
    def shard_of(self) -> tuple[int, int]:
        """(k, n) of `shard`."""
        k, n = self.shard.split("/")
        return int(k), int(n)
