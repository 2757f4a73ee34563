"""Seconds, steps, network calls and peak memory per phase of one sampling run."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch

from utils import device as devices


@dataclass
class Phase:
    """Sums over one phase. Network calls are per particle; `peak_mb` is None where memory is not known.

    particles: in the batch during the phase; of one image's share its own.
    chain_s, chain_passes: seconds of the inner chains, and the iterations of all their particles, of which each is one pass
    forward and backward through decoder and data term. Of them alone a pass's time is known: nothing else runs in between.
    """

    time_s: float = 0.0
    steps: int = 0
    decoder_forward: float = 0.0
    decoder_forward_backward: float = 0.0
    denoiser_calls: float = 0.0
    encoder_forward: float = 0.0
    peak_mb: float | None = None
    particles: float = 0.0
    chain_s: float = 0.0
    chain_passes: float = 0.0

    def add(self, calls: Counter[str], before: Counter[str], particles: int) -> None:
        """Network calls since `before`, {kind: particles}, divided by those of the batch."""
        for kind, count in calls.items():
            setattr(self, kind, getattr(self, kind) + (count - before[kind]) / particles)


class Share(NamedTuple):
    """One image's part in what a profiler followed."""

    profiler: "Profiler"
    images: int  # of the batch


CALLS = ("decoder_forward", "decoder_forward_backward", "denoiser_calls", "encoder_forward")
SOMETIMES = ("encoder_forward", "chain_s", "chain_passes")


class Profiler:
    """Follows a run through its phases: `with profiler.run(...)`, and within it `with profiler.step(...)` for each step.

    A step of another phase closes the one before, synchronises the device and starts a new memory section.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.phases: dict[str, Phase] = {}
        self.step_s: list[float] = []  # seconds of each annealing step
        self.compile_s: float | None = None  # of compiling before and in the phases, None where nothing is compiled
        self._current: Phase | None = None

    @classmethod
    def of_rounds(cls, shares: Sequence[Share]) -> "Profiler":
        """One image's share of several rounds, as of one run of it alone.

        Seconds and steps add up, network calls are those of the mean particle, memory is that of the greatest round.
        """
        whole = cls(shares[0].profiler.device)
        whole.step_s = [sum(parts) for parts in zip(*([each / s.images for each in s.profiler.step_s] for s in shares))]
        compiled = [s.profiler.compile_s / s.images for s in shares if s.profiler.compile_s is not None]
        whole.compile_s = sum(compiled) if compiled else None
        for name in shares[0].profiler.phases:
            parts = [(s.profiler.phases[name], s) for s in shares]
            peaks = [phase.peak_mb for phase, _ in parts if phase.peak_mb is not None]
            whole.phases[name] = Phase(
                time_s=sum(phase.time_s / s.images for phase, s in parts),
                steps=sum(phase.steps for phase, _ in parts),
                peak_mb=max(peaks, default=None),
                particles=sum(phase.particles / s.images for phase, s in parts),
                chain_s=sum(phase.chain_s / s.images for phase, s in parts),
                chain_passes=sum(phase.chain_passes / s.images for phase, s in parts),
                **{kind: _mean([(getattr(p, kind), p.particles / s.images) for p, s in parts]) for kind in CALLS},
            )
        return whole

    @contextmanager
    def run(self, calls: Counter[str], phases: Sequence[str]) -> Iterator[None]:
        """The whole run. calls: {kind: particles that went through that network}, as utils.priors.wrappers counts them;
        phases: names in their order. One that is never entered has no steps."""
        self._calls = calls
        yield
        self._close()
        self.phases = {name: self.phases.get(name, Phase()) for name in phases}

    @contextmanager
    def step(self, phase: str, particles: int, probe_peak: Callable[[], float | None]) -> Iterator[None]:
        """One annealing step of a phase with so many particles in the batch.

        probe_peak() returns the peak memory in MB, or None where the device itself keeps one; it runs before the clock
        of a new phase.
        """
        if self._current is None or self._current is not self.phases.get(phase):
            self._close()
            self._enter(phase, particles, probe_peak())
        started = devices.clock(self.device)
        yield
        self.step_s.append(devices.clock(self.device) - started)
        self.phases[phase].steps += 1

    @contextmanager
    def chain(self, passes: int) -> Iterator[None]:
        """The iterations of a chain within a step, so many passes of a particle in all."""
        started = devices.clock(self.device)
        yield
        if self._current is not None:
            self._current.chain_s += devices.clock(self.device) - started
            self._current.chain_passes += passes

    @contextmanager
    def apart(self, phase: str, particles: int, probe_peak: Callable[[], float | None]) -> Iterator[None]:
        """What is done for so many particles between two steps, as a phase of its own without steps."""
        self._close()
        self._enter(phase, particles, probe_peak())
        yield
        self._close()

    def adopt(self, prefix: str, other: "Profiler") -> None:
        """The phases of a run within the run, between two steps; their names begin with `prefix` here."""
        self._close()
        self.phases |= {prefix + name: phase for name, phase in other.phases.items()}
        if other.compile_s is not None:
            self.compile_s = (self.compile_s or 0.0) + other.compile_s

    def idle(self) -> None:
        """A step in which there is no particle yet."""
        self.step_s.append(0.0)

    @contextmanager
    def after(self, particles: int) -> Iterator[None]:
        """What is done with so many particles after the run; it counts in the phase that ran last."""
        phase = next(phase for phase in reversed(self.phases.values()) if phase.steps)
        before, started = self._calls.copy(), devices.clock(self.device)
        yield
        phase.time_s += devices.clock(self.device) - started
        phase.add(self._calls, before, particles)

    def _enter(self, name: str, particles: int, probed_mb: float | None) -> None:
        devices.reset_peak_memory(self.device)
        self._current = self.phases.setdefault(name, Phase())
        self._current.peak_mb, self._current.particles = probed_mb, particles
        self._particles, self._before = particles, self._calls.copy()
        self._started = devices.clock(self.device)

    def _close(self) -> None:
        phase = self._current
        if phase is None:
            return
        phase.time_s += devices.clock(self.device) - self._started
        phase.add(self._calls, self._before, self._particles)
        compiled = devices.take_compile_s(self.device)
        if compiled is not None:
            self.compile_s = (self.compile_s or 0.0) + compiled
        measured = devices.peak_memory_mb(self.device)
        if measured is not None:
            phase.peak_mb = measured
        self._current = None

    def as_dict(self) -> dict[str, dict]:
        """{phase: its sums}; encoder passes and those of chains only where there are any, as in records from before them."""
        phases = {name: asdict(phase) for name, phase in self.phases.items()}
        unused = {key for key in SOMETIMES if not any(phase[key] for phase in phases.values())}
        return {name: {k: v for k, v in phase.items() if k not in unused} for name, phase in phases.items()}


def _mean(values: Sequence[tuple[float, float]]) -> float:
    """Of (value, weight); of one it is that value, bit for bit."""
    if len(values) == 1:
        return values[0][0]
    total = sum(n for _, n in values)
    return sum(v * n for v, n in values) / total if total else 0.0
