"""configs/train_prior.yaml as typed values: what its keys may hold, and which of them do not go together. No torch here."""

from typing import Annotated, ClassVar, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, Field, ValidationError

from tools.demo_prior.make_demo_data import FAMILIES, SIDE
from utils.config.section import Section, refusal
from utils.config.sections import PathText
from utils.errors import InputError, one_line

HEAD_DIM = 32  # of the attention on the UNet's coarsest level
MOST_STEPS = 10_000_000  # below that, those of two seeds below 429 differ: tools/demo_prior/training.py, step_seed


def _plain_name(text: str) -> str:
    if text.startswith(".") or "/" in text or "\\" in text:
        raise ValueError("must be a plain folder name; folders above it go into work and out")
    return text


def _all_families(fractions: dict[str, float]) -> dict[str, float]:
    if fractions.keys() != FAMILIES.keys():
        raise ValueError(f"must name {' and '.join(FAMILIES)}")
    return fractions


Count = Annotated[int, Field(ge=1, le=1_000_000)]
Width = Annotated[int, Field(ge=1, le=4096)]
Steps = Annotated[int, Field(ge=1, lt=MOST_STEPS)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=10)]
Weight = Annotated[float, Field(ge=0, le=1e6)]


class Images(Section):
    """The block `data`."""

    root: PathText | None
    resolution: int = Field(ge=8, le=8192)
    held_out: float = Field(gt=0, lt=1)
    flip: bool
    rotate: bool


class Network(Section):
    channels: list[Width] = Field(min_length=1, max_length=8)
    layers_per_block: int = Field(ge=1, le=32)
    norm_num_groups: Width
    steps: Steps
    batch: Count
    ema_decay: float = Field(ge=0, lt=1)


class Autoencoder(Network):
    warmup: ClassVar[int] = 40  # steps until the full learning rate
    latent_channels: Width
    muon_lr: Rate
    adam_lr: Rate
    l1_weight: Weight
    l2_weight: Weight
    gradient_weight: Weight
    kl_weight: Weight


class UNet(Network):
    warmup: Steps
    lr: Rate
    start_from: PathText | None
    rotated_fraction: Annotated[dict[str, Share], AfterValidator(_all_families)]


class Training(Section):
    """The whole config. Field names are the keys that users write."""

    stages: list[str] | None = Field(min_length=1)
    seed: int = Field(ge=0, lt=2**32)
    device: Literal["cpu", "cuda"]
    threads: int = Field(ge=1, le=1024)
    autocast: Literal["auto", True, False]
    train_images: Count
    name: Annotated[PathText, AfterValidator(_plain_name)]
    work: PathText
    out: PathText
    save_every: Steps
    data: Images
    autoencoder: Autoencoder
    unet: UNet

    @property
    def unet_stages(self) -> tuple[str, ...]:
        return ("unet",) if self.data.root is not None else tuple(FAMILIES)

    @property
    def all_stages(self) -> tuple[str, ...]:
        return ("autoencoder", *self.unet_stages, "export", *(("quality",) if self.data.root is not None else ()))


def training_of(cfg: DictConfig) -> Training:
    """The typed values of a composed config. Raises InputError naming the first wrong key and its value."""
    try:
        nodes = OmegaConf.to_container(cfg, resolve=True)
        training = Training.model_validate(nodes)
    except OmegaConfBaseException as error:  # ${...} that leads nowhere
        raise InputError(f"{error.full_key or 'config'}: {one_line(error)}; give it a value") from None
    except ValidationError as error:
        raise refusal(error, nodes) from None
    check_relations(training)
    return training


def check_relations(s: Training) -> None:
    """Raises InputError where the configured stages, images and sizes do not go together."""
    if unknown := [stage for stage in s.stages or () if stage not in s.all_stages]:
        raise InputError(f"stages={unknown[0]}: choose from {', '.join(s.all_stages)}")
    if s.data.root is None:
        for key, value in (("resolution", SIDE), ("flip", False), ("rotate", False)):
            if (configured := getattr(s.data, key)) != value:
                raise InputError(f"data.{key}={configured}: the drawn families have {value}; give data.root=FOLDER as well")
    step = 2 ** (len(s.autoencoder.channels) - 1 + len(s.unet.channels) - 1)
    if s.data.resolution < step or s.data.resolution % step:
        raise InputError(
            f"data.resolution={s.data.resolution}: autoencoder and UNet halve it {step.bit_length() - 1} times; "
            f"use a multiple of {step}, or fewer entries in autoencoder.channels or unet.channels"
        )
    for part, network in (("autoencoder", s.autoencoder), ("unet", s.unet)):
        if any(width % network.norm_num_groups for width in network.channels):
            raise InputError(f"{part}.channels={network.channels}: use multiples of {network.norm_num_groups}")
    if s.unet.channels[-1] % HEAD_DIM:
        raise InputError(f"unet.channels={s.unet.channels}: the last one has attention; use a multiple of {HEAD_DIM}")
    if not (s.autoencoder.l1_weight or s.autoencoder.l2_weight or s.autoencoder.gradient_weight):
        raise InputError("autoencoder.l1_weight=0: with l2_weight and gradient_weight 0 too nothing is learnt; raise one")
