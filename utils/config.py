"""Checks the composed config before anything heavy is imported or anything on disk is touched."""
import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

PROJECT = Path(__file__).resolve().parents[1]
# what may differ between runs whose records belong together
NOT_IN_FINGERPRINT = ("gpu", "num_cores", "shard", "batch_images", "max_particles_per_pass", "compile",
                      "gradient_checkpointing", "save_dir", "name", "resume")


SIMILARITIES = ("latent", "image", "rotation")  # what the repulsion compares particles on: utils/repulsion.py


class InputError(Exception):
    """Wrong input: one line saying what was wrong, with which value, and what to do. The program exits with 2."""


def _possible_path(text):
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


def _similarity(name):
    if name not in SIMILARITIES and not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name):
        raise ValueError(f"is none of {', '.join(SIMILARITIES)}, and no module.function of your own")
    return name


PathText = Annotated[str, Field(min_length=1), AfterValidator(_possible_path)]


class Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Data(Section):
    root: PathText
    kind: Literal["images", "measurement"]  # measurement: y from .npy files, no truth
    resolution: int = Field(ge=8)
    start_id: int = Field(ge=0)
    end_id: int | None = Field(ge=1)
    source: str


class Model(Section):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
    target: str = Field(alias="_target_")  # which keys our loaders take: utils/checkpoints.py
    path: PathText
    timestep_map: Literal["trained", "official"] = "trained"
    resolution: int = Field(ge=8)
    source: str = "its source"                              # where to get `path`, for messages
    weights: Literal["raw", "ema"] = "raw"                  # of an original checkpoint file
    class_label: int | None = None                          # of a class-conditional model
    prompt: str | None = None                               # Stable Diffusion, this and the next three
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
    target: str = Field(alias="_target_")  # its arguments: utils/config_operators.py
    sigma: float = Field(ge=0)


class MCMC(Section):
    mc_algo: Literal["langevin", "hmc"]
    num_steps: int = Field(ge=1)
    lr: float = Field(gt=0)
    lr_min_ratio: float = Field(ge=0)
    tau: float = Field(gt=0)
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


class Optimization(Section):
    every: int = Field(ge=1)
    max_iterations: int = Field(ge=1)
    lr: float = Field(gt=0)
    stop_factor: float = Field(ge=0)
    max_move: float = Field(gt=0)


class Success(Section):
    threshold_db: float
    margin_db: float = Field(ge=0)


class Settings(Section):
    """The whole config, as typed and checked values. Field names are the keys that users write."""
    num_samples: int = Field(ge=1)
    first_particle: int = Field(ge=0, lt=2 ** 31)
    task_group: str
    seed: int = Field(ge=0, lt=2 ** 32)
    step_clock: Literal["progress", "noise"]
    repulsion_scale: float = Field(ge=0)
    pruning_step: int = Field(ge=-1, le=1000)
    pruning_keep: int = Field(ge=1)
    optimization_step: int = Field(ge=-1, le=1000)
    use_tpu: bool
    gpu: int = Field(ge=-1)
    num_cores: int | None = Field(ge=1)
    batch_images: Annotated[int, Field(ge=1)] | Literal["auto"]
    max_particles_per_pass: int | None = Field(ge=1)
    precision: Literal["fp32", "tf32", "bf16"]
    compile: bool
    gradient_checkpointing: bool
    shard: str
    save_dir: PathText
    name: PathText
    resume: bool
    repulsion: Repulsion
    pruning: Pruning
    optimization: Optimization
    success: Success
    data: Data
    model: Model
    task: dict[str, TaskGroup]
    sampler: Sampler

    @property
    def group(self):
        """The hyper-parameters that `task_group` selects."""
        return self.task[self.task_group]

    @property
    def chain(self):
        """The inner chain: the task group's, with what the sampler says otherwise."""
        overrides = {key: value for key, value in self.sampler.chain if value is not None}
        return self.group.mcmc_sampler_config.model_copy(update=overrides)

    @property
    def particles(self):
        """The indices of every image's particles at the start."""
        return range(self.first_particle, self.first_particle + self.num_samples)

    @property
    def folder(self):
        """The run folder."""
        return Path(self.save_dir) / self.name

    @property
    def shard_of(self):
        """(k, n) of `shard`."""
        k, n = self.shard.split("/")
        return int(k), int(n)


def check(cfg):
    """Typed settings of a composed config. Raises InputError naming the first wrong key and its value."""
    try:
        missing = sorted(OmegaConf.missing_keys(cfg))
        if missing:
            raise InputError(f"{missing[0]}: give it a value, for example {missing[0]}=...")
        settings = Settings.model_validate(OmegaConf.to_container(cfg, resolve=True))
    except OmegaConfBaseException as error:  # ${...} that leads nowhere
        raise InputError(f"{error.full_key or 'config'}: {str(error).splitlines()[0]}; give it a value") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = _key(first["loc"], cfg)
        value = "" if first["type"] == "missing" else f"={short(first['input'])}"
        raise InputError(f"{key}{value}: {first['msg'][0].lower()}{first['msg'][1:]}") from None
    _check_relations(settings)
    return settings


def _key(location, cfg):
    """The dotted key of a pydantic error, without the name of the alternative that pydantic appends at a union."""
    key, node = [], cfg
    for part in location:
        key.append(str(part))
        node = node.get(part) if OmegaConf.is_dict(node) else None
        if not OmegaConf.is_config(node):
            break
    return ".".join(key)


