"""What the sampler's parts read of a config. No torch, so that the config check can read it too."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from utils.sampling.schedule import learning_rate

CANDIDATES = 128  # solutions of each channel of which sampler=classical puts pictures together, so many at most


class Annealing(Protocol):
    num_steps: int
    sigma_max: float
    sigma_min: float


class Diffusion(Protocol):
    """Of the probability-flow ODE, and of the denoiser call that may end a run."""

    num_steps: int
    sigma_min: float
    final_sigma: float  # noise level at which the final latents are denoised once; 0: they are handed out as they are


class Chain(Protocol):
    """Of the inner chain; see utils/sampling/mcmc.py for the formulas."""

    mc_algo: Literal["langevin", "hmc"]
    num_steps: int
    lr: float
    lr_min_ratio: float
    tau: float
    momentum: float
    keep_velocity: bool  # of HMC: the velocity goes on from one annealing step to the next
    likelihood_factor: float
    gradient_clip: float


class Stage(NamedTuple):
    """Some annealing steps that share a chain: the end of a grid, or all of it."""

    sigmas: Sequence[float]  # noise level of each step, and the 0 after the last
    chain: Chain
    passed: int = 0  # steps of the grid before these, by which the chain's rate has fallen already

    def rate(self, step: int) -> float:
        """The chain's rate at its step `step`: a linear ramp over the grid (utils.sampling.schedule.learning_rate)."""
        grid_steps = self.passed + len(self.sigmas) - 1
        return learning_rate(self.chain.lr, self.chain.lr_min_ratio, self.passed + step, grid_steps)


def stage_of(stages: Sequence[Stage], step: int) -> tuple[Stage, int]:
    """The stage that a step belongs to, one stage after the other, and its number within it."""
    for stage in stages[:-1]:
        if step < len(stage.sigmas) - 1:
            return stage, step
        step -= len(stage.sigmas) - 1
    return stages[-1], step
