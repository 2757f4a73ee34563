"""Parts whose gradient is lost, each in one way, at the line that ends with the comment `lost here`."""

import ctypes

import numpy as np
import torch
import torch.nn.functional as F

from operators.base import Operator

LIBRARY = torch.library.Library("latentdaps_tests", "DEF")
LIBRARY.define("twice(Tensor x) -> Tensor")
LIBRARY.impl("twice", lambda x: 2 * x.detach(), "CPU")


class NumPyCut(Operator):
    def forward(self, x):
        array = x.detach().numpy()  # lost here
        return torch.from_numpy(np.tanh(array)).to(x).view_as(x)


class RefusedNumPy(Operator):
    def forward(self, x):
        return torch.from_numpy(np.asarray(x))  # lost here


class Item(Operator):
    def forward(self, x):
        brightness = [row.mean().item() for row in x]  # lost here
        return torch.tensor(brightness)[:, None]


class Detach(Operator):
    def forward(self, x):
        blurred = F.avg_pool2d(x, 2)
        kept = blurred.detach()  # lost here
        return 2 * kept + 1


class Data(Operator):
    def forward(self, x):
        return x.data.tanh()  # lost here


class NoGrad(Operator):
    def forward(self, x):
        with torch.no_grad():
            y = x.tanh()  # lost here
        return 2 * y


class InferenceMode(Operator):
    @torch.inference_mode()
    def forward(self, x):
        return x.tanh()  # lost here


class IntegerCast(Operator):
    def forward(self, x):
        levels = (127.5 * x).to(torch.int32)  # lost here
        return levels.float() / 127.5


class BooleanCast(Operator):
    def forward(self, x):
        bright = x > 0.3  # lost here
        return bright.to(x.dtype)


class Round(Operator):
    def forward(self, x):
        y = torch.round(127.5 * x)  # lost here
        return y / 127.5


class Saturated(Operator):
    def forward(self, x):
        return (x + 10).clamp(-1, 1) * 3  # lost here


class CFunction(Operator):
    """Fills its result by a function of the C library."""

    def forward(self, x):
        y = torch.empty(x.shape)
        ctypes.memmove(y.data_ptr(), x.data_ptr(), 4 * x.numel())  # lost here
        return y


class CustomOp(Operator):
    """An operation registered with PyTorch, without a derivative."""

    def forward(self, x):
        return torch.ops.latentdaps_tests.twice(x) + 1  # lost here


class Refilled(Operator):
    """Writes into a tensor of its own what the gradient follows no more."""

    def forward(self, x):
        y = torch.zeros_like(x)
        y[:, 0] = x[:, 0].detach()  # lost here
        return y


class TrainedOn(Operator):
    """Has weights that ask for a gradient, so that its result does."""

    def __init__(self, sigma):
        super().__init__(sigma)
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.weight * x.detach()  # lost here


class SquareRoot(Operator):
    def forward(self, x):
        bright = x * (x > 0)
        return bright.sqrt()  # lost here


class Logarithm(Operator):
    def forward(self, x):
        return x.log() + 1  # lost here


class HalfCut(Operator):
    """Its red channel is lost, the others flow."""

    def forward(self, x):
        red = x[:, :1].detach()  # lost here
        return torch.cat([red, x[:, 1:]], 1)


class Mixing(Operator):
    """Normalises by the whole batch."""

    def forward(self, x):
        return x / x.square().mean().sqrt()


class WrongDerivative(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return 2 * x

    @staticmethod
    def backward(context, gradient):
        return gradient


class WrongBackward(Operator):
    def forward(self, x):
        return WrongDerivative.apply(x)


CUTS = {
    "NumPyCut": "conversion to NumPy",
    "RefusedNumPy": "conversion to NumPy",
    "Item": ".item()",
    "Detach": ".detach()",
    "Data": ".data",
    "NoGrad": "tanh() in no_grad",
    "InferenceMode": "tanh() in inference_mode",
    "IntegerCast": "to() to int32",
    "BooleanCast": "gt() to bool",
    "CFunction": "memory handed to a C extension",
    "CustomOp": "twice() has no or a zero gradient",
    "Refilled": ".detach()",
    "TrainedOn": ".detach()",
}
ZEROS = {"Round": "round() has no or a zero gradient", "Saturated": "clamp() has no or a zero gradient"}
NON_FINITE = {"SquareRoot": "sqrt() has a non-finite gradient", "Logarithm": "log() gives non-finite numbers"}


def line_of(name):
    """ "tests/worlds/cut.py:NUMBER: CODE" of the line at which the gradient of class `name` is lost."""
    lines = open(__file__).read().split("\n")
    start = lines.index(next(line for line in lines if line.startswith(f"class {name}(")))
    number = next(i for i in range(start, len(lines)) if lines[i].endswith("# lost here"))
    return f"tests/worlds/cut.py:{number + 1}: {lines[number].split('#')[0].strip()}"
