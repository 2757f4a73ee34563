"""Builds the parts of a run from its config: device, prior, operator, sampler, clock. The first module to import torch."""

import logging
import math
import os
import statistics
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from hydra.errors import InstantiationException
from hydra.utils import instantiate

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the memory probe would report a missing GPU

import numpy as np  # noqa: E402
import torch  # noqa: E402

from operators.base import Operator  # noqa: E402
from operators.fidelity import WithFidelity  # noqa: E402
from sampler import LatentDAPS  # noqa: E402
from utils import device as devices  # noqa: E402
from utils.config.operators import OURS  # noqa: E402
from utils.config.plan import plan  # noqa: E402
from utils.config.portfolio import no_spectrum  # noqa: E402
from utils.config.settings import Settings  # noqa: E402
from utils.data import Measurement, TestItem  # noqa: E402
from utils.errors import InputError, one_line  # noqa: E402
from utils.measurements import Convention  # noqa: E402
from utils.noise import KeyedNoise, keyed_globals  # noqa: E402
from utils.priors.base import LatentPrior  # noqa: E402
from utils.priors.wrappers import CompiledPrior  # noqa: E402
from utils.running.free_pixels import split  # noqa: E402
from utils.running.plausibility import Findings, of_picture, of_spectrum  # noqa: E402
from utils.running.ranks import Rank  # noqa: E402
from utils.running.tryout import check_kinds, try_operator, try_prior, try_similarity  # noqa: E402
from utils.sampling.events import Events  # noqa: E402
from utils.sampling.mechanism import Mechanism  # noqa: E402
from utils.sampling.optimization import HardDataConsistency  # noqa: E402
from utils.sampling.particles import Particles  # noqa: E402
from utils.sampling.passes import Passes  # noqa: E402
from utils.sampling.portfolio import Portfolio  # noqa: E402
from utils.sampling.pruning import Pruning  # noqa: E402
from utils.sampling.recombination import Recombination  # noqa: E402
from utils.sampling.repulsion import Repulsion, own_similarity  # noqa: E402
from utils.sampling.schedule import StepClock, annealing_sigmas  # noqa: E402
from utils.sampling.tree import Tree  # noqa: E402
from utils.sampling.vocabulary import SIMILARITIES, RepulsionSettings  # noqa: E402
from utils.weights import locate  # noqa: E402

log = logging.getLogger("latentdaps")
_LOADING = threading.Lock()  # diffusers patches torch while it loads, and the cores of one process are threads


class Parts(NamedTuple):
    device: torch.device
    prior: LatentPrior
    operator: Operator
    noise: KeyedNoise
    sampler: LatentDAPS
    clock: StepClock


def build(settings: Settings, tried: bool = True) -> Parts:
    """All parts of the run that `settings` describe. tried: try parts of one's own on two inputs. Raises InputError."""
    if not settings.use_tpu:
        devices.silence_unused_xla()
    device = devices.get_device(settings.use_tpu, settings.gpu, Rank.of_this_process().local)
    devices.setup_device(device, tf32=settings.precision == "tf32")  # XLA must be up before the first backward pass
    prior = load_prior(settings, device)
    with _LOADING, keyed_globals(settings.seed, "mask"):  # what a physics of others draws follows the seed too
        operator = make(f"task.{settings.task_group}.operator", settings.operator_node)
    check_kinds(f"model._target_={settings.model.target}", prior, operator_key(settings), operator)
    if tried:
        try_parts_of_ones_own(settings, prior, operator, device)
    if not settings.data_term.is_default:
        operator = WithFidelity(operator, settings.data_term)
    operator = operator.to(device)
    noise = KeyedNoise(settings.seed)
    annealing = settings.sampler.annealing_scheduler_config
    if settings.step_clock == "noise" and prior.timestep_map is None:
        raise InputError("step_clock=noise: this prior has no timesteps; choose progress")
    sigmas = annealing_sigmas(annealing.num_steps, annealing.sigma_max, annealing.sigma_min)
    clock = StepClock(settings.step_clock, sigmas, prior.timestep_map)
    events = plan(settings, clock)
    diffusion, passes = settings.sampler.diffusion_scheduler_config, Passes(settings.max_particles_per_pass)
    mechanisms = [*planned(settings, events, prior, operator), *own_mechanisms(settings, clock)]
    portfolio = None
    if settings.differs:
        check_spectrum(settings, operator)
        portfolio = Portfolio(settings.portfolio, annealing, diffusion, settings.chain, clock)
    sampler = LatentDAPS(prior, operator, noise, annealing, diffusion, settings.chain, events, mechanisms, passes, portfolio)
    return Parts(device, prior, operator, noise, sampler, clock)


