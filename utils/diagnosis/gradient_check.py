"""Does the gradient arrive, stage by stage, from the loss to the latent? What tools/check_gradients.py prints.

Each stage is followed alone, from an input of its own, so that one cut hides no other. Where a gradient flows it is compared
with finite differences, and two particles in one batch with the same two alone.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from operators.base import Operator
from utils.config.settings import Settings
from utils.diagnosis.gradients import Flow, Trace, computed, failed, follow
from utils.diagnosis.tryout import ramp, what_is_wrong
from utils.errors import InputError
from utils.noise import keyed_generator
from utils.priors.wrappers import CountingPrior
from utils.running.build import Parts
from utils.sampling.mechanism import Mechanism
from utils.sampling.particles import Particles

# of the finite differences, per entry of images in [-1, 1] and latents of variance 1
STEPS = {torch.float32: (3e-2, 1e-2, 3e-3, 1e-3), torch.float64: (1e-3, 1e-4, 1e-5, 1e-6)}
DIRECTIONS = 2
WRONG_SLOPE = 0.05  # relative to the gradient's norm; the shipped parts stay below 0.01
SAME_SLOPE = 0.02  # slopes of two steps that agree so far are a slope, and not rounding
MIXED = 1e-4  # relative change of particle 0 by particle 1; passes of one size give the same bits
OTHER_BATCH = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 5e-2}  # relative; other pass sizes sum in another order
NOT_ASKED = "not asked for"
BROKEN = ("cut", "zero", "non-finite", "fails")


@dataclass
class Row:
    """One stage. gradient: a state of Flow, "none taken", or NOT_ASKED; the numbers are relative, None where not measured.

    slope: finite differences against autograd; other: particle 0 when particle 1 changes; alone: batch against singles;
    findings: what is wrong, a line of text each; notes: what is worth knowing and no fault.
    """

    stage: str
    part: str
    goes_in: str
    comes_out: str
    gradient: str
    slope: float | None = None
    other: float | None = None
    alone: float | None = None
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class Stage:
    """part: (P, ...) to (P, ...) or (P,), each particle for itself; x: two particles; asked: whether a gradient is.

    exact: the same in float64, for the finite differences; None where there is no such thing.
    """

    name: str
    of: str
    part: Callable[[torch.Tensor], torch.Tensor]
    x: torch.Tensor
    asked: bool = True
    exact: Callable[[torch.Tensor], torch.Tensor] | None = None


def check_gradients(parts: Parts, settings: Settings) -> Iterator[Row]:
    """The stages of a run, those of the loss first. Raises InputError for what the operator refuses."""
    prior, operator = getattr(parts.prior, "plain", parts.prior), parts.operator
    particles = some_particles(parts, max(3, settings.num_samples))
    z = parts.noise.draw(particles, "initial")  # (P, C, h, w)
    images = computed(prior.decode, z).result
    side = prior.resolution
    if not isinstance(images, torch.Tensor) or images.shape != (len(z), 3, side, side):
        images = ramp((len(z), 3, side, side), prior)
    pair, z2 = images[:2].to(prior.dtype), z[:2]
    y = measurement(parts, images[2:3])

    def loss(x: torch.Tensor, operator: Operator = operator) -> torch.Tensor:
        return operator.loss(x, y.to(x.dtype).expand(len(x), *y.shape[1:]))

    exact = in_float64(operator)
    model, task = type(prior).__name__, type(operator).__name__
    stages = [
        Stage("operator", task, operator, pair, exact=exact),
        Stage("decoder", model, prior.decode, z2),
    ]
    if y is not None:
        stages[:0] = [Stage("loss", f"{task}.loss", loss, pair, exact=exact and partial(loss, operator=exact))]
        stages += [Stage("all: loss of the latent", f"{task}, {model}", lambda z: loss(prior.decode(z)), z2)]
    sigma = torch.ones((), dtype=prior.dtype, device=prior.device)
    stages += [Stage("denoiser", model, lambda z: prior.denoise(z, sigma), z2, asked=False)]
    for mechanism in parts.sampler.mechanisms:
        for compared in mechanism.compared():
            stages += [Stage("similarity", compared.name, compared.function, z2 if compared.of == "latent" else pair)]
    sound = True
    for stage in stages:
        row = examined(stage, settings.precision)
        sound &= row.gradient not in BROKEN
        yield row
    for mechanism in parts.sampler.mechanisms if sound and y is not None else ():  # they call the stages above
        yield from acted(mechanism, parts, particles.at(z).select(torch.arange(settings.num_samples)), y)


def in_float64(operator: Operator) -> Operator | None:
    """A copy with its numbers in float64; None for one that cannot be copied."""
    try:
        return copy.deepcopy(operator).double()
    except Exception:  # whatever operators of others hold
        return None


def some_particles(parts: Parts, count: int) -> Particles:
    """`count` particles of image 0 with empty latents and no measurement."""
    nothing = torch.zeros(1, 0, dtype=parts.prior.dtype, device=parts.device)
    return Particles.start(nothing, [0], count, 0, parts.prior.latent_shape, parts.prior.dtype)


def measurement(parts: Parts, image: torch.Tensor) -> torch.Tensor | None:
    """(1, ...) of an image (1, 3, H, W) with its noise; None where the operator gives none."""
    clean = computed(parts.operator, image).result
    if not isinstance(clean, torch.Tensor) or not clean.is_floating_point():
        return None
    noise = parts.noise.measurement(0, clean.shape).to(clean.device, clean.dtype)
    measured = computed(lambda x: parts.operator.measure(x, noise), image).result
    return measured if isinstance(measured, torch.Tensor) else None


def examined(stage: Stage, precision: str) -> Row:
    """One stage followed, and compared where its gradient flows."""
    flow = run(stage, stage.x)
    gradient = flow.state if stage.asked or flow.state in BROKEN else NOT_ASKED
    row = Row(stage.name, stage.of, described(stage.x), described(flow.result), gradient)
    if gradient in BROKEN:
        row.findings = tuple(map(str, flow.lost)) or ("its result comes from outside PyTorch: a C extension, or constants",)
        return row
    if (fault := what_is_wrong(flow, stage.x)) is not None:
        row.findings = (f"{fault[0]}; {fault[1]}",)
        return row
    first, second = stage.x[:1], stage.x[1:]
    moved = run(stage, torch.cat([first, 1.5 * second.flip(-1)]))
    row.other = max(difference(a[:1], b[:1]) for a, b in zip(numbers(moved), numbers(flow)))
    alone = zip(numbers(run(stage, first)), numbers(run(stage, second)), numbers(flow))
    row.alone = max(difference(a, both[:1]) + difference(b, both[1:]) for a, b, both in alone)
    if row.other > MIXED:
        row.findings += (f"particle 0 changes by {row.other:.2g} when particle 1 does: keep the first axis apart",)
    elif row.alone > OTHER_BATCH[precision]:
        row.findings += (f"two particles in a batch differ from the same two alone by {row.alone:.2g}",)
    if stage.asked:
        compare_slopes(row, stage, flow)
    return row


def run(stage: Stage, x: torch.Tensor) -> Flow:
    return follow(stage.part, x, signs) if stage.asked else computed(stage.part, x)


def numbers(flow: Flow) -> list[torch.Tensor]:
    """What a stage gives, and its gradient."""
    return [t for t in (flow.result, flow.gradient) if t is not None]


def signs(like: torch.Tensor, number: int = 0) -> torch.Tensor:
    """+1 and -1 shaped like (P, ...), the same for each particle; others for another `number`."""
    drawn = keyed_generator(0, "mask", step=number).choice([-1.0, 1.0], tuple(like.shape[1:]))
    return torch.as_tensor(drawn, dtype=like.dtype).to(like.device).expand_as(like)


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest absolute difference relative to the largest value of b; infinite for other shapes."""
    if a.shape != b.shape:
        return math.inf
    return float((a - b).abs().max() / b.abs().max().clamp(min=torch.finfo(b.dtype).tiny))


