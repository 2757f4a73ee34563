"""Nonlinear blur: a trained network blurs the image as motion during an exposure does."""

from pathlib import Path

import torch

from operators.base import Operator
from operators.kernel_wizard import CODE_CHANNELS, REDUCTION, KernelWizard
from utils.checkpoint_file import read_state_dict
from utils.errors import InputError
from utils.noise import keyed_generator
from utils.paths import find

SOURCE = "GOPRO_wVAE.pth of VinAIResearch/blur-kernel-space-exploring"
UNUSED = "kernel_extractor."  # the encoder of blur codes; the code is drawn here instead


class NonlinearBlur(Operator):
    """A(x) = clip(2 W(x / 2 + 1/2, c) - 1, -1, 1), W the network of operators/kernel_wizard.py, c ~ 1.2 N(0, I).

    The code c is the same for every image of a run and decided by `seed`. Source: DAPS,
    forward_operator/__init__.py, NonlinearBlur, which draws c from NumPy's global state with seed 0.

    resolution: H = W of the images, a multiple of 128; weights: path of the network's published weights;
    sigma: standard deviation of the noise, >= 0. Raises InputError if the weights are absent or do not fit.
    """

    code: torch.Tensor  # (1, 512, H / 128, W / 128)

    def __init__(self, resolution: int, weights: str | Path, seed: int = 42, sigma: float = 0.05) -> None:
        super().__init__(sigma)
        self.network = load_network(weights)
        side = resolution // REDUCTION
        code = 1.2 * keyed_generator(seed, "kernel").standard_normal((1, CODE_CHANNELS, side, side))
        self.register_buffer("code", torch.from_numpy(code).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        blurred = self.network(0.5 * x + 0.5, self.code.expand(len(x), -1, -1, -1))
        return (2 * blurred - 1).clip(-1, 1)


def load_network(path: str | Path) -> KernelWizard:
    """The network with the published weights, in evaluation mode and without gradients for its parameters."""
    place, key = find(path), "task operator weights"
    if not place.is_file():
        raise InputError(f"{key}={path}: file {place} not found; get {SOURCE}")
    state = {k: v for k, v in read_state_dict(place, key).items() if not k.startswith(UNUSED)}
    network = KernelWizard()
    wanted = network.state_dict()
    wrong = sorted(wanted.keys() ^ state.keys()) or sorted(k for k in wanted if wanted[k].shape != state[k].shape)
    if wrong:
        raise InputError(f"{key}={path}: missing, unexpected or wrongly shaped keys ({', '.join(wrong[:3])}); get {SOURCE}")
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)
