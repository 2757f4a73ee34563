"""The plug-ins on XLA: the CPU's numbers, nothing on the host, and no graph compiled late."""

import pytest
import torch

from docs.examples.plugins.bounded_residual import BoundedResidual
from tests.worlds.data_terms import SIDE, with_fidelity
from tests.worlds.xla import OPTIMIZATION, World

KEYS = dict(vars(OPTIMIZATION), every=1, bound=0.2, warmup=1)
TERMS = {
    "silog": dict(image=False, terms={"silog": {"_target_": "docs.examples.plugins.silog.Silog"}}),
    "ssi": dict(image=False, terms={"ssi": {"_target_": "docs.examples.plugins.ssi.ScaleShiftInvariant"}}),
    "edges": dict(image=True, terms={"edges": {"_target_": "docs.examples.plugins.multiscale_gradient.MultiscaleGradient"}}),
}


def bounded(step):
    return [lambda clock: BoundedResidual(clock, step=step, **KEYS)]


@pytest.fixture(scope="module")
def worlds(tiny_prior, xla):
    return World(tiny_prior, torch.device("cpu")), World(tiny_prior, xla)


def test_the_bounded_residual_gives_the_cpus_latents(worlds):
    on_cpu, on_xla = (world.run(own=bounded(500))[0] for world in worlds)
    torch.testing.assert_close(on_xla.particles.z.cpu(), on_cpu.particles.z, rtol=0, atol=1e-4)
    assert [r["particles"] for r in on_xla.of_image("bounded_residual", 0)] == [
        r["particles"] for r in on_cpu.of_image("bounded_residual", 0)
    ]


def test_the_bounded_residual_compiles_no_graph_late(worlds, counters):
    """Eight particles, seven kept: sizes of which no other test counts the graphs. It acts from step 6 of 8 on.

    As many graphs as with the core's optimisation, alone: 20.
    """
    compiled, fallbacks = [], set()

    def read(info):
        count, names = counters()
        compiled.append(count)
        fallbacks.update(names)

    counters()
    worlds[1].run(count=8, keep=7, steps=8, repulsion_scale=0.5, pruning_step=500, own=bounded(250), on_step=read)
    counters()
    assert {step for step, count in enumerate(compiled) if count} <= {0, 3, 4, 6}
    assert compiled[6] > 0 and sum(compiled) <= 20
    assert fallbacks == set()


@pytest.mark.parametrize("name", TERMS)
def test_a_term_and_its_floors_are_the_cpus(xla, counters, name):
    """With missing pixels; floors too, which mechanisms ask for on the device."""
    generator = torch.Generator().manual_seed(0)
    x, other = (torch.rand(2, 3, SIDE, SIDE, generator=generator) * 2 - 1 for _ in range(2))
    operator = with_fidelity(gaussian=0.5, **TERMS[name]).float()
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
