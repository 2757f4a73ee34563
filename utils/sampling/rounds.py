"""A sequential population: particles of an image are started round by round, only while no certificate passes.

Round r starts the next particles, by number and so with noise of their own, of those images of the batch of which none has
passed; they go on together to the end. Finished particles are at hand as donors (`Mechanism.beside`) and are not changed.
What an image gets depends on no other image: nor does when it is done.

A particle may also stop early, at an annealing step at which its loss says already that it would not pass. It is handed out
as it is then, and passes nothing. In the last round nobody stops: what is started there is the image's last chance.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch

from utils.sampling.mechanism import Finished, Report
from utils.sampling.outcome import Paused, SampleResult, StepInfo
from utils.sampling.particles import Particles
from utils.sampling.profiler import Profiler, Share

Signals = dict[str, list[float | None]]  # {name: of each particle}


class Verdict(NamedTuple):
    """On the particles of one image that are finished, in the order in which they were started."""

    signals: Signals
    passing: list[bool]
    stopped: tuple[bool, ...] = ()  # early; where nobody can, nothing


class Certificate(Protocol):
    """utils.evaluation.certificate.Certificate."""

    def hopeless(self, info: StepInfo) -> list[bool]: ...

    def signals(self, result: SampleResult) -> Signals: ...

    def verdict(self, image: torch.Tensor, signals: Signals) -> Verdict: ...


class Sampler(Protocol):
    def beside(self, finished: Finished) -> "Sampler": ...

    def sample(self, particles: Particles, profiler: Profiler, on_step: Callable[[StepInfo], None] = ...) -> SampleResult: ...

    def begin(self, particles: Particles, step: int, profiler: Profiler, on_step: Callable[[StepInfo], None]) -> Paused: ...

    def resume(self, paused: Paused, profiler: Profiler, on_step: Callable[[StepInfo], None]) -> SampleResult: ...

    def decoded(self, particles: Particles, profiler: Profiler, reports: dict[str, list[Report]]) -> SampleResult: ...


class Rounds(NamedTuple):
    """What the rounds of a batch found."""

    result: SampleResult  # of all particles, one round after the other
    history: dict[int, list[Verdict]]  # per image, after each of its rounds
    profilers: dict[int, Profiler]  # per image, its share


def sample_in_rounds(
    sampler: Sampler,
    particles: Particles,
    sizes: Sequence[int],
    certificate: Certificate | None,
    on_step: Callable[[StepInfo], None],
    on_round: Callable[[list[int], int, int], None] = lambda images, first, size: None,
    stop_at: int | None = None,
) -> Rounds:
    """particles: all that an image may have, as many for each image of the batch; sizes: how many of them each round starts.

    certificate: None for a population of one round, which nothing has to pass.
    stop_at: the annealing step after which particles without hope stop; None: all of them run to the end.
    on_round(images, first, size): before each round, which images have how many particles already and start how many.
    """
    images = list(dict.fromkeys(particles.image.tolist()))
    place = torch.arange(particles.per_image).repeat(len(images))  # within their image
    history: dict[int, list[Verdict]] = {i: [] for i in images}
    shares: dict[int, list[Share]] = {i: [] for i in images}
    results: list[SampleResult] = []
    signals: Signals = {}
    stopped: list[bool] = []
    going, first = images, 0
    for size in sizes:
        on_round(going, first, size)
        here = torch.isin(particles.image, torch.as_tensor(going)) & (place >= first) & (place < first + size)
        mine = particles if bool(here.all()) else particles.select(torch.nonzero(here).flatten())
        donors = at_hand(results, stopped, going)
        loop = sampler if donors is None else sampler.beside(donors)
        early = stop_at if first + size < particles.per_image else None
        result, parts, gone = sample_a_round(loop, mine, certificate, early, on_step)
        results.append(result)
        for profiler, those in parts:
            here_now = list(dict.fromkeys(those.image.tolist()))
            for i in here_now:
                count = len(those.of_image(i))
                shares[i].append(Share(profiler, len(here_now), count, count if profiler.first_step == 0 else 0))
        if certificate is not None:
            with parts[0][0].after(len(mine)):
                for name, values in certificate.signals(result).items():
                    signals.setdefault(name, []).extend(None if out else value for value, out in zip(values, gone))
                stopped += gone
                finished = SampleResult.joined(results)
                for i in going:
                    rows = finished.particles.of_image(i)
                    of_image = {name: [values[row] for row in rows.tolist()] for name, values in signals.items()}
                    found = certificate.verdict(finished.image[rows.to(finished.image.device)], of_image)
                    if stop_at is not None:
                        found = found._replace(stopped=tuple(stopped[row] for row in rows.tolist()))
                    history[i].append(found)
        first += size
        going = [i for i in going if history[i] and not any(history[i][-1].passing)]
        if not going:
            break
    whole = results[0] if len(results) == 1 else SampleResult.joined(results)
    return Rounds(whole, history, {i: Profiler.of_rounds(parts) for i, parts in shares.items()})


def at_hand(results: Sequence[SampleResult], stopped: Sequence[bool], going: Sequence[int]) -> SampleResult | None:
    """The particles of images that go on that have run to their end; None where there are none."""
    if not results or all(stopped):
        return None
    ended = SampleResult.joined(results).select(torch.nonzero(~torch.tensor(stopped)).flatten()).of_images(going)
    return ended if len(ended.particles) else None


def sample_a_round(
    loop: Sampler,
    particles: Particles,
    certificate: Certificate | None,
    stop_at: int | None,
    on_step: Callable[[StepInfo], None],
) -> tuple[SampleResult, list[tuple[Profiler, Particles]], list[bool]]:
    """The particles at their end, in their order; what followed which of them; and which stopped early."""
    device = particles.z.device
    profiler = Profiler(device)
    if certificate is None or stop_at is None:
        return loop.sample(particles, profiler, on_step), [(profiler, particles)], [False] * len(particles)
    paused = loop.begin(particles, stop_at, profiler, on_step)
    gone = certificate.hopeless(paused.info)
    out, on = (torch.nonzero(torch.tensor(gone) == which).flatten() for which in (True, False))
    followed, ends = [(profiler, particles)], []
    if len(on):
        later = Profiler(device, first_step=stop_at + 1)
        going_on = paused.select(on)
        ends.append(loop.resume(going_on, later, on_step))
        followed.append((later, going_on.particles))
    if len(out):
        with profiler.after(len(particles)):
            reports = {name: [] for name in paused.reports} if ends else paused.reports
            ends.append(loop.decoded(paused.info.particles.select(out), profiler, reports))
    order = torch.cat([on, out]).argsort()
    seconds = [second for p, _ in followed for second in p.step_s]
    return SampleResult.joined(ends).select(order)._replace(timing_info=seconds), followed, gone
