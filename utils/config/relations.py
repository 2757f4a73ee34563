"""What the single keys of a config cannot tell: values that do not go together."""

import re

from utils.config.algorithms import CLASSICAL, check_algorithm
from utils.config.model import check_model
from utils.config.operators import OURS, SPECTRA, check_operator
from utils.config.sections import TAU_MIN, Fidelity
from utils.config.settings import Settings
from utils.conventions import OF_A_SPECTRUM, Convention
from utils.errors import InputError, short
from utils.formats import READERS
from utils.mechanisms import registry
from utils.mechanisms.plan import Course
from utils.sampling.schedule import StepClock


def clock_of(s: Settings) -> StepClock:
    """Which timestep each annealing step of the run stands for."""
    further = [stage.sigmas for plan in registry.PLANS if (stage := plan.stage(s)) is not None]
    steps = [*s.sampler.annealing_sigmas[:-1], *(sigma for sigmas in further for sigma in sigmas[:-1]), 0.0]
    return StepClock(steps, further=sum(len(sigmas) - 1 for sigmas in further))


def check_relations(s: Settings) -> None:
    """Raises InputError for the first pair of values that do not go together."""
    if s.task_group not in s.task:
        raise InputError(f"task_group={short(s.task_group)}: this task has the groups {', '.join(s.task)}")
    if s.num_cores is not None and not s.use_tpu:
        raise InputError(f"num_cores={s.num_cores}: only use_tpu=true runs on several cores; on GPUs use shard=k/n")
    if s.workers not in ("auto", 1) and s.use_tpu:
        raise InputError(f"workers={s.workers}: use_tpu=true spreads images over its cores itself (num_cores); leave it out")
    _check_speed(s)
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", s.shard)
    if not match or int(match[1]) >= int(match[2]):
        raise InputError(f"shard={short(s.shard)}: write k/n with k from 0 to n-1, for example shard=0/8")
    if not s.resume and int(match[2]) > 1:
        raise InputError(
            f"resume=false: with shard={s.shard} it would set aside what the other shards write; "
            "choose another name=, or rename the old folder once"
        )
    if s.name in (".", "..") or "/" in s.name or "\\" in s.name:
        raise InputError(f"name={s.name}: must be a plain folder name; folders above it go into save_dir")
    if s.data.end_id is not None and s.data.end_id <= s.data.start_id:
        raise InputError(f"data.end_id={s.data.end_id}: must lie above data.start_id={s.data.start_id} (it is exclusive)")
    if s.data.resolution != s.model.resolution and not registry.levels(s):
        raise InputError(f"data.resolution={s.data.resolution}: the prior takes images of {s.model.resolution} pixels")
    _check_convention(s)
    if s.anneals:
        _check_annealing(s)
    else:
        _check_other_algorithm(s)
    _check_population(s)
    _check_fidelity(s)
    operator = s.group.operator
    check_operator(f"task.{s.task_group}.operator", operator.target, operator.arguments, s.data.resolution)
    check_model(s.model)


def _check_annealing(s: Settings) -> None:
    """What LatentDAPS needs, and the mechanisms that act within it."""
    annealing, diffusion = s.sampler.annealing_scheduler_config, s.sampler.diffusion_scheduler_config
    if annealing.sigma_min >= annealing.sigma_max:
        raise InputError(
            f"sampler.annealing_scheduler_config.sigma_min={annealing.sigma_min}: "
            f"must lie below sigma_max={annealing.sigma_max}"
        )
    check_chain(s)
    if s.temperature is not None and s.chain.tau < TAU_MIN:
        raise InputError(
            f"temperature={s.temperature}: its square root times task.{s.task_group}.operator.sigma={s.group.operator.sigma} "
            f"must be at least {TAU_MIN}, as a likelihood's standard deviation; raise one of the two, or write temperature=null"
        )
    if diffusion.sigma_min >= annealing.sigma_min:
        raise InputError(
            f"sampler.diffusion_scheduler_config.sigma_min={diffusion.sigma_min}: must lie below "
            f"sampler.annealing_scheduler_config.sigma_min={annealing.sigma_min}"
        )
    for name in s.mechanisms:
        if name in registry.NAMES:
            raise InputError(f"mechanisms.{name}: one of the program's own has this name already; choose another")
    registry.check(s, clock_of(s))


