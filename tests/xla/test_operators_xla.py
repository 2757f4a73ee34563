"""Every forward operator on XLA: value and gradient of the CPU, nothing on the host."""

import importlib
import pkgutil

import pytest
import torch

import operators
from operators.base import Operator
from operators.fidelity import WithFidelity
from utils.config.sections import Fidelity

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
LEFT_OUT = {"Blur", "WithFidelity", "DeepinvPhysics", "NonlinearBlur"}  # a base class, and one around another: below


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


@pytest.mark.parametrize("name, weights", [("PhaseRetrieval", ("silog", "ssi")), ("HighDynamicRange", ("ssi", "gradient"))])
def test_terms_of_the_data_term(xla, counters, name, weights):
    """With missing pixels; floors too, which mechanisms ask for on the device."""
    generator = torch.Generator().manual_seed(0)
    x, other = (torch.rand(2, 3, SIDE, SIDE, generator=generator) * 2 - 1 for _ in range(2))
    operator = WithFidelity(operator_classes()[name](**CASES[name]), Fidelity(gaussian=0.5, **dict.fromkeys(weights, 1.0)))
    y = operator(other)
    y[torch.rand(y.shape, generator=generator) < 0.2] = torch.nan
    results = []
    counters()
    for device in (torch.device("cpu"), xla):
        operator, leaf, there = operator.to(device), x.to(device).requires_grad_(), y.to(device)
        loss = operator.loss(leaf, there)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        found = (loss, gradient, operator.noise_floor(there, 2), operator.floor_spread(there))
        results.append([value.detach().cpu() for value in found])
    assert counters()[1] == set()
    for on_xla, on_cpu in zip(*reversed(results)):
        torch.testing.assert_close(on_xla, on_cpu, rtol=1e-4, atol=2e-5)
