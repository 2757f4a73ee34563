"""What the sampler's parts read of a config. No torch, so that the config check can read it too."""

from typing import Literal, Protocol

SIMILARITIES = ("latent", "image", "rotation")  # what the repulsion compares particles on: utils/sampling/repulsion.py


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


class PortfolioEntry(Protocol):
    """How a particle differs: factors of the run's own settings, and the low-pass. See utils/sampling/portfolio.py."""

    lr: float
    tau: float
    spacing: float
    lowpass: float | None
    lowpass_until: int | None  # timestep of 1000


class RepulsionSettings(Protocol):
    decay: Literal["constant", "linear", "quadratic", "cosine"]
    end_step: int  # timestep of 1000
    bandwidth: Literal["median"] | float
    place: Literal["drift", "chain"]
    similarity: str


class RecombinationSettings(Protocol):
    every: int  # annealing steps from event to event
    excess: float  # a channel is bad if it fits worse than the donor's by this times the donor's excess over the floor
    deviation: float  # plus this many standard deviations of a true channel's loss
    turns: bool
    donors: bool
    choice: Literal["prior", "correlation"]
    sigmas: list[float]  # noise levels of the prior's score


class PruningSettings(Protocol):
    near_distance: float
    loss_tolerance: float
    fill: Literal["next_best", "clone", "drop"]


class TreeSettings(Protocol):
    branch_sigma: float | None  # noise level under which children leave their parent; None: the annealing's own


class OptimizationSettings(Protocol):
    max_iterations: int
    lr: float
    stop_factor: float
    max_move: float
    parametrization: Literal["free", "residual"]
    bound: float  # of the residual: a share of the latent's root mean square
    warmup: int  # iterations in which the residual's base moves too
