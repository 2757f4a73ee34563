"""Builds the parts of a run from its config: device, prior, operator, sampler, clock. The first module to import torch."""

import logging
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pkgutil import resolve_name
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError

from operators.base import Operator
from operators.fidelity import WithFidelity
from operators.term import Term
from utils import device as devices
from utils.algorithms.contract import Algorithm
from utils.config.model import OUR_LOADERS
from utils.config.operators import OURS
from utils.config.relations import clock_of
from utils.config.section import fault
from utils.config.sections import Fidelity
from utils.config.settings import Settings
from utils.data import Given, TestItem, loaded
from utils.diagnosis.tryout import (
    check_kinds,
    try_metric,
    try_operator,
    try_prior,
    try_similarity,
    try_term,
)
from utils.errors import TO_BE_FOUND, InputError, one_line
from utils.mechanisms import registry
from utils.mechanisms.plan import Course
from utils.metrics.base import Metric
from utils.metrics.registry import ORDER
from utils.noise import KeyedNoise, keyed_globals
from utils.priors import library
from utils.priors.base import LatentPrior
from utils.priors.wrappers import CompiledPrior
from utils.records.metrics import Metrics
from utils.records.record import Described
from utils.running.finished import names_code_of_others
from utils.running.geometry import Geometry, geometry_of
from utils.running.making import make, make_own
from utils.running.ranks import Rank
from utils.running.threads import threads_of
from utils.sampling.mechanism import Census, Mechanism, census
from utils.sampling.particles import Particles
from utils.sampling.passes import Passes
from utils.sampling.schedule import StepClock
from utils.weights import locate

log = logging.getLogger("latentdaps")
_LOADING = threading.Lock()  # diffusers patches torch while it loads, and the cores of one process are threads


class Parts(NamedTuple):
    device: torch.device
    prior: LatentPrior
    operator: Operator  # of what is sampled: of a coarse level it measures the centre of a spectrum
    instrument: Operator  # what the data were, or will be, measured with: of the whole object
    noise: KeyedNoise
    sampler: Algorithm
    clock: StepClock
    census: Census
    metrics: tuple[Metric, ...]  # of one's own
    side: int  # of the object, pixels
    geometry: Geometry  # what the frames of a detector say


def build(settings: Settings, tried: bool = True, prior: LatentPrior | None = None, operator: Operator | None = None) -> Parts:
    """All parts of the run that `settings` describe. Raises InputError.

    tried: try parts of one's own on two inputs; prior, operator: objects in the place of those that the settings name
    """
    if not settings.use_tpu:
        devices.silence_unused_xla()
    device = devices.get_device(settings.use_tpu, settings.gpu, Rank.of_this_process().local)
    # XLA must be up before the first backward pass
    devices.setup_device(device, tf32=settings.precision == "tf32", threads=threads_of(settings).count)
    prior = load_prior(settings, device) if prior is None else prior
    geometry = geometry_of(settings)
    operator = load_operator(settings, geometry) if operator is None else operator
    check_kinds(f"model._target_={settings.model.target}", prior, operator_key(settings), operator)
    if tried:
        try_parts_of_ones_own(settings, prior, operator, device)
    if not settings.data_term.is_default:
        terms = own_terms(settings.data_term, operator.sigma)
        check_separable(settings, terms)
        operator = WithFidelity(operator, settings.data_term, terms)
        if tried:
            for name, term in terms.items():
                try_term(f"fidelity.terms.{name}", term.to(device), operator.to(device), prior)
    operator = instrument = operator.to(device)
    side = prior.resolution
    if settings.pixel != 1:
        side = settings.data.resolution
        operator = coarse(settings, instrument, side, prior.resolution)
    mechanisms: list[Mechanism] = []
    if settings.anneals:
        clock = clock_of(settings)
        mechanisms += planned(settings, registry.check(settings, clock), prior, operator)
        mechanisms += own_mechanisms(settings, clock)
    metrics = tuple(own_metrics(settings.composition.nodes.get("metrics", {})))
    if tried:
        for compared in (each for mechanism in mechanisms for each in mechanism.compared() if each.of_ones_own):
            try_similarity(compared.key, compared.function, prior)
        for metric in metrics:
            try_metric(f"metrics.{metric.name}", metric, prior, operator)
    noise = KeyedNoise(settings.seed)
    sampler = load_algorithm(settings, mechanisms, prior, operator, noise)
    steps = sampler.clock.num_steps
    counted = census(mechanisms, settings.first_particle, settings.num_samples, max(settings.rounds), steps)
    return Parts(device, prior, operator, instrument, noise, sampler, sampler.clock, counted, metrics, side, geometry)


