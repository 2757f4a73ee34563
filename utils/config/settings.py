"""The whole config as typed values; what single keys may hold."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, PlainValidator, PrivateAttr

from utils.config.population import Sequential
from utils.config.section import Section
from utils.errors import short
from utils.formats import CXI_DATA
from utils.measurements import WORDS, Mask
from utils.sampling.vocabulary import SIMILARITIES

TAU_MIN = 1e-9  # its square is still far from float32's smallest number


def _possible_path(text: str) -> str:
    if any(ord(c) < 32 for c in text):
        raise ValueError("has control characters, which no file name should have")
    if any(len(part.encode(errors="surrogatepass")) > 255 for part in text.split("/")) or len(text) > 3000:
        raise ValueError("is too long for a file name")
    try:
        text.encode()
        Path(text).expanduser()
    except (UnicodeError, RuntimeError) as error:  # a lone surrogate, or the home of an unknown user
        raise ValueError(f"is no path ({error})") from None
    return text


def _similarity(name: str) -> str:
    if name not in SIMILARITIES and not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name):
        raise ValueError(f"is none of {', '.join(SIMILARITIES)}, and no module.function of your own")
    return name


def nan_as_word(value: Any) -> Any:
    """YAML's and Hydra's number NaN, also within a list, as the word "nan": it equals itself."""
    if isinstance(value, list):
        return [nan_as_word(inner) for inner in value]
    return "nan" if isinstance(value, float) and value != value else value


def _mask(value: Any) -> Mask:
    value = nan_as_word(value)
    values = value if isinstance(value, list) and value else [value]
    for each in values:
        number = isinstance(each, (int, float)) and not isinstance(each, bool) and abs(each) < float("inf")
        file = isinstance(each, str) and each and not isinstance(value, list)
        if not (number or each in WORDS or file or value is None):
            raise ValueError(f"{short(each)} marks nothing; write a mask file, nan, max, or values such as [0,-1,max]")
    return _possible_path(value) if isinstance(value, str) else value


PathText = Annotated[str, Field(min_length=1), AfterValidator(_possible_path)]


class Data(Section):
    root: PathText
    kind: Literal["images", "measurement"]  # measurement: y from files, no truth
    resolution: int = Field(ge=8)
    start_id: int = Field(ge=0)
    end_id: int | None = Field(ge=1)
    source: str
    # how the numbers of measurements are meant: utils.measurements.Convention
    dataset: Annotated[str, Field(min_length=1)] = CXI_DATA
    mask_dataset: Annotated[str, Field(min_length=1)] | None = None
    quantity: Literal["magnitude", "intensity", "counts"] = "magnitude"
    gain: float | None = Field(default=None, gt=0)
    center: Literal["shifted", "corner"] = "shifted"
    norm: Literal["ortho", "none"] = "ortho"
    channels: Literal[1] | None = None
    mask: Annotated[Any, PlainValidator(_mask)] = None  # utils.measurements.Mask
    scale: Literal["known", "free"] = "known"

    def unusual(self) -> dict[str, Any]:
        """{key: value} of those that a config may leave out and that are not at their defaults."""
        optional = {name: field.default for name, field in type(self).model_fields.items() if not field.is_required()}
        return {name: getattr(self, name) for name, default in optional.items() if getattr(self, name) != default}


class Model(Section):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
    target: str = Field(alias="_target_")  # which keys our loaders take: utils/config/model.py
    path: PathText
    timestep_map: Literal["trained", "official"] = "trained"
    resolution: int = Field(ge=8)
    source: str = "its source"  # where to get `path`, for messages
    weights: Literal["raw", "ema"] = "raw"  # of an original checkpoint file
    class_label: int | None = None  # of a class-conditional model
    prompt: str | None = None  # Stable Diffusion, this and the next three
    guidance_scale: float | None = Field(default=None, ge=0)
    inner_resolution: int | None = Field(default=None, ge=8)
    network_dtype: Literal["float32", "float16", "bfloat16"] = "float32"


class Annealing(Section):
    num_steps: int = Field(ge=1)
    sigma_max: float = Field(gt=0)
    sigma_min: float = Field(gt=0)


class Diffusion(Section):
    num_steps: int = Field(ge=1)
    sigma_min: float = Field(gt=0)
    final_sigma: float = Field(default=0.0, ge=0)  # of one more denoiser call, on the final latents; 0: none


class ChainOverride(Section):
    """What a sampler says about the inner chain over the head of the task group; None leaves it to the group."""

    mc_algo: Literal["langevin", "hmc"] | None
    num_steps: int | None = Field(ge=1)
    momentum: float | None = Field(ge=0, lt=1)
    keep_velocity: bool | None


class Sampler(Section):
    annealing_scheduler_config: Annealing
    diffusion_scheduler_config: Diffusion
    chain: ChainOverride


class Operator(Section):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
    target: str = Field(alias="_target_")  # its arguments: utils/config/operators.py
    sigma: float = Field(ge=0)


class MCMC(Section):
    mc_algo: Literal["langevin", "hmc"]
    num_steps: int = Field(ge=1)
    lr: float = Field(gt=0)
    lr_min_ratio: float = Field(ge=0)
    tau: float = Field(ge=TAU_MIN)
    momentum: float = Field(ge=0, lt=1)
    keep_velocity: bool = False  # of HMC: the velocity goes on from one annealing step to the next
    likelihood_factor: float = Field(gt=0)
    gradient_clip: float = Field(gt=0)


class TaskGroup(Section):
    operator: Operator
    mcmc_sampler_config: MCMC


class Repulsion(Section):
    decay: Literal["constant", "linear", "quadratic", "cosine"]
    end_step: int = Field(ge=0, le=1000)
    bandwidth: Literal["median"] | Annotated[float, Field(gt=0)]
    place: Literal["drift", "chain"]
    similarity: Annotated[str, AfterValidator(_similarity)]


class Pruning(Section):
    near_distance: float = Field(ge=0)
    loss_tolerance: float = Field(ge=0)
    fill: Literal["next_best", "clone", "drop"]


class Tree(Section):
    branch_sigma: float | None = Field(gt=0)


class Optimization(Section):
    every: int = Field(ge=1)
    max_iterations: int = Field(ge=1)
    lr: float = Field(gt=0)
    stop_factor: float = Field(ge=0)
    max_move: float = Field(gt=0)
    parametrization: Literal["free", "residual"] = "free"
    bound: float = Field(default=0.2, ge=0)
    warmup: int = Field(default=0, ge=0)


class Recombination(Section):
    every: int = Field(ge=1)
    excess: float = Field(ge=0)
    deviation: float = Field(ge=0)
    turns: bool
    donors: bool
    choice: Literal["prior", "correlation"]
    sigmas: list[Annotated[float, Field(gt=0)]] = Field(min_length=1)


class Fidelity(Section):
    """Weights of the data term's terms, and what they need: operators/fidelity.py."""

    gaussian: float = Field(default=1.0, ge=0)
    poisson: float = Field(default=0.0, ge=0)
    amplitude: float = Field(default=0.0, ge=0)
    silog: float = Field(default=0.0, ge=0)
    ssi: float = Field(default=0.0, ge=0)
    gradient: float = Field(default=0.0, ge=0)
    free_scale: bool = False
    photons: float | None = Field(default=None, gt=0)
    background: float = Field(default=0.1, gt=0)

    @property
    def weights(self) -> dict[str, float]:
        """{term: weight} of those that count."""
        options = ("free_scale", "photons", "background")
        return {name: value for name, value in self if name not in options and value}

    @property
    def is_default(self) -> bool:
        """Whether the data term is the operator's own."""
        return self.weights == {"gaussian": 1.0} and not self.free_scale


class Selection(Section):
    rule: Literal["loss", "free_loss"]


class OwnMechanism(Section):
    """One of your own: its class, and the arguments that it takes beside the clock."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
    target: str = Field(alias="_target_")


class PortfolioEntry(Section):
    """How one particle differs from the run's own settings: utils/sampling/portfolio.py."""

    lr: float = Field(default=1.0, gt=0)
    tau: float = Field(default=1.0, gt=0)
    spacing: float = Field(default=1.0, gt=0)
    lowpass: float | None = Field(default=None, gt=0, lt=1)
    lowpass_until: int | None = Field(default=None, ge=0, lt=1000)


class Success(Section):
    threshold_db: float
    margin_db: float = Field(ge=0)


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
