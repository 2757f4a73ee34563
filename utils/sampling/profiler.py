"""Seconds, steps, network calls and peak memory per phase of one sampling run."""

from contextlib import contextmanager
from dataclasses import asdict, dataclass

from utils import device as devices


@dataclass
class Phase:
    """Sums over one phase. Network calls are per particle; `peak_mb` is None where memory is not known."""

    time_s: float = 0.0
    steps: int = 0
    decoder_forward: float = 0.0
    decoder_forward_backward: float = 0.0
    denoiser_calls: float = 0.0
    peak_mb: float | None = None


class Profiler:
    """Follows a run through its phases.

    Entering a phase closes the one before, synchronises the device and starts a new memory section.
    """

    def __init__(self, device):
        self.device = device
        self.phases = {}
        self.step_s = []  # seconds of each annealing step
        self.compile_s = None  # seconds of compiling before and in the phases, None where nothing is compiled
        self._current = None

    def enter(self, name, particles, probe_peak):
        """From here on everything counts for phase `name`, with `particles` particles in the batch.

        probe_peak() returns the peak memory in MB, or None where the device itself keeps one; it runs before the clock.
        Entering the current phase again does nothing.
        """
        if self._current is self.phases.get(name) and self._current is not None:
            return
        self.close()
        probed = probe_peak()
        devices.reset_peak_memory(self.device)
        self._current = self.phases.setdefault(name, Phase())
        self._current.peak_mb = probed
        self._particles, self._started = particles, devices.clock(self.device)

    def close(self):
        """End the current phase."""
        if self._current is None:
            return
        self._current.time_s += devices.clock(self.device) - self._started
        compiled = devices.take_compile_s(self.device)
        if compiled is not None:
            self.compile_s = (self.compile_s or 0.0) + compiled
        measured = devices.peak_memory_mb(self.device)
        if measured is not None:
            self._current.peak_mb = measured
        self._current = None

    @contextmanager
    def step(self):
        """One annealing step of the current phase."""
        started = devices.clock(self.device)
        yield
        self.step_s.append(devices.clock(self.device) - started)
        self._current.steps += 1

    def count(self, kind, particles):
        """Note one network call on `particles` particles."""
        if self._current is not None:
            setattr(self._current, kind, getattr(self._current, kind) + particles / self._particles)

    def as_dict(self):
        return {name: asdict(phase) for name, phase in self.phases.items()}
