"""Noise levels, timesteps and learning rates of LatentDAPS, and the clock that the switches refer to.

Everything here is computed once, in float64 on the CPU. Source of the grids: DAPS, cores/scheduler.py and
cores/latent_diffusion.py; the poly-7 spacing is that of Karras et al., arXiv 2206.00364, equation 5.
"""

import torch

TIMESTEPS = 1000


def polynomial_grid(start, end, steps, power=7.0):
    """`steps + 1` values from `start` to `end` (both included), evenly spaced in value^(1/power)."""
    a, b = start ** (1 / power), end ** (1 / power)
    return [(a + i / steps * (b - a)) ** power for i in range(steps + 1)]


def annealing_sigmas(num_steps, sigma_max, sigma_min):
    """`num_steps + 1` noise levels: the grid without its last point, then 0. So sigma_min itself is never used."""
    return [*polynomial_grid(sigma_max, sigma_min, num_steps)[:-1], 0.0]


def ode_sigmas(sigma, num_steps, sigma_min):
    """Noise levels of the probability-flow ODE from `sigma` down to `sigma_min` (not to 0)."""
    return polynomial_grid(sigma, sigma_min, num_steps)


def learning_rate(lr, lr_min_ratio, step, num_steps):
    """Linear ramp over the annealing; DAPS divides by num_steps + 1, so the end value is never quite reached."""
    return lr * (1 + step / (num_steps + 1) * (lr_min_ratio - 1))


class StepClock:
    """Which diffusion timestep (of 1000) an annealing step stands for, and when a switch fires.

    "progress": t = 1000 (N - i) / N, so 200 is the last fifth of the annealing.
    "noise":    t of sigma_i by the prior's timestep map.
    """

    NAMES = ("progress", "noise")

    def __init__(self, name, sigmas, timestep_map=None):
        self.name = name
        self.num_steps = len(sigmas) - 1
        self._noise_timesteps = None
        if name == "noise":
            self._noise_timesteps = [float(timestep_map(torch.tensor(s, dtype=torch.float64))) for s in sigmas[:-1]]

    def timestep(self, step):
        """The timestep of annealing step `step` (0 .. N-1), a float in [0, 1000]."""
        if self._noise_timesteps is not None:
            return self._noise_timesteps[step]
        return TIMESTEPS * (self.num_steps - step) / self.num_steps

    def reached(self, step, switch):
        """Whether annealing step `step` has t <= `switch`. Integers under "progress": floats fire a step late."""
        if self._noise_timesteps is not None:
            return self._noise_timesteps[step] <= switch
        return TIMESTEPS * (self.num_steps - step) <= switch * self.num_steps

    def first_step(self, switch):
        """The first annealing step with t <= `switch`, or None if the annealing ends above it."""
        return next((i for i in range(self.num_steps) if self.reached(i, switch)), None)
