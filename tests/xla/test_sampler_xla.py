"""The whole sampler on XLA: the CPU's numbers, nothing on the host, and no graph compiled late."""

import threading
from types import SimpleNamespace

import pytest
import torch

from operators.phase_retrieval import PhaseRetrieval
from tests.worlds.xla import CHAIN, World
from utils.mechanisms.polish.act import Polish
from utils.mechanisms.pyramid.act import Pyramid
from utils.mechanisms.pyramid.plan import OFF as OFF_PYRAMID
from utils.mechanisms.start.act import Start
from utils.mechanisms.start.plan import OFF
from utils.noise import KeyedNoise
from utils.sampling.particles import Particles
from utils.sampling.phases import Opening
from utils.sampling.schedule import annealing_sigmas
from utils.sampling.vocabulary import Stage

CPU = torch.device("cpu")
SWITCHES = {
    "exp0": {},
    "exp1": dict(repulsion_scale=0.5),
    "exp2": dict(repulsion_scale=0.5, pruning_step=500),
    "exp4": dict(repulsion_scale=0.5, pruning_step=500, optimization_step=500),
}


def from_the_bank(clock):
    """Two of the four begin at classical reconstructions, at the second of three steps."""
    settings = OFF.model_copy(update={"bank": 2, "restarts": 4, "iterations": 10, "keep": 4})
    return Start(settings, 1, clock.sigmas[1], clock, Opening(1, "above_start", "below_start", ends_search=False))


def polished(clock):
    """The best two anneal once more over two steps."""
    sigmas = annealing_sigmas(4, 10.0, 0.1)[2:]
    return Polish(2, Stage(sigmas, SimpleNamespace(**{**vars(CHAIN), "num_steps": 4}), 2), Opening(3, "annealing", "polish"))


@pytest.fixture(scope="module")
def worlds(tiny_prior, xla):
    return World(tiny_prior, CPU), World(tiny_prior, xla)


def test_backward_passes_run_in_the_calling_thread(xla):
    """A worker thread frees its last gradient late, now and then after a mark_step: a graph with one more output."""
    seen = []
    leaf = torch.ones(2, device=xla, requires_grad=True)
    doubled = leaf * 2
    doubled.register_hook(lambda gradient: seen.append(threading.get_ident()))
    torch.autograd.grad(doubled.sum(), leaf)
    assert seen == [threading.get_ident()]


def test_noise_is_the_same_bit_for_bit(xla):
    drawn = []
    for device in (CPU, xla):
        particles = Particles.start(torch.zeros(2, 1, device=device), [3, 7], 2, 0, (4, 8, 8), torch.float32)
        drawn.append(
            [
                KeyedNoise(42).draw(particles, purpose, 5, count).cpu()
                for purpose, count in (("initial", None), ("mcmc", 4), ("velocity", None))
            ]
        )
    assert all(torch.equal(a, b) for a, b in zip(*drawn))


@pytest.mark.parametrize(
    "switches",
    [
        *SWITCHES.values(),
        dict(repulsion_scale=0.5, place="chain"),
        dict(algorithm="hmc"),
        dict(recombination_step=700),
        dict(SWITCHES["exp4"], lost=0.2),
        dict(SWITCHES["exp4"], lost=0.2, fidelity=dict(free_scale=True)),
        dict(SWITCHES["exp4"], lost=0.2, fidelity=dict(gaussian=0.0, poisson=1.0, photons=100.0)),
        dict(pruning_step=700, children=2, branch_sigma=5.0),
        dict(SWITCHES["exp2"], final_sigma=0.15),
    ],
    ids=[
        *SWITCHES,
        "chain",
        "hmc",
        "recombination",
        "missing pixels",
        "free scale",
        "counts",
        "children",
        "denoised",
    ],
)
def test_latents_equal_the_cpus(worlds, switches):
    on_cpu, on_xla = (world.run(**switches)[0] for world in worlds)
    torch.testing.assert_close(on_xla.particles.z.cpu(), on_cpu.particles.z, rtol=0, atol=1e-4)
    assert on_xla.particles.index.tolist() == on_cpu.particles.index.tolist()
    assert [r["particles"] for r in on_xla.of_image("optimization", 0)] == [
        r["particles"] for r in on_cpu.of_image("optimization", 0)
    ]
    for here, there in zip(on_cpu.of_image("recombination", 0), on_xla.of_image("recombination", 0), strict=True):
        assert here["accepted"].any() and torch.equal(here["source"], there["source"].cpu())
    for here, there in zip(on_cpu.of_image("pruning", 0), on_xla.of_image("pruning", 0), strict=True):
        assert there["kept"] == here["kept"]
        assert there["loss"] == pytest.approx(here["loss"], rel=1e-4)


