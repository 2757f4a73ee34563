"""Builds the parts of a run from its config: device, prior, operator, sampler, clock. The first module to import torch."""

import logging
import os
import statistics
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pkgutil import resolve_name
from typing import Any, NamedTuple

from pydantic import ValidationError

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the memory probe would report a missing GPU

import numpy as np  # noqa: E402
import torch  # noqa: E402

from operators.base import Operator  # noqa: E402
from operators.fidelity import WithFidelity  # noqa: E402
from operators.term import Term  # noqa: E402
from utils import device as devices  # noqa: E402
from utils.algorithms.contract import Algorithm  # noqa: E402
from utils.config.model import OUR_LOADERS  # noqa: E402
from utils.config.operators import OURS  # noqa: E402
from utils.config.relations import clock_of  # noqa: E402
from utils.config.sections import Fidelity  # noqa: E402
from utils.config.settings import Settings  # noqa: E402
from utils.data import Given, Measurement, TestItem, loaded  # noqa: E402
from utils.diagnosis.findings import Frame, findings_of  # noqa: E402
from utils.diagnosis.plausibility import Findings, lost, noise_on, of_picture, of_spectrum  # noqa: E402
from utils.diagnosis.tryout import (  # noqa: E402
    check_kinds,
    try_metric,
    try_operator,
    try_prior,
    try_similarity,
    try_term,
)
from utils.errors import InputError, one_line, short  # noqa: E402
from utils.measurements import Convention  # noqa: E402
from utils.mechanisms import registry  # noqa: E402
from utils.mechanisms.plan import Course  # noqa: E402
from utils.metrics.base import Metric  # noqa: E402
from utils.metrics.registry import ORDER  # noqa: E402
from utils.noise import KeyedNoise, keyed_globals  # noqa: E402
from utils.priors import library  # noqa: E402
from utils.priors.base import LatentPrior  # noqa: E402
from utils.priors.wrappers import CompiledPrior  # noqa: E402
from utils.records.metrics import Metrics  # noqa: E402
from utils.records.record import Described  # noqa: E402
from utils.running.finished import names_code_of_others  # noqa: E402
from utils.running.geometry import Geometry, geometry_of  # noqa: E402
from utils.running.making import make  # noqa: E402
from utils.running.ranks import Rank  # noqa: E402
from utils.running.threads import threads_of  # noqa: E402
from utils.sampling.mechanism import Census, Mechanism, census  # noqa: E402
from utils.sampling.particles import Particles  # noqa: E402
from utils.sampling.passes import Passes  # noqa: E402
from utils.sampling.schedule import StepClock  # noqa: E402
from utils.weights import locate  # noqa: E402

log = logging.getLogger("latentdaps")
LOOKED_AT = 3  # frames whose centre, noise and background are looked for
_LOADING = threading.Lock()  # diffusers patches torch while it loads, and the cores of one process are threads


class Parts(NamedTuple):
    device: torch.device
    prior: LatentPrior
    operator: Operator  # of what is sampled: of a coarse level it measures the centre of a spectrum
    noise: KeyedNoise
    sampler: Algorithm
    clock: StepClock
    census: Census
    metrics: tuple[Metric, ...] = ()  # of one's own
    measuring: Operator | None = None  # of the whole object, where `operator` is that of a coarse level
    side: int = 0  # of the object, pixels
    geometry: Geometry = Geometry()  # what the frames of a detector say

    @property
    def instrument(self) -> Operator:
        """What the data were, or will be, measured with."""
        return self.operator if self.measuring is None else self.measuring


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
    operator = operator.to(device)
    side, measuring = prior.resolution, None
    if settings.pixel != 1:
        side = settings.data.resolution
        measuring, operator = operator, coarse(settings, operator, side, prior.resolution)
    noise = KeyedNoise(settings.seed)
    mechanisms = list(all_mechanisms(settings, prior, operator)) if settings.anneals else []
    for compared in (each for mechanism in mechanisms for each in mechanism.compared()) if tried else ():
        if compared.of_ones_own:
            try_similarity(compared.key, compared.function, prior)
    sampler = load_algorithm(settings, mechanisms, prior, operator, noise)
    clock = sampler.clock
    counted = census(mechanisms, settings.first_particle, settings.num_samples, max(settings.rounds), clock.num_steps)
    metrics = tuple(own_metrics(settings.composition.nodes.get("metrics", {})))
    for metric in metrics if tried else ():
        try_metric(f"metrics.{metric.name}", metric, prior, operator)
    return Parts(device, prior, operator, noise, sampler, clock, counted, metrics, measuring, side, geometry)


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
    own = load_prior(settings, prior.device)
    noise = KeyedNoise(settings.seed).of_level(size)
    course = registry.check(settings, clock_of(settings))
    return load_algorithm(settings, list(planned(settings, course, own, operator)), own, operator, noise)


