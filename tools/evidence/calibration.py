"""Simulation-based calibration: does the spread of the particles cover the truth as often as it says?

    python tools/evidence/calibration.py

A truth drawn from the prior, its noisy measurement, PARTICLES samples of the real loop, and the truth's rank among them, for
every latent coordinate: if the samples are of the posterior, all ranks are equally probable, and a central interval of the
samples covers the truth at its nominal rate (Talts et al., arXiv 1804.06788). Prior N(0, PRIOR_STD^2), a linear decoder and
y = x + noise, in float64, where that can be tested. Each row is the program's own config with some overrides. See
docs/research/measured/calibration.md.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from operators.base import Operator
from sampler import LatentDAPS
from utils.analysis.sbc import coverage, ranks_of, uniformity
from utils.command_line import Parser, run
from utils.config.check import check
from utils.config.compose import compose
from utils.noise import KeyedNoise
from utils.priors.analytic import GaussianMixturePrior
from utils.sampling.particles import Particles
from utils.sampling.profiler import Profiler

PARTICLES = 39  # from the least to the greatest is a 95 % interval, from the 10th to the 30th one of 50 %
PRIOR_STD = 0.1
# of the decoder: at noise 0.05 the data are four times as precise as the prior where it is 1, and as precise where it is 0.5
SINGULAR_VALUES = np.repeat([1.0, 0.5], 64)

CHAIN = "task.demo_langevin.mcmc_sampler_config"
ANNEALING = "sampler.annealing_scheduler_config"
EULER = "sampler.diffusion_scheduler_config.num_steps"
ONE_STEP = (f"{EULER}=1", "sampler.diffusion_scheduler_config.sigma_min=1e-4")  # to almost 0: D(z, sigma) itself
# from ten times the prior's width down to well below it and the noise, and a chain that converges in each step
CONVERGED = (f"{ANNEALING}.sigma_max=1.0", f"{ANNEALING}.sigma_min=0.03", f"{CHAIN}.mc_algo=hmc", f"{CHAIN}.momentum=0.7")
RATE = (f"{CHAIN}.num_steps=30", f"{CHAIN}.lr=3e-4", f"{CHAIN}.lr_min_ratio=0.1")
COLD_RATE = (f"{CHAIN}.num_steps=50", f"{CHAIN}.lr=1e-5", f"{CHAIN}.lr_min_ratio=1.0")  # steeper by as much as colder
HONEST = ("temperature=1", *CONVERGED, *RATE, *ONE_STEP)
SETTINGS = {
    "defaults": (),
    "DAPS's `ldm` group": ("task_group=ldm",),
    "defaults, `temperature=1` alone": ("temperature=1",),
    "converged, published likelihood (`temperature=0.02`)": ("temperature=0.02", *CONVERGED, *COLD_RATE, *ONE_STEP),
    "converged, `temperature=0.5` (tau = sigma, factor 1)": ("temperature=0.5", *HONEST[1:]),
    "converged, `temperature=1`, ODE of 20 Euler steps": (*HONEST[:-2], f"{EULER}=20"),
    "converged, `temperature=1`, ODE of 2 Euler steps": HONEST[:-2],
    "converged, `temperature=1`, ODE of 1 Euler step": HONEST,
}


class Identity(Operator):
    """y = x + noise."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def ranks(overrides: Sequence[str], truths: int, seed: int = 0) -> NDArray[np.int64]:
    """Number of samples below the truth, 0 to PARTICLES, (truths, 128) int array: a column for each singular value."""
    settings = check(compose(overrides))
    rng, d = np.random.default_rng(seed), len(SINGULAR_VALUES)
    left, right = (np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(2))  # no axis of the latent is a special one
    prior = GaussianMixturePrior([[0.0] * d], [PRIOR_STD], [1.0], left * SINGULAR_VALUES @ right.T)
    operator, noise = Identity(settings.group.operator.sigma), KeyedNoise(seed)
    z = torch.from_numpy(PRIOR_STD * rng.normal(size=(truths, d, 1, 1)))
    y = operator.measure(prior.decode(z), torch.from_numpy(rng.normal(size=(truths, d, 1, 1))))
    annealing, diffusion = settings.sampler.annealing_scheduler_config, settings.sampler.diffusion_scheduler_config
    sampler = LatentDAPS(prior, operator, noise, annealing, diffusion, settings.chain)
    particles = Particles.start(y, range(truths), PARTICLES, 0, prior.latent_shape, prior.dtype)
    samples = sampler.sample(particles, Profiler(prior.device)).particles.z
    along = samples.reshape(truths, PARTICLES, d).numpy() @ right  # (truths, PARTICLES, d), independent coordinates
    return ranks_of(along, (z.flatten(1).numpy() @ right)[:, None], axis=1)


def table(truths: int) -> str:
    """Markdown table of all SETTINGS."""
    lines = [
        "| setting | ranks uniform: p | 50 %: covered, data 4 : prior 1 | 50 %: 1 : 1 | 95 %: 4 : 1 | 95 %: 1 : 1 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, overrides in SETTINGS.items():
        truth_ranks = ranks(overrides, truths)
        covered = [
            coverage(truth_ranks[:, columns], PARTICLES, level)
            for level in (0.5, 0.95)
            for columns in (slice(64), slice(64, None))
        ]
        cells = [f"{100 * c.value:.0f} % [{100 * c.low:.0f}, {100 * c.high:.0f}]" for c in covered]
        lines.append(f"| {name} | {uniformity(truth_ranks, PARTICLES):.2g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = Parser(prog="calibration.py", description=__doc__.splitlines()[0])
    parser.add_argument("--truths", type=int, default=16, help="truths drawn for each row, of 128 coordinates each")
    print(table(parser.parse_args().truths))


if __name__ == "__main__":
    run(main)