def coarse(settings: Settings, operator: Operator, side: int, resolution: int) -> Operator:
    """The operator of images of `resolution` pixels, of the centre of what one of `side` pixels measures. Raises InputError."""
    inner = operator.operator if isinstance(operator, WithFidelity) else operator
    if not hasattr(inner, "coarse"):
        raise InputError(
            f"data.resolution={side}: {type(inner).__name__} cannot measure an image of {resolution} pixels in its place "
            "(coarse, centre); choose phase_retrieval, or a model of that size"
        )
    if side % resolution:
        log.info(
            "%d pixels are no multiple of %d: an image's pixel is %.4g of the object's", side, resolution, side / resolution
        )
    frame = getattr(inner, "frame", None)
    if frame and any(samples * resolution % side for samples in frame):
        log.info("frames of %d x %d samples are no whole number of times those of %d pixels of %d", *frame, resolution, side)
    if not isinstance(operator, WithFidelity):
        return inner.coarse(side, resolution)
    terms = own_terms(settings.data_term, inner.coarse(side, resolution).sigma)
    return operator.coarse(side, resolution, terms).to(next(iter(operator.buffers()), torch.empty(0)).device)


def load_below(settings: Settings, prior: LatentPrior, operator: Operator) -> Algorithm:
    """What solves the image at the coarser level; settings: of that level; prior, operator: of the level above."""
    size = settings.model.resolution
    operator = coarse(settings, operator, prior.resolution, size).to(prior.device)
    own_prior = load_prior(settings, prior.device)
    noise = KeyedNoise(settings.seed).of_level(size)
    course = registry.check(settings, clock_of(settings))
    return load_algorithm(settings, list(planned(settings, course, own_prior, operator)), own_prior, operator, noise)


def load_algorithm(
    settings: Settings, mechanisms: Sequence[Mechanism], prior: LatentPrior, operator: Operator, noise: KeyedNoise
) -> Algorithm:
    """The algorithm that `sampler._target_` names. Raises InputError."""
    target = settings.sampler.target
    try:
        algorithm = resolve_name(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"sampler._target_={target}: cannot be imported ({one_line(error)}); {TO_BE_FOUND}") from None
    if not (isinstance(algorithm, type) and issubclass(algorithm, Algorithm)):
        raise InputError(f"sampler._target_={target}: is no utils.algorithms.contract.Algorithm; subclass it")
    if mechanisms and not algorithm.takes_mechanisms:
        raise InputError(f"sampler._target_={target}: no mechanism acts within it; leave out {mechanisms[0].name}")
    passes = Passes(settings.max_particles_per_pass)
    try:
        return algorithm.of_settings(settings, settings.algorithm_node, mechanisms, prior, operator, noise, passes)
    except (TypeError, ValueError) as error:
        raise InputError(f"sampler._target_={target}: cannot be built ({one_line(error)}); check this block's keys") from None


def try_parts_of_ones_own(settings: Settings, prior: LatentPrior, operator: Operator, device: torch.device) -> None:
    """Those that are not ours, and any physics of deepinv. Raises InputError in one line that names the part."""
    model, target = settings.model.target, settings.group.operator.target
    if not model.startswith("utils.priors.") and not devices.compiles_each_graph(device):
        try_prior(f"model._target_={model}", getattr(prior, "plain", prior))
    if target not in OURS or "physics" in settings.operator_node:
        try_operator(operator_key(settings), operator, prior, device)


def operator_key(settings: Settings) -> str:
    """The operator's place in the config, with its class."""
    return f"task.{settings.task_group}.operator._target_={settings.group.operator.target}"


def load_operator(settings: Settings, geometry: Geometry | None = None) -> Operator:
    """The task's operator on the CPU, without the terms of the block `fidelity`. Raises InputError.

    geometry: of the measurements' frames; None: as their files say.
    """
    geometry = geometry_of(settings) if geometry is None else geometry
    with _LOADING, keyed_globals(settings.seed, "mask"):  # what a physics of others draws follows the seed too
        return make(f"task.{settings.task_group}.operator", settings.operator_node, **geometry.arguments())


def load_prior(settings: Settings, device: torch.device) -> LatentPrior:
    """The prior that the settings name, `prepared`."""
    with _LOADING:
        if settings.model.target in OUR_LOADERS:
            library.load(ours_alone=not (settings.compile or names_code_of_others(settings.composition.nodes)))
        prior = make("model", settings.model_node, path=locate(settings.model.path), device=device)
    return prepared(prior, settings, device)


def prepared(prior: LatentPrior, settings: Settings, device: torch.device) -> LatentPrior:
    """A loaded prior, computing as the settings ask."""
    if settings.precision == "bf16":
        if not devices.has_fast_bf16(device):
            log.warning("precision=bf16: this device only emulates bfloat16, far more slowly than precision=fp32 computes")
        prior.compute_in(torch.bfloat16)
    if settings.gradient_checkpointing:
        prior.checkpoint_decoder()
    return CompiledPrior(prior) if settings.compile else prior