def load_algorithm(
    settings: Settings, mechanisms: Sequence[Mechanism], prior: LatentPrior, operator: Operator, noise: KeyedNoise
) -> Algorithm:
    """The algorithm that `sampler._target_` names. Raises InputError."""
    target = settings.sampler.target
    try:
        algorithm = resolve_name(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"sampler._target_={target}: cannot be imported ({one_line(error)}); put the folder of your module on PYTHONPATH"
        ) from None
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


def all_mechanisms(settings: Settings, prior: LatentPrior, operator: Operator) -> Iterator[Mechanism]:
    """Ours that are on, and then one's own."""
    clock = clock_of(settings)
    yield from planned(settings, registry.check(settings, clock), prior, operator)
    yield from own_mechanisms(settings, clock)


def planned(settings: Settings, course: Course, prior: LatentPrior, operator: Operator) -> Iterator[Mechanism]:
    """The mechanisms that the switches ask for, in the order in which they act."""
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


def own_terms(fidelity: Fidelity, sigma: float) -> dict[str, Term]:
    """Those of `fidelity.terms` that have a weight. Raises InputError for a class that is no Term."""
    terms = {}
    for name, node in fidelity.terms.items():
        if not node.weight:
            continue
        terms[name] = make(f"fidelity.terms.{name}", node.node, sigma=sigma)
        if not isinstance(terms[name], Term):
            raise InputError(f"fidelity.terms.{name}._target_={node.target}: is no operators.term.Term; subclass it")
    return terms


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
    """Those of `metrics`, beside ours. Raises InputError for a name that is taken and for a class that is no Metric."""
    taken = {*(metric.name for metric in ORDER), *(field.alias or key for key, field in Metrics.model_fields.items())}
    for name, node in nodes.items():
        if name in (*taken, "mechanisms") or not name.isidentifier():
            reason = "is no plain word" if not name.isidentifier() else "is a key of metrics.json already"
            raise InputError(f"metrics.{name}: {reason}; choose another name")
        metric = make(f"metrics.{name}", node)
        if not isinstance(metric, Metric):
            raise InputError(f"metrics.{name}._target_={node['_target_']}: is no utils.metrics.base.Metric; subclass it")
        metric.name = name
        try:
            Described.model_validate(metric.about())
        except ValidationError as error:
            wrong = error.errors()[0]
            fault = f"{wrong['loc'][0]}={short(wrong['input'])}: {wrong['msg'][0].lower()}{wrong['msg'][1:]}"
            raise InputError(f"metrics.{name}: {fault}; see utils/metrics/base.py") from None
        yield metric


def load_batch(parts: Parts, settings: Settings, images: Sequence[TestItem]) -> tuple[Particles, torch.Tensor | None]:
    """(particles, truth) of some utils.data.TestImage, Measurement or Given: keyed noise, particles not yet drawn.

    truth is (N, 3, H, W) on the CPU, in [-1, 1], or None for measurements, which `check_measurements` has checked.
    Raises InputError for a file that has gone or changed since.
    """
    if isinstance(images[0], Given):
        y = torch.stack([torch.from_numpy(image.y) for image in images]).to(parts.device)
        truth = None if images[0].truth is None else torch.stack([torch.from_numpy(image.truth) for image in images])
    elif settings.data.kind == "measurement":
        read = [loaded(image, parts.geometry.of(image).values) for image in images]
        truth, y = None, torch.stack([torch.from_numpy(values) for values in read]).to(parts.device)
    else:
        truth = torch.stack([torch.from_numpy(loaded(image, partial(image.pixels, parts.side))) for image in images])
        y = torch.cat([measure(parts, x, image.id) for x, image in zip(truth, images)])
    if parts.measuring is not None:
        y = parts.measuring.centre(y, parts.side, parts.prior.resolution)
    particles = Particles.start(
        y,
        [image.id for image in images],
        settings.num_samples,
        settings.first_particle,
        parts.prior.latent_shape,
        parts.prior.dtype,
    )
    return particles, truth


