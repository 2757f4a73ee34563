"""The blocks of the config as typed values; what single keys may hold."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError

from utils.config.section import LARGEST_SIDE, MOST_STEPS, Section
from utils.errors import STEERING
from utils.formats import CXI_DATA
from utils.sampling.schedule import annealing_sigmas

LARGEST_FRAME = 2**16  # pixels a side
TAU_MIN = 1e-9  # its square is still far from float32's smallest number


def _possible_path(text: str) -> str:
    if STEERING.search(text):
        raise ValueError("has control or bidirectional characters, which no file name should have")
    if any(len(part.encode(errors="surrogatepass")) > 255 for part in text.split("/")) or len(text) > 3000:
        raise ValueError("is too long for a file name")
    try:
        text.encode()
        Path(text).expanduser()
    except (UnicodeError, RuntimeError) as error:  # a lone surrogate, or the home of an unknown user
        raise ValueError(f"is no path ({error})") from None
    return text


def nan_as_word(value: Any) -> Any:
    """YAML's and Hydra's number NaN, also within a list, as the word "nan": it equals itself."""
    if isinstance(value, list):
        return [nan_as_word(inner) for inner in value]
    return "nan" if isinstance(value, float) and value != value else value


def _written(kind: Any, words: str) -> PlainValidator:
    """A value of a kind; the error for any other says in words what may be written."""
    values: TypeAdapter[Any] = TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False))

    def checked(value: Any) -> Any:
        try:
            return values.validate_python(value)
        except ValidationError as error:
            reasons = [each["msg"] for each in error.errors() if each["type"] == "value_error"]  # of a path
            raise ValueError(reasons[0].removeprefix("Value error, ") if reasons else f"write {words}") from None

    return PlainValidator(checked)


def _number_as_text(value: Any) -> Any:
    """A name may be a number, as of name=${seed}."""
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


PlainPath = Annotated[str, Field(min_length=1), AfterValidator(_possible_path)]
PathText = Annotated[PlainPath, BeforeValidator(_number_as_text)]
Side = Annotated[int, Field(ge=1, le=LARGEST_FRAME)]
Sides = Annotated[list[Side], Field(min_length=2, max_length=2)]
Pixel = Annotated[list[Annotated[float, Field(ge=0, le=LARGEST_FRAME)]], Field(min_length=2, max_length=2)]
Mark = int | float | Literal["nan", "max"]
Marks = Annotated[list[Mark], Field(min_length=1)]

Center = _written(Literal["shifted", "corner", "auto"] | Pixel, "shifted, corner, auto, or [row, column] in pixels from 0")
Mask = _written(Mark | Marks | PlainPath | None, "a mask file, nan, max, or values such as [0,-1,max]")
Support = _written(Side | Sides | PlainPath | None, "a side in pixels, [rows, columns], a mask file, auto, or null")
Frame = _written(Annotated[int, Field(ge=0)] | Literal["sum", "all"] | None, "the number of a frame from 0, sum, all, or null")
Crop = _written(Side | Sides | None, "[rows, columns] in pixels, one number for both, or null")
Background = _written(float | PlainPath | None, "a number, a file, auto, or null")


class Data(Section):
    of_any_size = ("mask",)  # what a detector writes where it measures nothing

    root: PathText
    kind: Literal["images", "measurement"]  # measurement: y from files, no truth
    resolution: int = Field(ge=8, le=LARGEST_SIDE)
    start_id: int = Field(ge=0)
    end_id: int | None = Field(ge=1)
    source: str
    # how the numbers of measurements are meant: utils.conventions.Convention
    dataset: Annotated[str, Field(min_length=1)] = CXI_DATA
    mask_dataset: Annotated[str, Field(min_length=1)] | None = None
    quantity: Literal["magnitude", "intensity", "counts"] = "magnitude"
    gain: float | None = Field(default=None, gt=0)
    center: Annotated[Any, Center] = "shifted"
    norm: Literal["ortho", "none"] = "ortho"
    channels: Literal[1] | None = None
    mask: Annotated[Any, Mask, BeforeValidator(nan_as_word)] = None
    scale: Literal["known", "free"] = "known"
    support: Annotated[Any, Support] = None
    linked_folders: list[PathText] = []
    frame: Annotated[Any, Frame] = None
    crop: Annotated[Any, Crop] = None
    bin: int = Field(default=1, ge=1, le=LARGEST_SIDE)
    background: Annotated[Any, Background] = None
    transpose: bool = False

    def unusual(self) -> dict[str, Any]:
        """{key: value} of those that a config may leave out and that are not at their defaults."""
        optional = {name: field.default for name, field in type(self).model_fields.items() if not field.is_required()}
        return {name: getattr(self, name) for name, default in optional.items() if getattr(self, name) != default}


class Part(Section):
    """A class, `_target_`, and the arguments that it takes."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
    target: str = Field(alias="_target_")

    @property
    def arguments(self) -> dict[str, Any]:
        return self.model_dump(exclude={"target"})


