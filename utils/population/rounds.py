"""A sequential population: particles of an image are started round by round, only while no certificate passes.

Round r starts the next particles, by number and so with noise of their own, of those images of the batch of which none has
passed; they go on together to the end, and nothing reaches them from the rounds before: so two that agree have found it apart.
What an image gets depends on no other image: nor does when it is done.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch

from utils.population.certificate import Certificate, Signals, Verdict
from utils.sampling.outcome import SampleResult, StepInfo
from utils.sampling.particles import Particles
from utils.sampling.profiler import Profiler, Share


class Sampler(Protocol):
    def sample(self, particles: Particles, profiler: Profiler, on_step: Callable[[StepInfo], None] = ...) -> SampleResult: ...


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
) -> Rounds:
    """particles: all that an image may have, as many for each image of the batch; sizes: how many of them each round starts.

    certificate: None for a population of one round, which nothing has to pass.
    on_round(images, first, size): before each round, which images have how many particles already and start how many.
    """
    images = list(dict.fromkeys(particles.image.tolist()))
    place = torch.arange(particles.per_image).repeat(len(images))  # within their image
    history: dict[int, list[Verdict]] = {i: [] for i in images}
    shares: dict[int, list[Share]] = {i: [] for i in images}
    results: list[SampleResult] = []
    signals: Signals = {}
    going, first = images, 0
    for size in sizes:
        on_round(going, first, size)
        in_round = torch.isin(particles.image, torch.as_tensor(going)) & (place >= first) & (place < first + size)
        of_round = particles if bool(in_round.all()) else particles.select(torch.nonzero(in_round).flatten())
        profiler = Profiler(particles.z.device)
        results.append(sampler.sample(of_round, profiler, on_step))
        for i in going:
            shares[i].append(Share(profiler, len(going)))
        if certificate is not None:
            with profiler.after(len(of_round)):
                for name, values in certificate.signals(results[-1]).items():
                    signals.setdefault(name, []).extend(values)
                finished = SampleResult.joined(results)
                for i in going:
                    rows = finished.particles.of_image(i)
                    of_image = {name: [values[row] for row in rows.tolist()] for name, values in signals.items()}
                    history[i].append(certificate.verdict(finished.image[rows.to(finished.image.device)], of_image))
        first += size
        going = [i for i in going if history[i] and not any(history[i][-1].passing)]
        if not going:
            break
    whole = results[0] if len(results) == 1 else SampleResult.joined(results)
    return Rounds(whole, history, {i: Profiler.of_rounds(parts) for i, parts in shares.items()})
