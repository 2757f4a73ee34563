"""The whole config as typed values."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr

from utils.config.operators import OURS, SPECTRA
from utils.config.sections import (
    DAPS,
    MCMC,
    Data,
    Fidelity,
    Model,
    Part,
    PathText,
    Sampler,
    Success,
    TaskGroup,
)
from utils.digests import Digests, of_config
from utils.measurements import OwnFrame
from utils.mechanisms.registry import PLANS
from utils.population.settings import Sequential

ONE_DEVICE = "a process has one device; torchrun --nproc-per-node=2 posterior_sample.py ... shares the images among two"


def _one_device(value: Any) -> Any:
    if isinstance(value, list) or (isinstance(value, str) and "," in value):
        raise ValueError(ONE_DEVICE)
    return value


@dataclass(frozen=True)
class Composition:
    """What was composed, beside the typed values."""

    nodes: dict[str, Any]  # the resolved config
    identity: dict[str, Any]  # the part of it that decides results
    fingerprint: str  # hash of the identity
    about: dict[str, Any]  # what every record says about the run
    documents: dict[str, str]  # what the run folder keeps, {file name: text}
    notes: tuple[str, ...] = ()  # what the log says of it
    below: "Settings | None" = None  # of the coarser level at which the image is solved first


class Settings(*(plan.Keys for plan in PLANS)):  # type: ignore[misc]  # the mechanisms' own keys
    """The whole config, as typed and checked values. Field names are the keys that users write."""

    _composition: Composition | None = PrivateAttr(None)

    num_samples: int = Field(ge=1, le=100_000)
    first_particle: int = Field(ge=0, lt=2**31)
    population: Literal["fixed", "sequential"] = "fixed"
    task_group: str
    seed: int = Field(ge=0, lt=2**32)
    temperature: float | None = Field(default=None, gt=0)  # the likelihood's variance over that of the noise
    use_tpu: bool
    gpu: Annotated[int, Field(ge=-1), BeforeValidator(_one_device)]
    num_cores: int | None = Field(ge=1)
    workers: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    batch_images: Annotated[int, Field(ge=1)] | Literal["auto"]
    max_particles_per_pass: int | None = Field(ge=1)
    precision: Literal["fp32", "tf32", "bf16"]
    compile: bool
    gradient_checkpointing: bool
    chain_check: bool | Literal["auto"] = "auto"
    shard: str
    save_arrays: list[Literal["npy", "tiff", "cxi"]] = []
    save_dir: PathText
    name: PathText
    resume: bool
    sequential: Sequential = Sequential()
    fidelity: Fidelity = Fidelity()
    mechanisms: dict[str, Part] = {}  # of one's own, as are the next two
    metrics: dict[str, Part] = {}
    callbacks: dict[str, Part] = {}
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
    def below(self) -> "Settings | None":
        """The settings of the coarser level at which this run solves its image first; None: it begins here."""
        return self._composition.below if self._composition else None

    @property
    def pixel(self) -> float:
        """The side of an image's pixel in pixels of the object: above 1 at a coarse level."""
        return self.data.resolution / self.model.resolution

    @property
    def composition(self) -> Composition:
        assert self._composition is not None, "settings that check() has not made"
        return self._composition

    def digests(self) -> Digests:
        """What the run is made of beside its config, as it is on disk now: weights, and modules of one's own."""
        nodes = self.composition.nodes
        named = {key: value for key, value in self.composition.identity.items() if key != "data"}  # records know their images
        digests = of_config({**named, "model": nodes["model"], "metrics": nodes.get("metrics", {})})
        level = self.below
        while level is not None:
            of_level = of_config({"model": level.composition.nodes["model"]})
            digests |= {f"{key} of {level.model.resolution} pixels": digest for key, digest in of_level.items()}
            level = level.below
        return digests

    @property
    def anneals(self) -> bool:
        """Whether the algorithm is LatentDAPS or one made of it, with an annealing, a chain and mechanisms."""
        return isinstance(self.sampler, Sampler)

    @property
    def algorithm_node(self) -> dict[str, Any]:
        """The arguments of an algorithm that is not LatentDAPS."""
        return {key: value for key, value in self.composition.nodes["sampler"].items() if key != "_target_"}

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
    def measured_shape(self) -> tuple[int, ...] | None:
        """Of what the task measures of an image, before torch; None where only the operator or a detector's frame knows it."""
        return None if self.data.kind == "measurement" and self.group.operator.target in SPECTRA else self._own_shape

    @property
    def _own_shape(self) -> tuple[int, ...] | None:
        operator = self.group.operator
        if operator.target not in OURS:
            return None
        return OURS[operator.target].model_validate(operator.arguments).measured_shape(self.data.resolution)

    @property
    def own_frame(self) -> OwnFrame | None:
        """Of a task that measures a spectrum by an operator of ours; else None."""
        shape = self._own_shape if self.group.operator.target in SPECTRA else None
        return None if shape is None else OwnFrame((shape[-2], shape[-1]), self.data.resolution)

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

        At a coarse level the noise is smaller by `pixel`, and lr and tau are with it.
        """
        overrides: dict[str, Any] = {key: value for key, value in self.sampler.chain if value is not None}
        if self.temperature is not None:
            overrides |= {"tau": self.group.operator.sigma * self.temperature**0.5, "likelihood_factor": 0.5}
        chain = self.group.mcmc_sampler_config.model_copy(update=overrides)
        if self.pixel == 1:
            return chain
        return chain.model_copy(update={"lr": chain.lr / self.pixel, "tau": chain.tau / self.pixel})

    @property
    def data_term(self) -> Fidelity:
        """The block `fidelity`, its exposure free where data.scale says so."""
        return self.fidelity.model_copy(update={"free_scale": self.fidelity.free_scale or self.data.scale == "free"})

    @property
    def kept_background(self) -> float:
        """Of the background, counts per pixel that stay in y, because the likelihood of counts has them; else 0."""
        counted = self.data.quantity == "counts" and self.fidelity.photons is not None
        return self.fidelity.background if counted else 0.0

    @property
    def rounds(self) -> tuple[int, ...]:
        """How many particles of an image are started in each round; one round of all of a fixed population."""
        return self.sequential.rounds(self.num_samples) if self.population == "sequential" else (self.num_samples,)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.save_dir).expanduser() / self.name

    @property
    def shard_of(self) -> tuple[int, int]:
        """(k, n) of `shard`."""
        k, n = self.shard.split("/")
        return int(k), int(n)


class OtherSettings(Settings):
    """Those of a run with an algorithm that is not LatentDAPS."""

    sampler: Part  # type: ignore[assignment]


def settings_of(nodes: dict[str, Any]) -> Settings:
    """A composed config as typed values. Raises pydantic's ValidationError."""
    block = nodes.get("sampler")
    other = isinstance(block, dict) and block.get("_target_", DAPS) != DAPS and "annealing_scheduler_config" not in block
    return (OtherSettings if other else Settings).model_validate(nodes)
