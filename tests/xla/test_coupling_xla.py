"""The plug-in of coupled families on XLA: the CPU's numbers, nothing on the host, and no graph compiled late."""

from functools import partial

import pytest
import torch

from docs.examples.plugins.coupling import Coupling
from tests.worlds.xla import World


@pytest.fixture(scope="module")
def worlds(tiny_prior, xla):
    return World(tiny_prior, torch.device("cpu")), World(tiny_prior, xla)


def families(step):
    def make(clock):
        mechanism = Coupling(clock, children=2, share=0.3, pruning_step=step)
        mechanism.name = "coupling"
        return mechanism

    return dict(pruning_step=step, own=[make])


def test_latents_equal_the_cpus(worlds):
    on_cpu, on_xla = (world.run(**families(700))[0] for world in worlds)
    assert on_xla.particles.index.tolist() == on_cpu.particles.index.tolist() and len(on_cpu.particles) == 6
    torch.testing.assert_close(on_xla.particles.z.cpu(), on_cpu.particles.z, rtol=0, atol=1e-4)


def test_compilation_is_bounded_and_nothing_runs_on_the_host(worlds, counters):
    """Of the four steps left after the third, two pull down and two up."""
    compiled, fallbacks = [], set()

    def read(info):
        count, names = counters()
        compiled.append(count)
        fallbacks.update(names)

    run = partial(worlds[1].run, count=5, keep=2, steps=8, **families(500))
    run(on_step=read)
    counters()  # the result is decoded without a gradient: one graph per run, after the last step
    assert {step for step, count in enumerate(compiled) if count} <= {0, 3, 4, 6}
    assert compiled[3] > 0 and sum(compiled) <= 16
    assert fallbacks == set()
    run(image=1)
    assert counters() == (0, set())  # the next image compiles nothing
