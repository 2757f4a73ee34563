"""What the sampler's parts read of a config. No torch, so that the config check can read it too."""

from typing import Literal, Protocol


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
