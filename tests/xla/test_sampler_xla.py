"""The whole sampler on XLA: the CPU's numbers, nothing on the host, and no graph compiled late."""
import pytest
import torch

from tests.xla.worlds import World
from utils.noise import KeyedNoise
from utils.particles import Particles

CPU = torch.device("cpu")
EXPERIMENTS = {"exp0": {}, "exp1": dict(repulsion_scale=0.5), "exp2": dict(repulsion_scale=0.5, pruning_step=500),
               "exp4": dict(repulsion_scale=0.5, pruning_step=500, optimization_step=500)}


@pytest.fixture(scope="module")
def worlds(tiny_prior):
    from tests.xla.conftest import XLA

    return World(tiny_prior, CPU), World(tiny_prior, XLA)


def test_noise_is_the_same_bit_for_bit(xla):
    drawn = []
    for device in (CPU, xla):
        particles = Particles.start(torch.zeros(2, 1, device=device), [3, 7], 2, 0, (4, 8, 8), torch.float32)
        drawn.append([KeyedNoise(42).draw(particles, purpose, 5, count).cpu()
                      for purpose, count in (("initial", None), ("mcmc", 4), ("velocity", None))])
    assert all(torch.equal(a, b) for a, b in zip(*drawn))


@pytest.mark.parametrize("switches", [*EXPERIMENTS.values(), dict(repulsion_scale=0.5, place="drift"),
                                      dict(algorithm="hmc")], ids=[*EXPERIMENTS, "drift", "hmc"])
def test_latents_equal_the_cpus(worlds, switches):
    on_cpu, on_xla = (world.run(**switches)[0] for world in worlds)
    torch.testing.assert_close(on_xla.particles.z.cpu(), on_cpu.particles.z, rtol=0, atol=1e-4)
    assert on_xla.particles.index.tolist() == on_cpu.particles.index.tolist()
    assert ([[r["iterations"], r["stopped_by"]] for r in on_xla.optimization]
            == [[r["iterations"], r["stopped_by"]] for r in on_cpu.optimization])
    for image, report in on_cpu.pruning.items():
        assert on_xla.pruning[image]["kept"] == report["kept"]
        assert on_xla.pruning[image]["loss"] == pytest.approx(report["loss"], rel=1e-4)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_compilation_is_bounded(worlds, counters, name):
    compiled, fallbacks = [], set()

    def read(info):
        count, names = counters()
        compiled.append(count)
        fallbacks.update(names)

    counters()
    worlds[1].run(steps=8, on_step=read, **EXPERIMENTS[name])
    print(name, compiled, counters())
    worlds[1].run(image=1, steps=8, **EXPERIMENTS[name])
    print(counters())
    assert fallbacks == set()
