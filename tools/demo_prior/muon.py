"""Muon: orthogonalised momentum for convolution weights, which torch.optim.Muon (2-D only) does not take.

Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); the update's RMS is
matched to Adam's as in Liu et al., arXiv 2502.16982. Small autoencoders with few norm groups stall under Adam.
"""

from collections.abc import Iterable

import torch


def orthogonalise(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Newton-Schulz iteration towards the nearest semi-orthogonal matrix, (rows, columns) -> same shape."""
    x = matrix / (matrix.norm() + 1e-7)
    transposed = x.shape[0] > x.shape[1]
    x = x.T if transposed else x
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if transposed else x


class Muon(torch.optim.Optimizer):
    """For weights with at least two dimensions; everything after the first is flattened."""

    def __init__(
        self, params: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 1e-4
    ) -> None:
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalise(p.grad.lerp(buffer, group["momentum"]).flatten(1))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update.view_as(p), alpha=-0.2 * max(update.shape) ** 0.5 * group["lr"])
