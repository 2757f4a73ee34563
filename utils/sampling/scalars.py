"""The numbers of one annealing step on the device."""

from collections.abc import Mapping, Sequence

import torch


class StepScalars:
    """The numbers of annealing step `step` as 0-d tensors on the device.

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