def test_the_shipped_rate_differs_by_rounding_only(tiny_prior, xla):
    """In float64, where the unstable chain of a random decoder has less rounding to amplify."""
    on_cpu, on_xla = (World(tiny_prior, device, torch.float64).run(lr=7e-5)[0].particles.z.cpu() for device in (CPU, xla))
    torch.testing.assert_close(on_xla, on_cpu, rtol=0, atol=1e-4)


def test_the_counters_see_a_compilation_and_a_fallback(xla, counters):
    import torch_xla

    odd = torch.ones(3, 7, device=xla) * 2
    torch_xla.sync()
    assert counters() == (1, set())
    assert torch.searchsorted(odd[0], odd[1]).device == xla
    assert counters()[1] == {"aten::searchsorted.Tensor"}


# Pruned after step 3, so that step 4 is the first with three particles; experiment 4 has that set from experiment 2.
# With the force in the chain, or HMC, the inner iteration is another graph from step 0 on.
ALL = dict(repulsion_scale=0.5, pruning_step=500, optimization_step=250)


@pytest.mark.parametrize(
    "switches, event, late",
    [
        ({}, 0, set()),
        (dict(repulsion_scale=0.5), 0, set()),
        (dict(repulsion_scale=0.5, pruning_step=500), 3, {3, 4}),
        (ALL, 6, {3, 4, 6}),
        (dict(ALL, place="chain"), 0, {3, 4, 6}),
        (dict(ALL, algorithm="hmc"), 0, {3, 4, 6}),
        # its steps are those of {}, whose graphs are compiled already at five particles
        (dict(final_sigma=0.15, count=6), 0, set()),
    ],
    ids=[*SWITCHES, "chain", "hmc", "denoised"],
)
def test_compilation_is_bounded_and_nothing_runs_on_the_host(worlds, counters, switches, event, late):
    """Five particles (or six), three kept: sizes that no other test has compiled. The repulsion fades out at step 5 of 8."""
    compiled, fallbacks = [], set()

    def read(info):
        count, names = counters()
        compiled.append(count)
        fallbacks.update(names)

    switches = dict(count=5, keep=3, steps=8) | switches
    counters()
    worlds[1].run(on_step=read, **switches)
    counters()  # the result is decoded without a gradient: one graph per run, after the last step
    assert {step for step, count in enumerate(compiled) if count} <= {0, *late}
    assert compiled[event] > 0 and sum(compiled) <= 16
    assert fallbacks == set()
    worlds[1].run(image=1, **switches)
    assert counters() == (0, set())  # the next image compiles nothing


def test_particles_from_the_bank_and_polished_ones_equal_the_cpus(worlds):
    """After the tests above, which count what is compiled."""
    on_cpu, on_xla = (world.run(own=(from_the_bank, polished))[0] for world in worlds)
    torch.testing.assert_close(on_xla.particles.z.cpu(), on_cpu.particles.z, rtol=0, atol=1e-4)
    assert on_xla.particles.index.tolist() == on_cpu.particles.index.tolist()
    assert on_xla.of_image("start", 0)[0]["turned"] == on_cpu.of_image("start", 0)[0]["turned"] == [False, True]
    assert [r["kept"] for r in on_xla.of_image("polish", 0)] == [r["kept"] for r in on_cpu.of_image("polish", 0)]


@pytest.mark.parametrize("consensus", [True, False])
def test_a_start_half_way_to_classical_solutions_is_the_cpus(xla, consensus):
    level = SimpleNamespace(settings=OFF_PYRAMID.model_copy(update={"solutions": 4, "consensus": consensus}))
    generator = torch.Generator().manual_seed(0)
    truth = torch.nn.functional.interpolate(torch.rand(2, 3, 4, 4, generator=generator), size=16, mode="bicubic")
    x = 1.6 * truth.repeat_interleave(2, 0) - 0.8 + 0.1 * torch.randn(4, 3, 16, 16, generator=generator)
    settled = []
    for device in (CPU, xla):
        operator = PhaseRetrieval().to(device)
        particles = Particles.start(operator(1.6 * truth.to(device) - 0.8), [3, 7], 2, 0, (4, 2, 2), torch.float32)
        sampler = SimpleNamespace(operator=operator, noise=KeyedNoise(42))
        settled.append(Pyramid.settled(level, x.to(device), particles, sampler).cpu())
    torch.testing.assert_close(settled[1], settled[0], rtol=0, atol=1e-3)
    assert (settled[0] - x).abs().mean() > 0.03
