"""Builds the parts of a run from its config: device, prior, operator, sampler, clock. The first module to import torch."""

import math
import os
import threading
from typing import NamedTuple

from hydra.errors import InstantiationException
from hydra.utils import instantiate

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the memory probe would report a missing GPU

import torch  # noqa: E402

from utils import device as devices  # noqa: E402
from utils.errors import InputError  # noqa: E402
from utils.noise import KeyedNoise  # noqa: E402
from utils.priors.wrappers import CompiledPrior  # noqa: E402
from utils.running.ranks import Rank  # noqa: E402
from utils.sampling.events import Events  # noqa: E402
from utils.sampling.optimization import HardDataConsistency  # noqa: E402
from utils.sampling.particles import Particles  # noqa: E402
from utils.sampling.passes import Passes  # noqa: E402
from utils.sampling.pruning import Pruning  # noqa: E402
from utils.sampling.repulsion import Repulsion  # noqa: E402
from utils.sampling.schedule import StepClock, annealing_sigmas  # noqa: E402
from utils.weights import locate  # noqa: E402

_LOADING = threading.Lock()  # diffusers patches torch while it loads, and the cores of one process are threads


class Parts(NamedTuple):
    device: torch.device
    prior: object  # utils.priors.base.LatentPrior
    operator: object  # operators.base.Operator
    noise: KeyedNoise
    sampler: object  # sampler.LatentDAPS
    clock: StepClock
    events: Events


def build(cfg, settings):
    """All parts of the run that `cfg` (composed) and `settings` (checked) describe."""
    if not settings.use_tpu:
        devices.silence_unused_xla()
    device = devices.get_device(settings.use_tpu, settings.gpu, Rank.of_this_process().local)
    devices.setup_device(device, tf32=settings.precision == "tf32")
    from sampler import LatentDAPS  # after setup_device: XLA must be up before the first backward pass

    with _LOADING:
        model = {key: value for key, value in cfg.model.items() if key != "source"}
        prior = make("model", model, path=locate(settings.model.path), device=device)
    if settings.precision == "bf16":
        prior.compute_in(torch.bfloat16)
    if settings.gradient_checkpointing:
        prior.checkpoint_decoder()
    if settings.compile:
        prior = CompiledPrior(prior)
    operator = make(f"task.{settings.task_group}.operator", cfg.task[settings.task_group].operator).to(device)
    noise = KeyedNoise(settings.seed)
    annealing = settings.sampler.annealing_scheduler_config
    if settings.step_clock == "noise" and prior.timestep_map is None:
        raise InputError("step_clock=noise: this prior has no timesteps; choose progress")
    clock = StepClock(
        settings.step_clock, annealing_sigmas(annealing.num_steps, annealing.sigma_max, annealing.sigma_min), prior.timestep_map
    )
    events = plan(settings, clock)
    if events.repulsion_steps:
        check_bandwidth(settings.repulsion, math.prod(prior.latent_shape))
    sampler = LatentDAPS(
        prior,
        operator,
        noise,
        annealing,
        settings.sampler.diffusion_scheduler_config,
        settings.chain,
        events,
        repulsion=Repulsion(settings.repulsion_scale, settings.repulsion, clock) if events.repulsion_steps else None,
        pruning=Pruning(settings.pruning_keep, settings.pruning) if events.pruning_index is not None else None,
        optimization=HardDataConsistency(settings.optimization) if events.optimization_index is not None else None,
        passes=Passes(settings.max_particles_per_pass),
    )
    return Parts(device, prior, operator, noise, sampler, clock, events)


def plan(settings, clock):
    """When the parts act. Raises InputError for an event that cannot fire or has nothing to act on."""
    events = Events(
        clock,
        settings.repulsion_scale > 0 and settings.num_samples > 1,
        settings.repulsion.end_step,
        settings.pruning_step,
        settings.optimization_step,
        settings.optimization.every,
    )
    for key, switch, index in (
        ("pruning_step", settings.pruning_step, events.pruning_index),
        ("optimization_step", settings.optimization_step, events.optimization_index),
    ):
        if switch >= 0 and index is None:
            raise InputError(
                f"{key}={switch}: the annealing ends at t = {clock.timestep(clock.num_steps - 1):.0f}, "
                "so this never happens; choose a larger timestep, or -1 for off"
            )
    if settings.repulsion_scale > 0 and settings.num_samples > 1 and not events.repulsion_steps:
        raise InputError(
            f"repulsion.end_step={settings.repulsion.end_step}: the annealing begins at "
            f"t = {clock.timestep(0):.0f}, so nothing would push; choose a smaller timestep, or repulsion_scale=0"
        )
    if events.pruning_index == 0:
        raise InputError(
            f"pruning_step={settings.pruning_step}: nothing has been sampled yet at the first step; "
            f"choose at most {clock.timestep(1):.0f}"
        )
    return events


def check_bandwidth(repulsion, numbers):
    """Raises InputError if exp(-d^2 / bandwidth) is 0 in float32 for all latents of so many numbers that are not alike."""
    if repulsion.similarity == "latent" and repulsion.bandwidth != "median" and numbers > 100 * repulsion.bandwidth:
        raise InputError(
            f"repulsion.bandwidth={repulsion.bandwidth}: squared distances of latents of {numbers} numbers are in "
            "the hundreds, so with repulsion.similarity=latent nothing would push; choose median, or a number "
            "of their size"
        )


def make(key, node, **arguments):
    """The object that a config node describes by _target_. Raises InputError naming `key` if it cannot be had."""
    try:
        return instantiate(node, **arguments)
    except InstantiationException as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        cause = error.__cause__ or error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise InputError(
            f"{key}._target_={node.get('_target_')}: cannot be built ({reason}); check this block's keys "
            "and the files that it names"
        ) from None


def load_batch(parts, settings, images):
    """(particles, truth) of some utils.data.TestImage or Measurement: keyed noise, particles not yet drawn.

    truth is (N, 3, H, W) on the CPU, in [-1, 1], or None for measurements. Raises InputError if a measurement does
    not fit the operator.
    """
    if settings.data.kind == "measurement":
        truth, y = None, torch.stack([given_measurement(parts, image) for image in images]).to(parts.device)
    else:
        truth = torch.stack([torch.from_numpy(image.pixels(parts.prior.resolution)) for image in images])
        y = torch.cat([measure(parts, x, image.id) for x, image in zip(truth, images)])
    particles = Particles.start(
        y,
        [image.id for image in images],
        settings.num_samples,
        settings.first_particle,
        parts.prior.latent_shape,
        parts.prior.dtype,
    )
    return particles, truth


def given_measurement(parts, image):
    """y of one utils.data.Measurement as a CPU tensor, in the shape that the operator gives."""
    side = parts.prior.resolution
    wanted = tuple(parts.operator(torch.zeros(1, 3, side, side, device=parts.device)).shape[1:])
    y = torch.from_numpy(image.values())
    if tuple(y.shape) != wanted:
        raise InputError(f"data.root: {image.path} has shape {tuple(y.shape)}; this task measures {wanted}")
    return y


def measure(parts, x, image_id):
    """The measurement (1, ...) of one image x (3, H, W); its noise depends on the seed and the image alone."""
    x = x[None].to(parts.device)
    shape = parts.operator(x).shape
    return parts.operator.measure(x, parts.noise.measurement(image_id, shape).to(parts.device))
