"""Particles around the solution of a small least-squares problem, and the latent optimisation of them."""

from types import SimpleNamespace

import torch

from tests.worlds import analytic
from tests.worlds.analytic import MIXTURE
from utils.mechanisms.optimization.act import HardDataConsistency
from utils.sampling.schedule import StepClock

SIGMA = 0.1


def settings(**changes):
    defaults = dict(max_iterations=40, lr=0.05, stop_factor=1.0, max_move=100.0, every=1)
    return SimpleNamespace(**{**defaults, **changes})


def problem(count=4, spread=2.0):
    """Particles around the solution of a 2-d least-squares problem, farther the higher their number."""
    y = MIXTURE.decode(torch.tensor([[1.0, -0.5]], dtype=torch.float64)[..., None, None]).flatten()
    particles = analytic.start(MIXTURE, y, count)
    offset = torch.linspace(0, spread, count, dtype=torch.float64)
    solution = torch.tensor([1.0, -0.5], dtype=torch.float64)
    return particles.at((solution + offset[:, None])[..., None, None])


def call(particles, passes=None, seen=lambda particles: None, mechanism=None, **changes):
    """The optimised latents and the report; `passes` takes the size of each pass, `seen` each state of the particles.

    mechanism: what optimises, in place of the latent's own with `changes` of its settings.
    """
    loop = analytic.sampler(MIXTURE)

    def data_gradient(p):
        if passes is not None:
            passes.append(len(p))
        seen(p)
        return loop.data_gradient(p)

    floor = analytic.Identity(SIGMA).noise_floor(particles.y)
    mechanism = mechanism or HardDataConsistency(settings(**changes), 0, StepClock(loop.sigmas))
    return mechanism(particles, data_gradient, floor)


def loss(particles, z):
    return analytic.Identity(0.0).loss(MIXTURE.decode(z), particles.y)
