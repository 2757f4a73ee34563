"""Builds the parts of a run from its config: device, prior, operator, sampler, clock. The first module to import torch."""
import os
from typing import NamedTuple

from hydra.errors import InstantiationException
from hydra.utils import instantiate

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the memory probe would report a missing GPU

import torch  # noqa: E402

from utils import device as devices  # noqa: E402
from utils.config import InputError, find  # noqa: E402
from utils.events import Events  # noqa: E402
from utils.noise import KeyedNoise  # noqa: E402
from utils.optimization import HardDataConsistency  # noqa: E402
from utils.particles import Particles  # noqa: E402
from utils.passes import Passes  # noqa: E402
from utils.pruning import Pruning  # noqa: E402
from utils.ranks import Rank  # noqa: E402
from utils.repulsion import Repulsion  # noqa: E402
from utils.schedule import StepClock, annealing_sigmas  # noqa: E402


class Parts(NamedTuple):
    device: torch.device
    prior: object       # utils.priors.base.LatentPrior
    operator: object    # operators.base.Operator
    noise: KeyedNoise
    sampler: object     # sampler.LatentDAPS
    clock: StepClock
    events: Events


def build(cfg, settings):
    """All parts of the run that `cfg` (composed) and `settings` (checked) describe."""
    if not settings.use_tpu:
        devices.silence_unused_xla()
    device = devices.get_device(settings.use_tpu, settings.gpu, Rank.of_this_process().local)
    devices.setup_device(device)
    from sampler import LatentDAPS  # after setup_device: XLA must be up before the first backward pass

    prior = make("model", cfg.model, path=str(find(settings.model.path)), device=device)
    if settings.gradient_checkpointing:
        prior.checkpoint_decoder()
    operator = make(f"task.{settings.task_group}.operator", cfg.task[settings.task_group].operator).to(device)
    noise = KeyedNoise(settings.seed)
    annealing = settings.sampler.annealing_scheduler_config
    clock = StepClock(settings.step_clock, annealing_sigmas(annealing.num_steps, annealing.sigma_max, annealing.sigma_min),
                      prior.timestep_map)
    events = plan(settings, clock)
    sampler = LatentDAPS(
        prior, operator, noise, annealing, settings.sampler.diffusion_scheduler_config,
        settings.group.mcmc_sampler_config, events, passes=Passes(settings.max_particles_per_pass),
        repulsion=Repulsion(settings.repulsion_scale, settings.repulsion, clock) if events.repulsion_steps else None,
        pruning=Pruning(settings.pruning_keep, settings.pruning) if events.pruning_index is not None else None,
        optimization=HardDataConsistency(settings.optimization) if events.optimization_index is not None else None)
    return Parts(device, prior, operator, noise, sampler, clock, events)


def plan(settings, clock):
    """When the parts act. Raises InputError for an event that cannot fire or has nothing to act on."""
    events = Events(clock, settings.repulsion_scale > 0 and settings.num_samples > 1, settings.repulsion.end_step,
                    settings.pruning_step, settings.optimization_step, settings.optimization.every)
    for key, switch, index in (("pruning_step", settings.pruning_step, events.pruning_index),
                               ("optimization_step", settings.optimization_step, events.optimization_index)):
        if switch >= 0 and index is None:
            raise InputError(f"{key}={switch}: the annealing ends at t = {clock.timestep(clock.num_steps - 1):.0f}, "
                             "so this never happens; choose a larger timestep, or -1 for off")
    if events.pruning_index == 0:
        raise InputError(f"pruning_step={settings.pruning_step}: nothing has been sampled yet at the first step; "
                         f"choose at most {clock.timestep(1):.0f}")
    return events


def make(key, node, **arguments):
    """The object that a config node describes by _target_. Raises InputError naming `key` if it cannot be had."""
    try:
        return instantiate(node, **arguments)
    except InstantiationException as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise InputError(f"{key}._target_={node.get('_target_')}: cannot be built ({reason}); check this block's keys "
                         "and the files that it names") from None


def load_batch(parts, settings, images):
    """(particles, truth) of some utils.data.TestImage: measurements with keyed noise, particles not yet drawn.

    truth is (N, 3, H, W) on the CPU, in [-1, 1].
    """
    truth = torch.stack([torch.from_numpy(image.pixels(parts.prior.resolution)) for image in images])
    y = torch.cat([measure(parts, x, image.id) for x, image in zip(truth, images)])
    particles = Particles.start(y, [image.id for image in images], settings.num_samples, settings.first_particle,
                                parts.prior.latent_shape, parts.prior.dtype)
    return particles, truth


def measure(parts, x, image_id):
    """The measurement (1, ...) of one image x (3, H, W); its noise depends on the seed and the image alone."""
    x = x[None].to(parts.device)
    shape = parts.operator(x).shape
    return parts.operator.measure(x, parts.noise.measurement(image_id, shape).to(parts.device))