def compare_slopes(row: Row, stage: Stage, flow: Flow) -> None:
    """Finite differences of sum(w part(x)) along some directions against <gradient, direction>, relative to |gradient|."""
    part, x, gradient = stage.part, stage.x, flow.gradient
    if stage.exact is not None:
        exactly = exact_flow(stage)
        if exactly is not None:
            part, x, gradient = stage.exact, stage.x.double(), exactly
    if x.dtype not in STEPS:
        row.notes += (f"no finite differences in {str(x.dtype).removeprefix('torch.')}",)
        return
    weights, norm = signs(flow.result).double(), gradient.double().norm()
    worst, resolved = 0.0, True
    for number in range(1, DIRECTIONS + 1):
        direction = signs(x, number)
        expected = (gradient * direction).double().sum()
        slopes = [central_difference(part, x, direction, weights, h) for h in STEPS[x.dtype]]
        errors = [float((slope - expected).abs() / norm) for slope in slopes]
        worst = max(worst, min(errors))
        steady = min(abs(a - b) for a, b in zip(errors, errors[1:]))
        resolved &= min(errors) <= WRONG_SLOPE or steady <= SAME_SLOPE
    row.slope = worst
    if worst <= WRONG_SLOPE:
        return
    if not resolved:
        row.notes += ("finite differences depend on their step here (rounding, or jumps): they say nothing",)
        return
    ways = f" ({'; '.join(map(str, flow.lost[:3]))})" if flow.lost else ""
    text = f"autograd differs from finite differences by {worst:.2g} of the gradient: a way of it is lost or wrong{ways}"
    if flow.lost and all(place.meant for place in flow.lost):  # such as the straight-through gradient of a codebook
        row.notes += (text,)
    else:
        row.findings += (text,)