def planned(settings: Settings, course: Course, prior: LatentPrior, operator: Operator) -> Iterator[Mechanism]:
    """The mechanisms that the switches ask for, in the order in which they act. Raises InputError."""
    if settings.below is not None:
        course = course._replace(below=load_below(settings.below, prior, operator))
    for mechanism in registry.switched_on(settings):
        if mechanism.separable and not operator.separable:
            raise InputError(
                f"{mechanism.switch(settings)}: the loss of {type(operator).__name__} is no sum over "
                "channels (operators.base.Operator.separable); choose another task, or -1 for off"
            )
        yield registry.builder(mechanism)(settings, course, prior, operator)


def own_mechanisms(settings: Settings, clock: StepClock) -> Iterator[Mechanism]:
    """Those of `mechanisms`, after ours. Raises InputError."""
    for name, node in settings.composition.nodes.get("mechanisms", {}).items():
        mechanism = make_own(Mechanism, f"mechanisms.{name}", node, clock=clock)
        if mechanism.needs_all and settings.population == "sequential":
            raise InputError(
                f"mechanisms.{name}: {type(mechanism).__name__} needs all of an image's particles at once (needs_all); "
                "leave it out, or choose population=fixed"
            )
        mechanism.name = name
        yield mechanism


def own_terms(fidelity: Fidelity, sigma: float) -> dict[str, Term]:
    """Those of `fidelity.terms` that have a weight. Raises InputError."""
    weighted = {name: term.node for name, term in fidelity.terms.items() if term.weight}
    return {name: make_own(Term, f"fidelity.terms.{name}", node, sigma=sigma) for name, node in weighted.items()}


def check_separable(settings: Settings, terms: dict[str, Term]) -> None:
    """Raises InputError for a term that says nothing of single channels where a mechanism needs that."""
    asking = next((plan for plan in registry.switched_on(settings) if plan.separable), None)
    name = next((name for name, term in terms.items() if not term.separable), None)
    if asking and name:
        raise InputError(
            f"fidelity.terms.{name}: {type(terms[name]).__name__} is no sum over channels (Term.separable), as "
            f"{asking.switch(settings)} needs it; leave one of the two out"
        )


def own_metrics(nodes: dict[str, dict[str, Any]]) -> Iterator[Metric]:
    """Those of `metrics`, beside ours. Raises InputError."""
    taken = {*(metric.name for metric in ORDER), *(field.alias or key for key, field in Metrics.model_fields.items())}
    for name, node in nodes.items():
        if name in (*taken, "mechanisms") or not name.isidentifier():
            reason = "is no plain word" if not name.isidentifier() else "is a key of metrics.json already"
            raise InputError(f"metrics.{name}: {reason}; choose another name")
        metric = make_own(Metric, f"metrics.{name}", node)
        metric.name = name
        try:
            Described.model_validate(metric.about())
        except ValidationError as error:
            raise InputError(f"metrics.{name}: {': '.join(fault(error, metric.about()))}; see utils/metrics/base.py") from None
        yield metric


def load_batch(parts: Parts, settings: Settings, images: Sequence[TestItem]) -> tuple[Particles, torch.Tensor | None]:
    """(particles, truth) of some items: keyed noise, particles not yet drawn; truth (N, 3, H, W), None of measurements.

    Raises Lost for a file that has gone or changed since the run began.
    """
    ys, truths = zip(*(measured(parts, settings, image) for image in images))
    y, truth = torch.stack(ys), None if truths[0] is None else torch.stack(truths)
    if parts.instrument is not parts.operator:
        y = parts.instrument.centre(y, parts.side, parts.prior.resolution)
    numbers, shape = [image.id for image in images], parts.prior.latent_shape
    particles = Particles.start(y, numbers, settings.num_samples, settings.first_particle, shape, parts.prior.dtype)
    return particles, truth


def measured(parts: Parts, settings: Settings, image: TestItem) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(y on the device, truth (3, H, W) on the CPU, in [-1, 1] or None) of one item: given, read, or simulated. Raises Lost."""
    if isinstance(image, Given):
        return torch.from_numpy(image.y).to(parts.device), None if image.truth is None else torch.from_numpy(image.truth)
    if settings.data.kind == "measurement":
        return torch.from_numpy(loaded(image, parts.geometry.of(image).values)).to(parts.device), None
    truth = torch.from_numpy(loaded(image, partial(image.pixels, parts.side)))
    return measure(parts, truth, image.id)[0], truth


def measure(parts: Parts, x: torch.Tensor, image_id: int) -> torch.Tensor:
    """The measurement (1, ...) of one image x (3, H, W); its noise depends on the seed and the image alone."""
    x = x[None].to(parts.device)
    shape = parts.instrument(x).shape
    return parts.instrument.measure(x, parts.noise.measurement(image_id, shape).to(parts.device))
