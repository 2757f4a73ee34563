"""A world in closed form: mixture prior, linear decoder, linear measurement, and the exact law of the sampler's output.

LatentDAPS is biased by construction, so samples are not compared with the true posterior but with the propagation
of the sampler's own discrete kernel: the same noise levels, Euler steps and Langevin iterations.
"""

from types import SimpleNamespace

import numpy as np
import torch

from operators.base import Operator
from sampler import LatentDAPS
from tests.worlds.mixture import GaussianMixturePrior
from utils.noise import KeyedNoise
from utils.sampling.particles import Particles
from utils.sampling.profiler import Profiler
from utils.sampling.schedule import annealing_sigmas, learning_rate, ode_sigmas

GAUSSIAN = GaussianMixturePrior(means=[[0.5, -1.0]], stds=[0.8], weights=[1.0], decoder=[[1.0, 0.4], [-0.3, 0.9], [0.2, 0.1]])
Y_GAUSSIAN = [1.2, -0.4, 0.3]
MIXTURE = GaussianMixturePrior(
    means=[[-2.0, 0.0], [2.0, 1.0]], stds=[0.5, 0.7], weights=[0.5, 0.5], decoder=[[1.0, 0.2], [0.1, 0.8], [0.3, -0.5]]
)


class PoisonedNoise(KeyedNoise):
    """Noise whose particle 1 becomes infinite at annealing step 2."""

    def draw(self, particles, purpose, step=0, count=None):
        noise = super().draw(particles, purpose, step, count)
        if purpose == "mcmc" and step == 2:
            noise[:, particles.index == 1] = float("inf")
        return noise


class Identity(Operator):
    """y = x + noise: with a linear decoder, the linear-Gaussian problem."""

    def forward(self, x):
        return x


def chain(**changes):
    return SimpleNamespace(
        **{
            **dict(
                mc_algo="langevin",
                num_steps=3,
                lr=0.03,
                lr_min_ratio=0.3,
                tau=1.0,
                momentum=0.0,
                keep_velocity=False,
                likelihood_factor=1.0,
                gradient_clip=1e9,
            ),
            **changes,
        }
    )


ANNEALING = SimpleNamespace(num_steps=5, sigma_max=5.0, sigma_min=0.2)
DIFFUSION = SimpleNamespace(num_steps=2, sigma_min=0.01, final_sigma=0.0)


def sampler(prior, settings=None, annealing=ANNEALING, diffusion=DIFFUSION, seed=0):
    return LatentDAPS(prior, Identity(0.0), KeyedNoise(seed), annealing, diffusion, settings or chain())


def start(prior, y, count, image_ids=(0,), first=0):
    """`count` particles for each image; y is (D,), the same for all images."""
    measurement = torch.as_tensor(y, dtype=prior.dtype).reshape(1, -1, 1, 1).expand(len(image_ids), -1, -1, -1)
    return Particles.start(measurement, list(image_ids), count, first, prior.latent_shape, prior.dtype)


def samples(prior, y, count, **kwargs):
    """(count, d) final latents of one run with many particles."""
    return samples_of_steps(prior, y, count, **kwargs)[-1]


def samples_of_steps(prior, y, count, noise=None, **kwargs):
    """Of one run with many particles: (count, d) where the chain of each annealing step ended, at last the final latents.

    noise: drawn from in place of the sampler's own
    """
    loop, ends = sampler(prior, **kwargs), []
    loop.noise = noise or loop.noise
    particles, profiler = start(prior, y, count), Profiler(torch.device("cpu"))
    result = loop.sample(particles, profiler, lambda info: ends.append(info.particles.z))
    return [z.flatten(1).numpy() for z in (*ends, result.particles.z)]


def gaussian_law(
    prior,
    y,
    settings=None,
    annealing=ANNEALING,
    diffusion=DIFFUSION,
    drop_step=None,
    steps=None,
    first_sigma=None,
):
    """Mean (d,) and covariance (d, d) of the sampler's output for a one-component prior, by affine propagation.

    steps: after the chains of so many annealing steps, before the next noise; first_sigma: of the initial draw, where it
    shall not be that of the grid
    """
    settings = settings or chain()
    m, s2 = prior.means[0].numpy(), float(prior.stds[0]) ** 2
    w, y = prior.decoder.numpy(), np.asarray(y, dtype=float)
    d, eye = len(m), np.eye(len(m))
    sigmas = annealing_sigmas(annealing.num_steps, annealing.sigma_max, annealing.sigma_min)
    mean, cov = np.zeros(d), (first_sigma or sigmas[0]) ** 2 * eye
    sigmas = [*sigmas[: steps or -1], 0.0]
    for step, (sigma, sigma_next) in enumerate(zip(sigmas[:-1], sigmas[1:])):
        if step == drop_step:
            continue
        for a, b in zip(*(lambda g: (g[:-1], g[1:]))(ode_sigmas(sigma, diffusion.num_steps, diffusion.sigma_min))):
            gain = 1 + (b - a) / a * (1 - s2 / (s2 + a**2))  # z - D = (1 - k)(z - m)
            mean, cov = m + gain * (mean - m), gain**2 * cov
        # the chain keeps z0hat: propagate z = M z0hat + c + noise of covariance q
        lr = learning_rate(settings.lr, settings.lr_min_ratio, step, annealing.num_steps)
        precision = 2 * settings.likelihood_factor / settings.tau**2
        move = eye - lr * (precision * w.T @ w + eye / sigma**2)
        big_m, c, q = eye, np.zeros(d), np.zeros((d, d))
        for _ in range(settings.num_steps):
            big_m = move @ big_m + lr / sigma**2 * eye
            c = move @ c + lr * precision * w.T @ y
            q = move @ q @ move.T + 2 * lr * eye
        mean, cov = big_m @ mean + c, big_m @ cov @ big_m.T + q + sigma_next**2 * eye
    return mean, cov


