"""What each forward operator accepts, checked before torch is imported. An operator of your own may take anything."""

from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field, ValidationError

from utils.config.section import Section, refusal
from utils.errors import InputError
from utils.paths import find

MOST_SAMPLES = 2**14  # a side of a spectrum: 3 GB for three channels


class Arguments(Section):
    sigma: float = Field(ge=0)

    def measured_shape(self, side: int) -> tuple[int, ...] | None:
        """Of the measurement of an image of `side` pixels; None where only the operator itself knows it."""
        return 3, side, side

    def check(self, side: int) -> None:
        """Raises ValueError for arguments that do not go together, or with images of `side` pixels."""


class PhaseRetrieval(Arguments):
    oversample: float = Field(gt=0)
    channels: Literal[1, 3] = 3

    def measured_shape(self, side: int) -> tuple[int, ...]:
        samples = side + 2 * int(self.oversample / 8 * side)
        return self.channels, samples, samples

    def check(self, side: int) -> None:
        samples = self.measured_shape(side)[-1]
        if samples > MOST_SAMPLES:
            raise ValueError(
                f"oversample={self.oversample}: asks for {samples} samples a side of the spectrum; the most are {MOST_SAMPLES}"
            )


class SuperResolution(Arguments):
    resolution: int
    scale_factor: int = Field(ge=2)

    def measured_shape(self, side: int) -> tuple[int, ...]:
        reduced = -(-side // self.scale_factor)
        return 3, reduced, reduced

    def check(self, side: int) -> None:
        if self.scale_factor > side:
            raise ValueError(f"scale_factor={self.scale_factor}: must not exceed the resolution {side}")


class Inpainting(Arguments):
    resolution: int
    mask_type: Literal["box", "random"]
    mask_len_range: list[int] | None = Field(default=None, min_length=2, max_length=2)
    mask_prob_range: list[float] | None = Field(default=None, min_length=2, max_length=2)
    margin: int = Field(default=32, ge=0)
    seed: int = Field(ge=0, lt=2**32)

    def check(self, side: int) -> None:
        if self.mask_type == "random":
            low, high = self.mask_prob_range or (0, 0)
            if not 0 <= low < high <= 1:
                raise ValueError(f"mask_prob_range={self.mask_prob_range}: write [low, high] with 0 <= low < high <= 1")
            return
        low, high = self.mask_len_range or (0, 0)
        room = side - 2 * self.margin
        if not 1 <= low < high <= room + 1:
            raise ValueError(
                f"mask_len_range={self.mask_len_range}: write [low, high) with 1 <= low < high <= {room + 1} "
                f"(resolution {side}, margin {self.margin})"
            )


class Blur(Arguments):
    kernel_size: int = Field(ge=3)
    intensity: float = Field(gt=0, le=1000)  # pixels

    def check(self, side: int) -> None:
        if self.kernel_size % 2 == 0 or self.kernel_size // 2 >= side:
            raise ValueError(f"kernel_size={self.kernel_size}: must be odd and below {2 * side} for images of {side} pixels")


class MotionBlur(Blur):
    kernel_size: int = Field(ge=9)
    intensity: float = Field(ge=0, le=1)
    seed: int = Field(ge=0, lt=2**32)


class HighDynamicRange(Arguments):
    scale: float = Field(gt=0)


class NonlinearBlur(Arguments):
    resolution: int
    weights: str
    seed: int = Field(ge=0, lt=2**32)

    def check(self, side: int) -> None:
        if side % 128:
            raise ValueError(f"resolution={side}: the nonlinear blur takes multiples of 128")
        if not find(self.weights).is_file():
            raise ValueError(
                f"weights={self.weights}: file {find(self.weights)} not found; get GOPRO_wVAE.pth from the "
                "README of VinAIResearch/blur-kernel-space-exploring (Google Drive)"
            )


class DeepinvPhysics(Arguments):
    physics: dict

    def measured_shape(self, side: int) -> None:
        return None

    def check(self, side: int) -> None:
        if find_spec("deepinv") is None:
            raise ValueError("physics: needs the package deepinv; install it with pip install -e '.[deepinv]'")
        if not str(self.physics.get("_target_", "")).startswith("deepinv."):
            raise ValueError("physics._target_: name a class of deepinv, for example deepinv.physics.Inpainting")
        noise = self.physics.get("noise_model") or {}
        kind = str(noise.get("_target_", "")).rpartition(".")[2] if isinstance(noise, dict) else str(noise)
        if kind not in ("", "ZeroNoise") and not (kind == "GaussianNoise" and noise.get("sigma") == self.sigma):
            raise ValueError(
                f"physics.noise_model={kind}: here the noise is Gaussian of standard deviation sigma={self.sigma}; "
                "leave noise_model out"
            )


OURS: dict[str, type[Arguments]] = {
    "operators.phase_retrieval.PhaseRetrieval": PhaseRetrieval,
    "operators.super_resolution.SuperResolution": SuperResolution,
    "operators.inpainting.Inpainting": Inpainting,
    "operators.blur.GaussianBlur": Blur,
    "operators.blur.MotionBlur": MotionBlur,
    "operators.hdr.HighDynamicRange": HighDynamicRange,
    "operators.nonlinear_blur.NonlinearBlur": NonlinearBlur,
    "operators.deepinv_adapter.DeepinvPhysics": DeepinvPhysics,
}


# those whose loss is a sum over channels (operators.base.Operator.separable)
SEPARABLE = tuple(name for name in OURS if name.rpartition(".")[2] not in ("NonlinearBlur", "DeepinvPhysics"))

# those that have a transpose (operators.base.Operator.linear)
LINEAR = tuple(
    name for name in OURS if name.rpartition(".")[2] in ("SuperResolution", "Inpainting", "GaussianBlur", "MotionBlur")
)

# those that measure a spectrum (operators.base.Operator.spectrum)
SPECTRA = ("operators.phase_retrieval.PhaseRetrieval",)


def check_operator(key: str, target: str, arguments: dict[str, Any], resolution: int) -> None:
    """Raises InputError for a wrong argument of one of our operators.

    key: where the operator stands in the config; arguments: dict without `_target_`; resolution: of the images.
    """
    if target not in OURS:
        if target.startswith("operators.") and find_spec(".".join(target.split(".")[:2])) is None:
            raise InputError(f"{key}._target_={target}: no such operator; ours are {', '.join(OURS)}")
        return
    try:
        checked = OURS[target].model_validate(arguments)
    except ValidationError as error:
        raise refusal(error, arguments, key) from None
    configured = getattr(checked, "resolution", resolution)
    if configured != resolution:
        raise InputError(
            f"{key}.resolution={configured}: the images have {resolution} pixels; leave it at ${{data.resolution}}"
        )
    try:
        checked.check(resolution)
    except ValueError as error:
        raise InputError(f"{key}.{error}") from None