def check_chain(s: Settings) -> None:
    """Also of the settings of one level. Raises InputError."""
    if s.chain.keep_velocity and s.chain.mc_algo != "hmc":
        raise InputError(f"keep_velocity=true: mc_algo={s.chain.mc_algo} has no velocity; choose mc_algo=hmc")


def _check_other_algorithm(s: Settings) -> None:
    """Nothing within another algorithm asks the particle mechanisms, and it has no chain of the task group's."""
    other = f"sampler._target_={s.sampler.target} is another algorithm than LatentDAPS"
    for plan in registry.PLANS:
        if len(plan.levels(s)) == 1:  # only a size: no mechanism acts
            plan.check(s, Course(StepClock([0.0, 0.0]), ()))
        elif plan.asked(s):
            raise InputError(f"{plan.switch(s)}: {other}, in which no mechanism acts; leave it out")
    if s.mechanisms:
        raise InputError(f"mechanisms.{next(iter(s.mechanisms))}: {other}, in which no mechanism acts; leave it out")
    if s.temperature is not None:
        raise InputError(f"temperature={s.temperature}: {other}, and has no likelihood of the task group's; leave it out")
    if s.chain_check is True:
        raise InputError(f"chain_check=true: {other}, and has no chain to check; leave it out")
    if s.sampler.target == CLASSICAL and s.data_term.free_scale:
        raise InputError(
            "sampler=classical: it knows the object's range, and of a free exposure it is not known; give data.scale=known"
        )
    arguments = s.sampler.model_dump(exclude={"target"})
    check_algorithm(s.sampler.target, arguments, s.group.operator.target, s.first_particle + s.num_samples)


def _check_population(s: Settings) -> None:
    if s.population == "fixed":
        return
    if s.sequential.start > s.num_samples:
        raise InputError(f"sequential.start={s.sequential.start}: must not exceed num_samples={s.num_samples}, an image's most")
    if s.use_tpu:
        raise InputError(
            "population=sequential: its rounds differ in size, and XLA would compile each anew; leave out use_tpu=true"
        )
    if s.group.operator.sigma == 0:
        raise InputError(
            f"population=sequential: without noise (task.{s.task_group}.operator.sigma=0) no loss is near its floor; "
            "choose population=fixed"
        )


def _check_fidelity(s: Settings) -> None:
    fidelity, weights, operator = s.data_term, s.fidelity.weights, s.group.operator
    free = "data.scale=free" if s.data.scale == "free" else "fidelity.free_scale=true"
    if not weights:
        raise InputError("fidelity: all weights are 0, so nothing would be fitted; give one of its terms a weight, gaussian=1")
    keys = {name: f"fidelity.terms.{name}" if name in fidelity.terms else f"fidelity.{name}" for name in weights}
    twice = [name for name in fidelity.terms if name in Fidelity.model_fields]
    if twice:
        raise InputError(f"fidelity.terms.{twice[0]}: a key of fidelity has this name already; choose another")
    counted = [name for name in ("poisson", "amplitude") if name in weights]
    counts = s.data.quantity == "counts" and operator.target in SPECTRA  # whose gain says it: utils/config/counts.py
    if counted and fidelity.photons is None and not counts:
        raise InputError(f"fidelity.{counted[0]}={weights[counted[0]]}: give fidelity.photons, the counts at magnitude 1")
    if fidelity.photons is not None and not counted and not counts:
        raise InputError(f"fidelity.photons={fidelity.photons}: only poisson and amplitude read it; give one of them a weight")
    if fidelity.free_scale and not {"gaussian", *counted, *fidelity.terms} & set(weights):
        raise InputError(f"{free}: of the terms here none knows a scale; leave it out, or give gaussian a weight")
    if not fidelity.is_default and operator.sigma == 0:
        raise InputError(
            f"{keys[next(iter(weights))]}: its unit is task.{s.task_group}.operator.sigma, which is 0; give the noise a size"
        )
    if operator.target not in OURS:
        return  # operators/fidelity.py asks the operator itself
    of_magnitudes = [*(f"fidelity.{name}={weights[name]}" for name in counted), *[free] * fidelity.free_scale]
    if of_magnitudes and operator.target not in SPECTRA:
        raise InputError(f"{of_magnitudes[0]}: the measurement of {operator.target} is no magnitude; choose gaussian")


