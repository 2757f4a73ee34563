"""Builds the parts of a run from its config: device, prior, operator, sampler, clock. The first module to import torch."""
import os
from typing import NamedTuple

from hydra.errors import InstantiationException
from hydra.utils import instantiate

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the memory probe would report a missing GPU

import torch  # noqa: E402

from utils import device as devices  # noqa: E402
from utils.checkpoints import locate  # noqa: E402
from utils.config import InputError  # noqa: E402
from utils.noise import KeyedNoise  # noqa: E402
from utils.particles import Particles  # noqa: E402
from utils.schedule import StepClock  # noqa: E402


class Parts(NamedTuple):
    device: torch.device
    prior: object       # utils.priors.base.LatentPrior
    operator: object    # operators.base.Operator
    noise: KeyedNoise
    sampler: object     # sampler.LatentDAPS
    clock: StepClock


def build(cfg, settings):
    """All parts of the run that `cfg` (composed) and `settings` (checked) describe."""
    if not settings.use_tpu:
        devices.silence_unused_xla()
    device = devices.get_device(settings.use_tpu, settings.gpu)
    devices.setup_device(device)
    from sampler import LatentDAPS  # after setup_device: XLA must be up before the first backward pass

    prior = make(cfg.model, "model", path=locate(settings.model.path), device=device)
    operator = make(cfg.task[settings.task_group].operator, f"task.{settings.task_group}.operator").to(device)
    noise = KeyedNoise(settings.seed)
    sampler = LatentDAPS(prior, operator, noise, settings.sampler.annealing_scheduler_config,
                         settings.sampler.diffusion_scheduler_config, settings.group.mcmc_sampler_config)
    clock = StepClock(settings.step_clock, sampler.sigmas, prior.timestep_map)
    return Parts(device, prior, operator, noise, sampler, clock)


def make(node, key, **more):
    """Instantiate the config node that stands at `key`. Raises InputError if what it builds refuses its arguments."""
    try:
        return instantiate(node, **more)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, InputError):
            raise cause from None
        reason = str(cause or error).strip().splitlines()[0]
        raise InputError(f"{key}: {node.get('_target_')} cannot be built ({reason}); correct its arguments") from None


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
    particles = Particles.start(y, [image.id for image in images], settings.num_samples, settings.first_particle,
                                parts.prior.latent_shape, parts.prior.dtype)
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
