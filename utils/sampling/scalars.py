"""The numbers of one annealing step on the device."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch


class Numbers(NamedTuple):
    """What the flow and the chain of some particles use in one annealing step.

    0-d tensors, as in StepScalars; those in which the particles differ (utils.sampling.portfolio) are (P, 1, 1, 1), and
    the levels of `ode` (P,), as a prior takes them.

    weight: of the squared residual, a float where all have the same; share: of a spectrum's frequencies that the chain sees,
    None: all of them, for everyone
    """

    sigma: torch.Tensor
    sigma_next: torch.Tensor
    lr: torch.Tensor
    ode: Sequence[torch.Tensor]
    weight: torch.Tensor | float
    share: torch.Tensor | None = None


class StepScalars:
    """The run's own numbers of annealing step `step` as 0-d tensors on the device; mechanisms know no others.

    They come from one packed tensor indexed by constants, so that XLA compiles one graph for all steps and CUDA
    needs one small copy per step.

    sigma, sigma_next: noise level of the step and of the next; lr: of the chain; ode: noise levels of the probability
    flow; strengths: {name of a mechanism: its strength}
    """

    def __init__(
        self,
        step: int,
        sigma: float,
        sigma_next: float,
        lr: float,
        ode: Sequence[float],
        strengths: Mapping[str, float],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        numbers = [sigma, sigma_next, lr, *strengths.values(), *ode]
        packed = torch.tensor(numbers, dtype=torch.float64).to(dtype).to(device)
        self.step = step
        self.sigma, self.sigma_next, self.lr = packed[0], packed[1], packed[2]
        self.strengths = {name: packed[3 + i] for i, name in enumerate(strengths)}
        self.ode = [packed[3 + len(strengths) + i] for i in range(len(ode))]
