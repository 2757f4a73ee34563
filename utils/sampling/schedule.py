"""Noise levels, timesteps and learning rates of LatentDAPS, and the clock that the switches refer to.

Plain numbers, computed once; no torch, so that the config check can use it. Source of the grids: DAPS, cores/scheduler.py;
the poly-7 spacing is that of Karras et al., arXiv 2206.00364, equation 5.
"""

from collections.abc import Sequence

TIMESTEPS = 1000
POWER = 7.0  # of the grids
ROUNDING = 1e-9  # of a noise level that a user writes against one that a grid computes


def polynomial_grid(start: float, end: float, steps: int) -> list[float]:
    """`steps + 1` values from `start` to `end` (both included), evenly spaced in value^(1/7)."""
    a, b = start ** (1 / POWER), end ** (1 / POWER)
    return [(a + i / steps * (b - a)) ** POWER for i in range(steps + 1)]


def annealing_sigmas(num_steps: int, sigma_max: float, sigma_min: float) -> list[float]:
    """`num_steps + 1` noise levels: the grid without its last point, then 0. So sigma_min itself is never used."""
    return [*polynomial_grid(sigma_max, sigma_min, num_steps)[:-1], 0.0]


def first_level(sigmas: Sequence[float], sigma: float) -> int:
    """The first step whose noise level is at most `sigma`; a level equal to rounding counts."""
    return next(i for i, level in enumerate(sigmas) if level <= sigma * (1 + ROUNDING))


def ode_sigmas(sigma: float, num_steps: int, sigma_min: float) -> list[float]:
    """Noise levels of the probability-flow ODE from `sigma` down to `sigma_min` (not to 0)."""
    return polynomial_grid(sigma, sigma_min, num_steps)


def learning_rate(lr: float, lr_min_ratio: float, step: int, num_steps: int) -> float:
    """Linear ramp over the annealing; DAPS divides by num_steps + 1, so the end value is never quite reached."""
    return lr * (1 + step / (num_steps + 1) * (lr_min_ratio - 1))


class StepClock:
    """Which timestep (of 1000) an annealing step stands for, and when a switch fires.

    t = 1000 (N - i) / N, so 200 is the last fifth of the annealing. further: steps of a further stage, which follows the
    annealing at t = 0.
    """

    def __init__(self, sigmas: Sequence[float], further: int = 0) -> None:
        self.sigmas = tuple(sigmas)
        self.num_steps = len(sigmas) - 1
        self.annealing_steps = self.num_steps - further  # N

    def timestep(self, step: int) -> float:
        """The timestep of step `step` (0 .. num_steps - 1), a float in [0, 1000]."""
        return TIMESTEPS * max(0, self.annealing_steps - step) / self.annealing_steps

    def reached(self, step: int, switch: int) -> bool:
        """Whether annealing step `step` has t <= `switch`. In integers: floats fire a step late."""
        return TIMESTEPS * (self.annealing_steps - step) <= switch * self.annealing_steps

    def first_step(self, switch: int) -> int | None:
        """The first annealing step with t <= `switch`, or None if the annealing ends above it."""
        return next((i for i in range(self.annealing_steps) if self.reached(i, switch)), None)