class Model(Part):
    """Which keys our loaders take: utils/config/model.py."""

    path: PathText
    timestep_map: Literal["trained", "official"] = "trained"
    resolution: int = Field(ge=8, le=LARGEST_SIDE)
    source: str = "its source"  # where to get `path`, for messages
    scaling_factor: float | None = Field(default=None, gt=0)  # this and the next where the folder does not say it
    prediction_type: Literal["epsilon", "v_prediction"] | None = None
    weights: Literal["raw", "ema"] = "raw"  # of an original checkpoint file
    class_label: int | None = None  # of a class-conditional model
    prompt: str | None = None  # Stable Diffusion, this and the next three
    guidance_scale: float | None = Field(default=None, ge=0)
    inner_resolution: int | None = Field(default=None, ge=8, le=LARGEST_SIDE)
    network_dtype: Literal["float32", "float16", "bfloat16"] = "float32"


class Annealing(Section):
    num_steps: int = Field(ge=1, le=MOST_STEPS)
    sigma_max: float = Field(gt=0)
    sigma_min: float = Field(gt=0)


class Diffusion(Section):
    num_steps: int = Field(ge=1, le=MOST_STEPS)
    sigma_min: float = Field(gt=0)
    final_sigma: float = Field(default=0.0, ge=0)  # of one more denoiser call, on the final latents; 0: none


class ChainOverride(Section):
    """What a sampler says about the inner chain over the head of the task group; None leaves it to the group."""

    mc_algo: Literal["langevin", "hmc"] | None
    num_steps: int | None = Field(ge=1, le=MOST_STEPS)
    momentum: float | None = Field(ge=0, lt=1)
    keep_velocity: bool | None


DAPS = "sampler.LatentDAPS"


class Sampler(Section):
    """Of LatentDAPS, the algorithm where `_target_` names no other, or of one made of it."""

    target: str = Field(default=DAPS, alias="_target_")
    annealing_scheduler_config: Annealing
    diffusion_scheduler_config: Diffusion
    chain: ChainOverride

    @property
    def annealing_sigmas(self) -> list[float]:
        """Noise levels of the annealing steps, and 0."""
        grid = self.annealing_scheduler_config
        return annealing_sigmas(grid.num_steps, grid.sigma_max, grid.sigma_min)


class Operator(Part):
    """Its arguments: utils/config/operators.py."""

    sigma: float = Field(ge=0)


class MCMC(Section):
    mc_algo: Literal["langevin", "hmc"]
    num_steps: int = Field(ge=1, le=MOST_STEPS)
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


class OwnTerm(Part):
    """A term of one's own: its class, its weight, and the arguments that it takes beside sigma."""

    weight: float = Field(default=1.0, ge=0)

    @property
    def node(self) -> dict[str, Any]:
        """What its class is called with."""
        return {"_target_": self.target, **(self.model_extra or {})}


class Fidelity(Section):
    """Weights of the data term's terms, and what they need: operators/fidelity.py."""

    gaussian: float = Field(default=1.0, ge=0)
    poisson: float = Field(default=0.0, ge=0)
    amplitude: float = Field(default=0.0, ge=0)
    free_scale: bool = False
    photons: float | None = Field(default=None, gt=0)
    background: float = Field(default=0.1, gt=0)
    terms: dict[str, OwnTerm] = {}

    @property
    def weights(self) -> dict[str, float]:
        """{term: weight} of those that count, the built-in ones first."""
        weights = {"gaussian": self.gaussian, "poisson": self.poisson, "amplitude": self.amplitude}
        weights |= {name: term.weight for name, term in self.terms.items()}
        return {name: weight for name, weight in weights.items() if weight}

    @property
    def is_default(self) -> bool:
        """Whether the data term is the operator's own."""
        return self.weights == {"gaussian": 1.0} and not self.free_scale


class Success(Section):
    threshold_db: float
    margin_db: float = Field(ge=0)
