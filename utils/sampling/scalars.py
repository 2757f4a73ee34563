"""The numbers of one annealing step on the device."""

import torch


class StepScalars:
    """The numbers of one annealing step as 0-d tensors on the device.

    They come from one packed tensor indexed by constants, so that XLA compiles one graph for all steps and CUDA
    needs one small copy per step.
    """

    def __init__(self, sigma, sigma_next, lr, ode, repulsion, device, dtype):
        packed = torch.tensor([sigma, sigma_next, lr, repulsion, *ode], dtype=torch.float64).to(dtype).to(device)
        self.sigma, self.sigma_next, self.lr, self.repulsion = packed[0], packed[1], packed[2], packed[3]
        self.ode = [packed[4 + i] for i in range(len(ode))]
