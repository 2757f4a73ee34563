"""An algorithm of one's own: plain gradient descent on the data's loss from a small random latent."""

import torch

from utils.algorithms.contract import Algorithm, ignore
from utils.sampling.outcome import StepInfo
from utils.sampling.profiler import Profiler


class Descent(Algorithm):
    """z <- z - rate * gradient, `num_steps` times."""

    def __init__(self, num_steps, rate, **parts):
        super().__init__(**parts)
        self.num_steps, self.rate = num_steps, rate

    def sample(self, particles, profiler=None, on_step=ignore):
        profiler = profiler or Profiler(self.prior.device)
        with torch.no_grad(), self.profiled(profiler):
            particles = particles.at(0.1 * self.noise.draw(particles, "initial"))
            for step in range(self.num_steps):
                with self.step(profiler, step, particles):
                    gradient, loss, image = self.data_gradient(particles)
                    particles = particles.at(particles.z - self.rate * gradient)
                on_step(StepInfo(step, particles, image, loss))
            return self.finished(particles, profiler)


class NoAlgorithm:
    """A class that the contract does not know."""