def try_parts_of_ones_own(settings: Settings, prior: LatentPrior, operator: Operator, device: torch.device) -> None:
    """Those that are not ours, and any physics of deepinv. Raises InputError in one line that names the part."""
    model, target = settings.model.target, settings.group.operator.target
    if not model.startswith("utils.priors.") and not devices.compiles_each_graph(device):
        spaced = any(entry.spacing != 1 for entry in settings.portfolio)
        try_prior(f"model._target_={model}", getattr(prior, "plain", prior), spaced)
    if target not in OURS or "physics" in settings.operator_node:
        try_operator(operator_key(settings), operator, prior, device)
    similarity = settings.repulsion.similarity
    if settings.repulsion_scale and settings.num_samples > 1 and similarity not in SIMILARITIES:
        try_similarity(f"repulsion.similarity={similarity}", own_similarity(similarity), prior)


def operator_key(settings: Settings) -> str:
    """The operator's place in the config, with its class."""
    return f"task.{settings.task_group}.operator._target_={settings.group.operator.target}"


def load_prior(settings: Settings, device: torch.device) -> LatentPrior:
    """The prior, computing as the settings ask."""
    with _LOADING:
        prior = make("model", settings.model_node, path=locate(settings.model.path), device=device)
    if settings.precision == "bf16":
        if not devices.has_fast_bf16(device):
            log.warning("precision=bf16: this device only emulates bfloat16, far more slowly than precision=fp32 computes")
        prior.compute_in(torch.bfloat16)
    if settings.gradient_checkpointing:
        prior.checkpoint_decoder()
    return CompiledPrior(prior) if settings.compile else prior


def planned(settings: Settings, events: Events, prior: LatentPrior, operator: Operator) -> Iterator[Mechanism]:
    """The mechanisms that the switches ask for, in the order in which they act."""
    if events.repulsion_steps:
        check_bandwidth(settings.repulsion, math.prod(prior.latent_shape))
        yield Repulsion(settings.repulsion_scale, settings.repulsion, events)
    if settings.recombination_step >= 0:
        if not operator.separable:
            raise InputError(
                f"recombination_step={settings.recombination_step}: the loss of {type(operator).__name__} is no sum over "
                "channels (operators.base.Operator.separable); choose another task, or -1 for off"
            )
        yield Recombination(settings.recombination_step, settings.recombination, events.clock, operator)
    if events.pruning_index is not None:
        yield Pruning(settings.pruning_keep, settings.pruning, events)
    if settings.children:
        yield Tree(settings.children, settings.first_child, settings.coupling_scale, settings.tree, events)
    if events.optimization_index is not None:
        yield HardDataConsistency(settings.optimization, events)


def own_mechanisms(settings: Settings, clock: StepClock) -> Iterator[Mechanism]:
    """Those of `mechanisms`, after ours. Raises InputError for a class that is no Mechanism."""
    for name, node in settings.composition.nodes.get("mechanisms", {}).items():
        mechanism = make(f"mechanisms.{name}", node, clock=clock)
        if not isinstance(mechanism, Mechanism):
            raise InputError(
                f"mechanisms.{name}._target_={node['_target_']}: is no utils.sampling.mechanism.Mechanism; subclass it"
            )
        if mechanism.needs_all and settings.population == "sequential":
            raise InputError(
                f"mechanisms.{name}: {type(mechanism).__name__} needs all of an image's particles at once (needs_all); "
                "leave it out, or choose population=fixed"
            )
        mechanism.name = name
        yield mechanism


def check_bandwidth(repulsion: RepulsionSettings, numbers: int) -> None:
    """Raises InputError if exp(-d^2 / bandwidth) is 0 in float32 for all latents of so many numbers that are not alike."""
    if repulsion.similarity == "latent" and repulsion.bandwidth != "median" and numbers > 100 * repulsion.bandwidth:
        raise InputError(
            f"repulsion.bandwidth={repulsion.bandwidth}: squared distances of latents of {numbers} numbers are in "
            "the hundreds, so with repulsion.similarity=latent nothing would push; choose median, or a number "
            "of their size"
        )