def check_measurements(parts: Parts, images: Sequence[Measurement]) -> None:
    """Raises InputError, before anything is sampled, if one of some utils.data.Measurement does not fit the operator.

    Those that fit and are implausible end in a warning for each likely key (utils.diagnosis.plausibility).
    """
    side, operator, convention = parts.side, parts.instrument, parts.geometry.of(images[0]).convention
    levels = torch.tensor([-1.0, 0.0, 1.0], device=parts.device)
    flat = operator(levels[:, None, None, None].expand(3, 3, side, side))  # (3, ...)
    if not operator.spectrum:
        _refuse_spectral_keys(operator, convention)
    wanted, highest = tuple(flat.shape[1:]), float(flat.abs().max())
    seen = None if operator.spectrum else (flat != flat[:1]).any(0).cpu().numpy()  # of a flat image's spectrum all but one is 0
    wrong, findings, missing, impossible, off_centre, idle, remarks = [], Findings(), {}, [], [], [], {}
    for image in images:
        reading, sigma = loaded(image, parts.geometry.of(image).read), operator.sigma
        missing[image.name] = float(np.isnan(reading.y).mean())
        idle.append(dict(reading.idle))
        remarks.update((text, image.name) for text in reading.remarks(image.convention) if text not in remarks)
        if reading.y.shape != wanted:
            wrong.append((image.path, reading.y.shape))
            continue
        noise = noise_on(reading.y, convention, sigma) if operator.spectrum else sigma
        if reason := lost(reading, noise, convention if operator.spectrum else None, seen):
            impossible.append((image.path, reason))
        elif operator.spectrum:
            findings.add(image.name, of_spectrum(reading, convention, side * side, sigma))
            if len(missing) <= LOOKED_AT:
                frame = Frame.of(reading, convention, side, sigma, "operator.sigma")
                said = findings_of(frame)
                off_centre += [
                    (image.path, each, frame.in_file) for each in said if (each.what, each.severity) == ("centre", "refuse")
                ]
                warned = [each for each in said if each.severity == "warning" and each.what != "convention"]  # said above
                findings.add(image.name, [(each.override or each.what, each.value) for each in warned])
        else:
            findings.add(image.name, of_picture(reading, highest, sigma, seen))
    if wrong:
        path, shape = wrong[0]
        more = f", and {len(wrong) - 1} more do not fit" if len(wrong) > 1 else ""
        one = wanted[0] == 3 and (len(shape) == 2 or shape[0] == 1)
        hint = "; data.channels=1 is for one channel" if one and operator.spectrum else ""
        raise InputError(f"data.root: {path} has shape {shape}; this task measures {wanted}{more}{hint}")
    if impossible:
        path, reason = impossible[0]
        more = f" (and {len(impossible) - 1} more files)" if len(impossible) > 1 else ""
        raise InputError(f"data.root: {path}{more}: {reason}")
    if off_centre:
        path, centre, told = off_centre[0]
        more = f" (and {len(off_centre) - 1} more files)" if len(off_centre) > 1 else ""
        raise InputError(
            f"data.root: {path}{more}: its zero frequency lies at {centre.value}; {centre.override} takes it from there, and "
            f"data.center=[{told[0]:g},{told[1]:g}] insists on what is told"
        )
    for value, nearest in idle[0].items():  # of the values that one file has nowhere, those that no file has
        if all(value in of_file for of_file in idle):
            hint = f"; the nearest value in {images[0].name} is {nearest}" if nearest else ""
            log.warning("data.mask=[%s]: no pixel of the %d files has that value%s", value, len(images), hint)
    for text, name in remarks.items():
        log.info("%s: %s", name, text)
    if any(missing.values()):
        most, mean = max(missing, key=missing.__getitem__), statistics.fmean(missing.values())
        log.info("not measured: %.3g %% of the pixels; most in %s, %.3g %%", 100 * mean, most, 100 * missing[most])
    for line in findings.lines():
        log.warning("%s", line)


def _refuse_spectral_keys(operator: Operator, convention: Convention) -> None:
    """For an operator of one's own; ours are refused before torch is imported."""
    for key in ("quantity", "center", "norm", "channels", "support", "background", "bin", "crop"):
        value = getattr(convention, key)
        if value != getattr(Convention(), key):
            raise InputError(
                f"data.{key}={value}: {type(operator).__name__} measures no spectrum (Operator.spectrum); leave it out"
            )


def measure(parts: Parts, x: torch.Tensor, image_id: int) -> torch.Tensor:
    """The measurement (1, ...) of one image x (3, H, W); its noise depends on the seed and the image alone."""
    x = x[None].to(parts.device)
    shape = parts.instrument(x).shape
    return parts.instrument.measure(x, parts.noise.measurement(image_id, shape).to(parts.device))