def exact_flow(stage: Stage) -> torch.Tensor | None:
    """The gradient in float64, where the stage computes in it."""
    try:
        flow = follow(stage.exact, stage.x.double(), signs)
    except InputError:
        return None
    computes = isinstance(flow.result, torch.Tensor) and flow.result.dtype == torch.float64
    return flow.gradient if flow.state == "flows" and computes else None


def central_difference(
    part: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    direction: torch.Tensor,
    weights: torch.Tensor,
    h: float,
) -> torch.Tensor:
    """(part(x + h d) - part(x - h d)) / (2 h), weighted and summed in float64."""
    up, down = (computed(part, x + step * direction).result for step in (h, -h))
    return (weights * (up.double() - down.double())).sum() / (2 * h)


def acted(mechanism: Mechanism, parts: Parts, particles: Particles, y: torch.Tensor) -> Iterator[Row]:
    """What a mechanism does at the first step at which it acts, with the particles of one image; y (1, ...)."""
    sampler, clock = copy.copy(parts.sampler), parts.clock
    sampler.prior = CountingPrior(getattr(parts.prior, "plain", parts.prior))
    steps = [step for step in range(clock.num_steps) if mechanism.acts(step)]
    kind = type(mechanism)
    if not steps:
        yield Row(mechanism.name, kind.__name__, "", "", "brings in particles" if mechanism.entrance else "never acts")
        return
    s, z = sampler.scalars(steps[0]), particles.z
    particles = Particles(z, y.expand(len(z), *y.shape[1:]), particles.image, particles.index)
    with torch.no_grad():
        value = sampler.prior.decode(z) if mechanism.bends == "image" else z
        noisy = particles.at(z + s.sigma * parts.noise.draw(particles, "annealing"))
    places: dict[str, tuple[torch.Tensor, Callable[[], Any]]] = {
        "guide": (z, lambda: mechanism.guide(z, noisy, s, sampler)),
        "bend": (value, lambda: mechanism.bend(signs(value), value, len(z), s.strengths[mechanism.name])),
        "after_chain": (z, lambda: mechanism.after_chain(particles, s, sampler)[0].z),
    }
    for place, (x, act) in places.items():
        if getattr(kind, place) is getattr(Mechanism, place) or (place == "bend" and not mechanism.bends):
            continue
        yield act_followed(f"{mechanism.name}.{place}", kind.__name__, x, act)


def act_followed(name: str, of: str, x: torch.Tensor, act: Callable[[], Any]) -> Row:
    """One place at which a mechanism acts; the gradients are those that it takes itself."""
    trace = Trace()
    try:
        with torch.no_grad(), trace:
            result = act()
    except Exception as error:
        flow = failed(error, trace)
        return Row(name, of, described(x), "", flow.state, findings=tuple(map(str, flow.lost)))
    row = Row(name, of, described(x), described(result), worst_of(trace))
    if not isinstance(result, torch.Tensor):
        row.gradient, row.findings = "fails", (f"it returns {type(result).__name__}, no tensor",)
    elif not torch.isfinite(result).all():
        row.gradient, row.findings = "non-finite", ("it returns non-finite numbers",)
    elif row.gradient in BROKEN:
        row.findings = (f"each gradient that it takes is {row.gradient}",)
    return row


def worst_of(trace: Trace) -> str:
    """The state of the gradients that were taken: zero only if each is."""
    if not trace.taken:
        return "none taken"
    return next(state for state in ("non-finite", "flows", "zero") if state in trace.taken)


def described(value: Any) -> str:
    """Shape, dtype and device of a tensor, else its type."""
    if not isinstance(value, torch.Tensor):
        return "" if value is None else type(value).__name__
    return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')} {value.device}"