def hmc_law(prior, y, settings, annealing=ANNEALING, diffusion=DIFFUSION):
    """`gaussian_law` of a chain with momentum: position and velocity are propagated together, so what a velocity that
    is kept knows about the position is in it."""
    m, s2 = prior.means[0].numpy(), float(prior.stds[0]) ** 2
    w, y = prior.decoder.numpy(), np.asarray(y, dtype=float)
    d, eye = len(m), np.eye(len(m))
    nothing, root = np.zeros((d, d)), 2 * (1 - settings.momentum)
    sigmas = annealing_sigmas(annealing.num_steps, annealing.sigma_max, annealing.sigma_min)
    mean, cov = np.zeros(2 * d), np.block([[sigmas[0] ** 2 * eye, nothing], [nothing, eye]])  # of (z, v)
    for step, (sigma, sigma_next) in enumerate(zip(sigmas[:-1], sigmas[1:])):
        for a, b in zip(*(lambda g: (g[:-1], g[1:]))(ode_sigmas(sigma, diffusion.num_steps, diffusion.sigma_min))):
            scale = np.diag(np.repeat([1 + (b - a) / a * (1 - s2 / (s2 + a**2)), 1.0], d))
            centre = np.concatenate([m, np.zeros(d)])
            mean, cov = centre + scale @ (mean - centre), scale @ cov @ scale
        if step and not settings.keep_velocity:
            mean, cov = np.concatenate([mean[:d], np.zeros(d)]), np.block([[cov[:d, :d], nothing], [nothing, eye]])
        lr = learning_rate(settings.lr, settings.lr_min_ratio, step, annealing.num_steps)
        precision = 2 * settings.likelihood_factor / settings.tau**2
        kick = lr**0.5 * np.hstack([eye / sigma**2, -(precision * w.T @ w + eye / sigma**2), nothing])
        v = kick + settings.momentum * np.hstack([nothing, nothing, eye])  # new v from (z0hat, z, v)
        move = np.vstack([np.hstack([eye, nothing, nothing]), np.hstack([nothing, eye, nothing]) + lr**0.5 * v, v])
        pull = lr**0.5 * precision * w.T @ y
        shift = np.concatenate([np.zeros(d), lr**0.5 * pull, pull])
        spread = np.vstack([nothing, lr**0.5 * eye, eye])
        start = np.vstack([np.hstack([eye, nothing])] * 2 + [np.hstack([nothing, eye])])  # (z0hat, z, v) from (z, v)
        mean, cov = start @ mean, start @ cov @ start.T
        for _ in range(settings.num_steps):
            mean, cov = move @ mean + shift, move @ cov @ move.T + root * spread @ spread.T
        mean, cov = mean[d:], cov[d:, d:]
        cov[:d, :d] += sigma_next**2 * eye
    return mean[:d], cov[:d, :d]


def mixture_law(prior, y, settings=None, annealing=ANNEALING, diffusion=DIFFUSION, drop_step=None, points=4001, reach=30.0):
    """Density of the sampler's output on a grid for a one-dimensional prior: (grid, density)."""
    settings = settings or chain()
    w = float(prior.decoder[0, 0])
    grid = np.linspace(-reach, reach, points)
    sigmas = annealing_sigmas(annealing.num_steps, annealing.sigma_max, annealing.sigma_min)
    density = np.exp(-0.5 * (grid / sigmas[0]) ** 2)
    loop = sampler(prior)
    for step, (sigma, sigma_next) in enumerate(zip(sigmas[:-1], sigmas[1:])):
        if step == drop_step:
            continue
        density /= density.sum()
        z = torch.as_tensor(grid)[:, None, None, None]
        levels = torch.tensor(ode_sigmas(sigma, diffusion.num_steps, diffusion.sigma_min), dtype=torch.float64)
        z0hat = loop.probability_flow(z, list(levels)).flatten().numpy()
        lr = learning_rate(settings.lr, settings.lr_min_ratio, step, annealing.num_steps)
        precision = 2 * settings.likelihood_factor / settings.tau**2
        move, big_m, c, q = 1 - lr * (precision * w * w + 1 / sigma**2), 1.0, 0.0, 0.0
        for _ in range(settings.num_steps):
            big_m, c = move * big_m + lr / sigma**2, move * c + lr * precision * w * y[0]
            q = move**2 * q + 2 * lr
        variance = q + sigma_next**2
        distance = grid[:, None] - (big_m * z0hat + c)[None]
        density = np.exp(-0.5 * distance**2 / variance) @ density
    return grid, density / density.sum() / (grid[1] - grid[0])


def worst_z_score(sampled, law):
    """Largest deviation of sample mean and covariance from (mean, cov), in standard errors."""
    mean, cov = law
    n = len(sampled)
    of_mean = np.abs(sampled.mean(0) - mean) / np.sqrt(np.diag(cov) / n)
    error = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / n)
    return max(of_mean.max(), (np.abs(np.cov(sampled.T) - cov) / error).max())