def check_spectrum(settings: Settings, operator: Operator) -> None:
    """Raises InputError for a low-pass of an operator of one's own that measures no spectrum; ours are refused earlier."""
    for i, entry in enumerate(settings.portfolio):
        if entry.lowpass is not None and not operator.spectrum:
            raise no_spectrum(f"portfolio[{i}]", entry.lowpass, type(operator).__name__)


def make(key: str, node: dict[str, Any], **arguments: Any) -> Any:
    """The object that a config node describes by _target_. Raises InputError naming `key` if it cannot be had."""
    try:
        return instantiate(node, **arguments)
    except InstantiationException as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        reason = one_line(error.__cause__ or error)
        raise InputError(
            f"{key}._target_={node.get('_target_')}: cannot be built ({reason}); check this block's keys "
            "and the files that it names"
        ) from None


def load_batch(parts: Parts, settings: Settings, images: Sequence[TestItem]) -> tuple[Particles, torch.Tensor | None]:
    """(particles, truth) of some utils.data.TestImage or Measurement: keyed noise, particles not yet drawn.

    truth is (N, 3, H, W) on the CPU, in [-1, 1], or None for measurements, which `check_measurements` has checked.
    """
    if settings.data.kind == "measurement":
        truth, y = None, torch.stack([torch.from_numpy(image.values()) for image in images]).to(parts.device)
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
    if settings.free_fraction:
        fitted, free = split(y, [image.id for image in images], settings.free_fraction, parts.noise, parts.operator.spectrum)
        copies = [tensor.repeat_interleave(settings.num_samples, dim=0) for tensor in (fitted, free)]
        particles = replace(particles, y=copies[0], free=copies[1])
    return particles, truth


def check_measurements(parts: Parts, images: Sequence[Measurement]) -> None:
    """Raises InputError, before anything is sampled, if one of some utils.data.Measurement does not fit the operator.

    Those that fit and are implausible end in a warning for each likely key (utils.running.plausibility).
    """
    side, convention = parts.prior.resolution, images[0].convention
    levels = torch.tensor([-1.0, 0.0, 1.0], device=parts.device)
    flat = parts.operator(levels[:, None, None, None].expand(3, 3, side, side))  # (3, ...)
    if not parts.operator.spectrum:
        _refuse_spectral_keys(parts.operator, convention)
    wanted, highest = tuple(flat.shape[1:]), float(flat.abs().max())
    wrong, found, missing = [], Findings(), {}
    for image in images:
        reading = image.read()
        missing[image.path.name] = float(np.isnan(reading.y).mean())
        if reading.y.shape != wanted:
            wrong.append((image.path, reading.y.shape))
        elif parts.operator.spectrum:
            found.add(image.path.name, of_spectrum(reading, convention, side * side, parts.operator.sigma))
        else:
            found.add(image.path.name, of_picture(reading, highest, parts.operator.sigma))
    if wrong:
        path, shape = wrong[0]
        more = f", and {len(wrong) - 1} more do not fit" if len(wrong) > 1 else ""
        one = wanted[0] == 3 and (len(shape) == 2 or shape[0] == 1)
        hint = "; data.channels=1 is for one channel" if one and parts.operator.spectrum else ""
        raise InputError(f"data.root: {path} has shape {shape}; this task measures {wanted}{more}{hint}")
    if any(missing.values()):
        most, mean = max(missing, key=missing.__getitem__), statistics.fmean(missing.values())
        log.info("not measured: %.3g %% of the pixels; most in %s, %.3g %%", 100 * mean, most, 100 * missing[most])
    for line in found.lines():
        log.warning("%s", line)


def _refuse_spectral_keys(operator: Operator, convention: Convention) -> None:
    """For an operator of one's own; ours are refused before torch is imported."""
    for key in ("quantity", "center", "norm", "channels"):
        value = getattr(convention, key)
        if value != getattr(Convention(), key):
            raise InputError(
                f"data.{key}={value}: {type(operator).__name__} measures no spectrum (Operator.spectrum); leave it out"
            )


def measure(parts: Parts, x: torch.Tensor, image_id: int) -> torch.Tensor:
    """The measurement (1, ...) of one image x (3, H, W); its noise depends on the seed and the image alone."""
    x = x[None].to(parts.device)
    shape = parts.operator(x).shape
    return parts.operator.measure(x, parts.noise.measurement(image_id, shape).to(parts.device))