def short(value):
    """One line of at most 80 characters."""
    text = str(value).encode("unicode_escape").decode() if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _check_relations(s):
    if s.task_group not in s.task:
        raise InputError(f"task_group={short(s.task_group)}: this task has the groups {', '.join(s.task)}")
    if s.num_cores is not None and not s.use_tpu:
        raise InputError(f"num_cores={s.num_cores}: only use_tpu=true runs on several cores; on GPUs use shard=k/n")
    _check_speed(s)
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", s.shard)
    if not match or int(match[1]) >= int(match[2]):
        raise InputError(f"shard={short(s.shard)}: write k/n with k from 0 to n-1, for example shard=0/8")
    if not s.resume and int(match[2]) > 1:
        raise InputError(f"resume=false: with shard={s.shard} it would set aside what the other shards write; "
                         "choose another name=, or rename the old folder once")
    if s.name in (".", "..") or "/" in s.name or "\\" in s.name:
        raise InputError(f"name={s.name}: must be a plain folder name; folders above it go into save_dir")
    annealing, diffusion = s.sampler.annealing_scheduler_config, s.sampler.diffusion_scheduler_config
    if annealing.sigma_min >= annealing.sigma_max:
        raise InputError(f"sampler.annealing_scheduler_config.sigma_min={annealing.sigma_min}: "
                         f"must lie below sigma_max={annealing.sigma_max}")
    if s.chain.keep_velocity and s.chain.mc_algo != "hmc":
        raise InputError(f"keep_velocity=true: mc_algo={s.chain.mc_algo} has no velocity; choose mc_algo=hmc")
    if diffusion.sigma_min >= annealing.sigma_min:
        raise InputError(f"sampler.diffusion_scheduler_config.sigma_min={diffusion.sigma_min}: must lie below "
                         f"sampler.annealing_scheduler_config.sigma_min={annealing.sigma_min}")
    if s.data.end_id is not None and s.data.end_id <= s.data.start_id:
        raise InputError(f"data.end_id={s.data.end_id}: must lie above data.start_id={s.data.start_id} (it is exclusive)")
    if s.data.resolution != s.model.resolution:
        raise InputError(f"data.resolution={s.data.resolution}: the prior takes images of {s.model.resolution} pixels")
    if s.pruning_step >= 0 and s.num_samples < 2:
        raise InputError(f"pruning_step={s.pruning_step}: there is nothing to prune with num_samples={s.num_samples}")
    if s.pruning_step >= 0 and s.pruning_keep > s.num_samples:
        raise InputError(f"pruning_keep={s.pruning_keep}: must not exceed num_samples={s.num_samples}")
    if s.step_clock == "progress":
        _check_switches(s, annealing.num_steps)
    from utils.checkpoints import check_model
    from utils.config_operators import check_operator

    operator = s.group.operator
    check_operator(f"task.{s.task_group}.operator", operator.target, operator.model_dump(exclude={"target"}),
                   s.data.resolution)
    check_model(s.model)


def _check_speed(s):
    if s.precision == "tf32" and (s.use_tpu or s.gpu < 0):
        raise InputError(f"precision=tf32: only CUDA devices have it, and {'use_tpu=true' if s.use_tpu else f'gpu={s.gpu}'} "
                         "asks for another one; use precision=fp32 or bf16")
    if s.precision == "bf16" and s.model.network_dtype != "float32":
        raise InputError(f"precision=bf16: model.network_dtype={s.model.network_dtype} says otherwise; give one of the two")
    if s.compile and s.use_tpu:
        raise InputError("compile=true: XLA compiles by itself; leave it out with use_tpu=true")
    if s.gradient_checkpointing and s.use_tpu:
        raise InputError("gradient_checkpointing=true: torch's checkpointing does not know XLA devices; leave it out with "
                         "use_tpu=true and bound the memory with max_particles_per_pass")


def _check_switches(s, num_steps):
    """Under the progress clock an event's step is known from the numbers alone (the noise clock: utils/build.py)."""
    for key, switch in (("pruning_step", s.pruning_step), ("optimization_step", s.optimization_step)):
        if 0 <= switch * num_steps < 1000:
            raise InputError(f"{key}={switch}: the last of {num_steps} annealing steps is at t = {1000 / num_steps:g}, "
                             "so this never happens; choose a larger timestep, or -1 for off")
        if switch == 1000:
            raise InputError(f"{key}={switch}: nothing has been sampled yet at t = 1000; choose a smaller timestep")


def find(path):
    """A path from the config: as given from the working directory if it is there, else from the project folder."""
    path = Path(path).expanduser()
    return path if path.is_absolute() or path.exists() else PROJECT / path


def fingerprint(cfg):
    """Hash of all that changes results: two runs with the same one may share records."""
    return hashlib.sha256(json.dumps(identity(cfg), sort_keys=True).encode()).hexdigest()[:16]


def identity(cfg):
    """The part of the config that the fingerprint covers: the selected task group only, without places and batching,
    and without the details of parts that are off."""
    full = OmegaConf.to_container(cfg, resolve=True)
    kept = {k: v for k, v in full.items() if k not in (*NOT_IN_FINGERPRINT, "task")}
    kept["data"] = {k: v for k, v in full["data"].items() if k not in ("start_id", "end_id", "source")}
    kept["model"] = {k: v for k, v in full["model"].items() if k != "source"}
    kept["task"] = full["task"][full["task_group"]]
    # results of full precision carry no mark: records from before there was a choice stay valid
    off = {"precision": full.get("precision", "fp32") == "fp32",
           "repulsion": not full["repulsion_scale"] or full["num_samples"] == 1,
           "pruning": full["pruning_step"] < 0, "pruning_keep": full["pruning_step"] < 0,
           "optimization": full["optimization_step"] < 0}
    return {key: value for key, value in kept.items() if not off.get(key)}


def differences(old, new, prefix=""):
    """["key: old there, new here", ...] between two nested dicts."""
    found = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key} is {a} there and {b} here")
    return found
