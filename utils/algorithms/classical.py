"""Classical phase retrieval as an algorithm: what is run where there is no network. `sampler=classical`.

A solver (utils/sampling/phase_solvers.py) goes on from many starts. Of each channel the solutions with the smallest residuals
are kept, and particle k of an image gets the k-th best picture put together from channels that agree. The prior draws nothing:
it encodes the result once, since a record holds latents.
"""

import torch

from operators.base import Operator
from utils.algorithms.contract import Algorithm, OnStep, ignore
from utils.errors import InputError
from utils.noise import KeyedNoise
from utils.priors.base import LatentPrior
from utils.sampling.outcome import SampleResult, StepInfo
from utils.sampling.particles import Particles
from utils.sampling.passes import Passes
from utils.sampling.phase_solvers import Bank, Solver, bank_of, put_together
from utils.sampling.profiler import Profiler
from utils.sampling.vocabulary import CANDIDATES


class Classical(Algorithm):
    """solver: hio, raar or er; restarts: of each image; iterations: of each; beta: in (0, 1].

    An image's particles come from one bank, so particle k is the same however many are asked for, up to `restarts`.
    """

    decodes = False
    num_steps = 10  # parts of the iterations, for the bar and the trace

    def __init__(
        self,
        prior: LatentPrior,
        operator: Operator,
        noise: KeyedNoise,
        passes: Passes | None = None,
        *,
        solver: Solver,
        restarts: int,
        iterations: int,
        beta: float,
    ) -> None:
        super().__init__(prior, operator, noise, passes)
        if not operator.spectrum:
            raise InputError(
                f"sampler=classical: {type(operator).__name__} measures no spectrum (Operator.spectrum); "
                "choose task=phase_retrieval, or another sampler"
            )
        self.solver, self.restarts, self.iterations, self.beta = solver, restarts, iterations, beta

    def sample(self, particles: Particles, profiler: Profiler | None = None, on_step: OnStep = ignore) -> SampleResult:
        profiler = profiler or Profiler(self.prior.device)
        images = list(dict.fromkeys(particles.image.tolist()))
        device = particles.z.device
        row = torch.tensor([images.index(i) for i in particles.image.tolist()], device=device)
        rank = particles.index.to(device)
        count = int(particles.index.max()) + 1
        shares = torch.arange(self.iterations).tensor_split(self.num_steps)
        particles = particles.at(torch.zeros_like(particles.z))  # nothing is drawn in the latents
        with torch.no_grad(), self.profiled(profiler):
            banks = [self.bank(particles, image) for image in images]  # of each image its bank, and what noise leaves
            for step, share in enumerate(shares):
                with self.step(profiler, step, particles):
                    for bank, _ in banks:
                        bank.advance(len(share))
                        if step == self.num_steps - 1:
                            bank.finish()
                    pictures = torch.stack([self.pictures(*bank, count) for bank in banks])  # (N, K, 3, H, W)
                x = (2 * pictures.to(device, particles.z.dtype) - 1)[row, rank]  # (P, 3, H, W)
                loss = self.operator.loss(x, particles.y)
                on_step(StepInfo(step, particles, x, loss))
            particles = particles.at(self.prior.encode(x))
        return SampleResult(particles, x, loss, timing_info=profiler.step_s, reports={})

    def bank(self, particles: Particles, image: int) -> tuple[Bank, torch.Tensor]:
        """The starts of one image, and the residual that noise leaves in each channel, (C,)."""
        y = particles.y[particles.of_image(image)[:1]]
        return bank_of(y, image, self.prior.resolution, self.operator, self.noise, self)

    def pictures(self, bank: Bank, floors: torch.Tensor, count: int) -> torch.Tensor:
        """The best of one image, (count, 3, H, W); one channel stands for all three."""
        x, residual = bank.ranked()
        turns, floor = bank.support.symmetric, float(floors.mean())
        return put_together(x[:CANDIDATES], residual[:CANDIDATES], count, floor, turns)[0].expand(-1, 3, -1, -1)

    def heaviest_pass(self, particles: Particles) -> None:
        """One encoding; what the bank itself needs is said by no device."""
        self.prior.encode(self.prior.decode(particles.z[:1]))
