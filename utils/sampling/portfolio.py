"""Particles of one image that differ in setting: particle number i takes entry i mod n of a list of n entries.

What an entry holds is relative to the run's own settings, so that it means the same in every task group:

    lr        factor of the chain's learning rate
    tau       factor of tau, and so of the likelihood's standard deviation
    spacing   p: the noise levels are g((i / N)^p) in place of g(i / N), g the run's grid from sigma_max to sigma_min; below 1
              the noise falls faster at first, and more of the steps are spent where it is small
    lowpass   while t > lowpass_until the chain sees so large a share of the spectrum's frequencies, from the centre out

The entry goes with the number, whatever becomes of the particle: children have numbers and so entries of their own, and a slot
that takes over another particle's state keeps its entry. So there is nothing to slice, and a particle sampled alone has the
entry that it has in a batch.

What holds for all particles of an image follows the run's own settings: timesteps of events and of the trace, strengths of
mechanisms, and every loss by which particles are compared, which is that of the whole measurement.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from utils.sampling.mcmc import likelihood_weight
from utils.sampling.scalars import Numbers
from utils.sampling.schedule import StepClock, annealing_sigmas, learning_rate, ode_sigmas
from utils.sampling.vocabulary import Annealing, Chain, Diffusion, PortfolioEntry


class Portfolio:
    """The entries of one run and the numbers that follow from them; clock: the timesteps of `lowpass_until`.

    low_pass: whether any entry has one
    """

    def __init__(
        self,
        entries: Sequence[PortfolioEntry],
        annealing: Annealing,
        diffusion: Diffusion,
        chain: Chain,
        clock: StepClock,
    ) -> None:
        self.entries, self.diffusion, self.chain, self.clock = tuple(entries), diffusion, chain, clock
        grid = annealing.num_steps, annealing.sigma_max, annealing.sigma_min
        self.sigmas = [annealing_sigmas(*grid, spacing=e.spacing) for e in self.entries]
        self.low_pass = any(e.lowpass is not None for e in self.entries)

    def varying(self, step: int) -> dict[str, list[list[float]]]:
        """{field of Numbers: [its values, one for each entry]} at one annealing step, of the fields in which entries differ.

        One row; of `ode` one for each of its levels.
        """
        c, found = self.chain, {}
        if any(e.lr != 1 for e in self.entries):
            lr = learning_rate(c.lr, c.lr_min_ratio, step, self.clock.num_steps)
            found["lr"] = [[e.lr * lr for e in self.entries]]
        if any(e.tau != 1 for e in self.entries):
            found["weight"] = [[likelihood_weight(e.tau * c.tau, c.likelihood_factor) for e in self.entries]]
        if any(e.spacing != 1 for e in self.entries):
            levels = [ode_sigmas(grid[step], self.diffusion.num_steps, self.diffusion.sigma_min) for grid in self.sigmas]
            found["sigma"] = [[grid[step] for grid in self.sigmas]]
            found["sigma_next"] = [[grid[step + 1] for grid in self.sigmas]]
            found["ode"] = [list(row) for row in zip(*levels)]
        if self.low_pass:
            found["share"] = [[self.share(e, step) for e in self.entries]]
        return found

    def share(self, entry: PortfolioEntry, step: int) -> float:
        """Of the frequencies that the chain sees."""
        if entry.lowpass is None or entry.lowpass_until is None or self.clock.reached(step, entry.lowpass_until):
            return 1.0
        return entry.lowpass

    def of(self, index: torch.Tensor, common: Numbers, step: int) -> Numbers:
        """`common`, with one number for each particle in the fields in which entries differ; index (P,), on the CPU.

        They come from one packed tensor indexed by constants, as in utils.sampling.scalars.StepScalars.
        """
        rows = self.varying(step)
        if not rows:
            return common
        table = torch.tensor([row for found in rows.values() for row in found], dtype=torch.float64)  # (K, entries)
        packed = table[:, index % len(self.entries)].to(common.sigma.dtype).to(common.sigma.device)  # (K, P)
        numbers = iter(packed.unbind())
        own: dict[str, Any] = {name: [next(numbers) for _ in found] for name, found in rows.items()}
        return common._replace(**{k: v if k == "ode" else v[0].view(-1, 1, 1, 1) for k, v in own.items()})


def low_passed(y: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Centred spectra y (P, C, H', W') with NaN, not measured, beyond the central `share` (P, 1, 1, 1) of their frequencies.

    The zero frequency always stays, and where the share is 1 everything does.
    """
    rank = frequency_ranks(*y.shape[-2:]).to(y.dtype).to(y.device)
    return torch.where(rank < share, y, torch.nan)


@cache
def frequency_ranks(height: int, width: int) -> torch.Tensor:
    """Share of the frequencies of a centred spectrum that lie nearer to its centre than each, (H', W') in [0, 1), float64.

    k and -k have the same.
    """
    down, across = ((torch.arange(n) - n // 2) for n in (height, width))
    distance = (down * width)[:, None].square() + (across * height).square()  # of cycles per pixel, in integers
    ordered = distance.flatten().sort().values
    return torch.searchsorted(ordered, distance).double() / distance.numel()
