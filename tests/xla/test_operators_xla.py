"""Every forward operator on XLA: value and gradient of the CPU, nothing on the host."""

import importlib
import pkgutil

import pytest
import torch

import operators
from operators.base import Operator

SIDE = 16
# constructor arguments; what needs deepinv or published weights is left out
CASES = {
    "PhaseRetrieval": {},
    "HighDynamicRange": {},
    "SuperResolution": dict(resolution=SIDE),
    "GaussianBlur": dict(kernel_size=9),
    "MotionBlur": dict(kernel_size=9),
    "Inpainting": dict(resolution=SIDE, mask_type="random", mask_prob_range=[0.3, 0.7]),
}
LEFT_OUT = {
    "Blur",
    "WithFidelity",
    "DeepinvPhysics",
    "NonlinearBlur",
}  # a base class, and one around another


def operator_classes():
    """{name: class} of all modules of operators/."""
    for module in pkgutil.iter_modules(operators.__path__):
        importlib.import_module(f"operators.{module.name}")
    found, waiting = {}, [Operator]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            if kind.__module__.startswith("operators."):
                found[kind.__name__] = kind
    return found


def test_every_operator_has_a_case():
    assert set(CASES) | LEFT_OUT == set(operator_classes())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("picture", ["random", "black"])
def test_value_and_gradient(xla, counters, name, picture):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, SIDE, SIDE, generator=generator) * 2 - 1 if picture == "random" else -torch.ones(2, 3, SIDE, SIDE)
    operator = operator_classes()[name](**CASES[name])
    y = operator(torch.rand(2, 3, SIDE, SIDE, generator=generator) * 2 - 1)
    results = []
    counters()
    for device in (torch.device("cpu"), xla):
        operator, leaf = operator.to(device), x.to(device).requires_grad_()
        measured, loss = operator(leaf), operator.loss(leaf, y.to(device))
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        results.append([value.detach().cpu() for value in (measured, loss, gradient)])
    assert counters()[1] == set()
    for on_xla, on_cpu in zip(*reversed(results)):
        torch.testing.assert_close(on_xla, on_cpu, rtol=1e-5, atol=2e-5)