def _check_convention(s: Settings) -> None:
    """What the block `data` says of measurements."""
    data, unusual, target = s.data, s.data.unusual(), s.group.operator.target
    if data.kind != "measurement":
        if unusual:
            key, value = next(iter(unusual.items()))
            raise InputError(f"data.{key}={short(value)}: only data=measurement has it; images are simulated")
        return
    for key in OF_A_SPECTRUM:
        if key in unusual and target in OURS and target not in SPECTRA:
            raise InputError(
                f"data.{key}={unusual[key]}: {target} measures no spectrum; leave it out, or choose phase_retrieval"
            )
    if data.quantity == "counts" and data.gain is None and not s.data_term.free_scale:
        raise InputError(
            "data.quantity=counts: data.gain is missing; give the counts per unit of intensity, or data.scale=free where that "
            "is not known"
        )
    if data.gain is not None and data.quantity != "counts":
        raise InputError(f"data.gain={data.gain}: it is the gain of counts; leave it out, or say data.quantity=counts")
    for key, value in (("background", data.background), ("frame", data.frame if data.frame == "sum" else None)):
        if value is not None and data.quantity == "magnitude":
            raise InputError(
                f"data.{key}={short(str(value))}: counts and intensities add up, magnitudes do not; say data.quantity"
            )
    _check_detector(s)
    convention = Convention.of(data)
    for key, file, others in (
        ("mask", convention.mask_file, "a mask file, nan, max, or values such as [0,-1]"),
        ("support", convention.support_file, "a mask file, a side in pixels, [rows, columns], or auto"),
        ("background", convention.background_file, "a number, a file, or auto"),
    ):
        if file is not None and (not file.is_file() or file.suffix.lower() not in READERS):
            reason = f"file {file} not found" if not file.is_file() else f"is none of {', '.join(READERS)}"
            raise InputError(f"data.{key}={short(getattr(data, key))}: {reason}; write {others}")


def _check_detector(s: Settings) -> None:
    """Of the keys that an operator must know of: a centre of one's own, and a support."""
    data = s.data
    asked = [f"data.support={short(data.support)}"] if data.support is not None else []
    asked += [f"data.center={short(data.center)}"] if data.center not in ("shifted", "corner") else []
    if not asked:
        return
    if s.group.operator.target not in OURS:
        raise InputError(f"{asked[0]}: an operator of one's own knows nothing of it; choose {SPECTRA[0]}, or leave it out")
    sides = data.support if isinstance(data.support, list) else [data.support]
    if any(isinstance(side, int) and side > data.resolution for side in sides):
        raise InputError(f"{asked[0]}: must not exceed the field of {data.resolution} pixels")


def _check_speed(s: Settings) -> None:
    if s.precision == "tf32" and (s.use_tpu or s.gpu < 0):
        raise InputError(
            f"precision=tf32: only CUDA devices have it, and {'use_tpu=true' if s.use_tpu else f'gpu={s.gpu}'} "
            "asks for another one; use precision=fp32 or bf16"
        )
    if s.precision == "bf16" and s.model.network_dtype != "float32":
        raise InputError(f"precision=bf16: model.network_dtype={s.model.network_dtype} says otherwise; give one of the two")
    if s.callbacks and s.use_tpu and s.num_cores != 1:
        name, node = next(iter(s.callbacks.items()))
        raise InputError(f"callbacks.{name}={node.target}: the cores of a TPU call none; give num_cores=1, or leave it out")
    if s.compile and s.use_tpu:
        raise InputError("compile=true: XLA compiles by itself; leave it out with use_tpu=true")
    if s.gradient_checkpointing and s.use_tpu:
        raise InputError(
            "gradient_checkpointing=true: torch's checkpointing does not know XLA devices; leave it out with "
            "use_tpu=true and bound the memory with max_particles_per_pass"
        )
