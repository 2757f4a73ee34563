"""Particles of one image that differ in setting: each has what its number says, alone or in a batch, and nobody else's."""

from types import SimpleNamespace

import pytest
import torch

from operators.base import Operator
from operators.phase_retrieval import PhaseRetrieval
from sampler import LatentDAPS
from tests.worlds import analytic
from tests.worlds.analytic import GAUSSIAN, Y_GAUSSIAN, worst_z_score
from tests.worlds.xla import World
from utils.config.sections import PortfolioEntry
from utils.sampling.particles import Particles
from utils.sampling.portfolio import Portfolio, frequency_ranks, low_passed
from utils.sampling.profiler import Profiler
from utils.sampling.schedule import StepClock, annealing_sigmas

CPU = torch.device("cpu")
LOW = dict(lowpass=0.2, lowpass_until=500)
OTHERS = {"lr": dict(lr=2.0), "tau": dict(tau=1.5), "spacing": dict(spacing=0.6), "lowpass": LOW}
MIX = [{}, *OTHERS.values()]


@pytest.fixture(scope="module")
def world(tiny_prior):
    return World(tiny_prior, CPU)


def latents(world, **settings):
    """(P, C, h, w); passes of one particle, so that a batch computes what a single does, bit for bit."""
    return world.run(**dict(steps=4, passes=1) | settings)[0].particles.z


@pytest.mark.parametrize("algorithm", ["langevin", "hmc"])
@pytest.mark.parametrize("entries", [[{}, other] for other in OTHERS.values()] + [MIX], ids=[*OTHERS, "all"])
def test_singles_equal_the_batch_bit_for_bit(world, entries, algorithm):
    together = latents(world, portfolio=entries, algorithm=algorithm)
    for number in range(4):
        alone = latents(world, portfolio=entries, algorithm=algorithm, count=1, first=number)
        assert torch.equal(alone[0], together[number])


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_an_empty_entry_is_the_run_as_it_is_and_another_is_not(world, other):
    plain, mixed = latents(world), latents(world, portfolio=[{}, other])
    assert torch.equal(mixed[0], plain[0]) and torch.equal(mixed[2], plain[2])
    assert (mixed[1] - plain[1]).abs().max() > 1e-3 and (mixed[3] - plain[3]).abs().max() > 1e-3


@pytest.mark.parametrize("entries", [[{}], [{}, {}], [dict(lr=1.0, tau=1.0, spacing=1.0), {}]], ids=len)
def test_entries_without_a_difference_are_no_portfolio(world, entries):
    assert torch.equal(latents(world, portfolio=entries), latents(world))


@pytest.mark.parametrize("images", [0, (0, 1)], ids=["one image", "two images"])
def test_passes_of_bounded_size_take_the_levels_of_their_particles(tiny_prior, images):
    world = World(tiny_prior, CPU, torch.float64)
    whole, cut = (latents(world, image=images, portfolio=MIX, count=3, passes=passes) for passes in (None, 2))
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-9)


def test_who_is_kept_by_the_pruning_keeps_its_own(tiny_prior):
    """As if each had gone on alone: in its slot of the smaller batch it has another position, and the same number."""
    world = World(tiny_prior, CPU, torch.float64)
    result, _ = world.run(steps=4, image=1, portfolio=MIX, pruning_step=500, keep=2, count=5)
    assert result.particles.index.tolist()[0] > 0
    for z, number in zip(result.particles.z, result.particles.index.tolist()):
        alone = latents(world, image=1, portfolio=MIX, count=1, first=number)
        torch.testing.assert_close(z, alone[0], rtol=0, atol=1e-8)


def sampled(entries, count=16000):
    """Where the chains of the annealing steps ended, and the final latents, [(count, 2)] of the analytic world."""
    loop = analytic.sampler(GAUSSIAN)
    a, d, ends = analytic.ANNEALING, analytic.DIFFUSION, []
    clock = StepClock("progress", loop.sigmas)
    loop.portfolio = Portfolio([PortfolioEntry(**e) for e in entries], a, d, loop.chain, clock)
    result = loop.sample(analytic.start(GAUSSIAN, Y_GAUSSIAN, count), Profiler(CPU), lambda info: ends.append(info.particles.z))
    return [z.flatten(1).numpy() for z in (*ends, result.particles.z)]


def law(steps=None, **entry):
    settings = analytic.chain(lr=0.03 * entry.get("lr", 1.0), tau=entry.get("tau", 1.0))
    return analytic.gaussian_law(GAUSSIAN, Y_GAUSSIAN, settings, spacing=entry.get("spacing", 1.0), steps=steps)


@pytest.mark.parametrize("entry", [dict(lr=2.0), dict(tau=1.6), dict(spacing=0.5)], ids=lambda entry: next(iter(entry)))
def test_each_half_has_the_law_of_its_setting(entry):
    """Mean and covariance of the sampler's own kernel after some of the steps, in closed form."""
    steps = sampled([{}, entry])
    for done in (1, 3, None):
        z = steps[-1 if done is None else done - 1]
        assert worst_z_score(z[::2], law(done)) < 4.5
        assert worst_z_score(z[1::2], law(done, **entry)) < 4.5
    assert worst_z_score(steps[-1][1::2], law()) > 8  # and not that of the run


def test_all_keys_at_once_have_their_law():
    entry = dict(lr=1.4, tau=1.3, spacing=0.7)
    z = sampled([entry, {}, {}])[-1][::3]
    assert worst_z_score(z, law(**entry)) < 4.5


def test_the_grid_bends_and_keeps_its_ends():
    plain, bent = annealing_sigmas(8, 10.0, 0.1), annealing_sigmas(8, 10.0, 0.1, spacing=0.5)
    assert bent[0] == plain[0] and bent[-1] == plain[-1] == 0 and len(bent) == len(plain)
    assert bent[2] == pytest.approx(plain[4])  # (2/8)^(1/2) = 4/8
    assert all(a > b for a, b in zip(bent, bent[1:])) and bent[7] > 0.1


@pytest.mark.parametrize("side", [7, 8])
def test_frequencies_are_ranked_by_their_radius(side):
    rank = frequency_ranks(side, side)
    assert rank[side // 2, side // 2] == 0 and (rank == 0).sum() == 1
    assert rank[side // 2, side // 2 + 1] == rank[side // 2 - 1, side // 2] == 1 / side**2  # nearer: the centre alone
    inner = rank[side % 2 == 0 :, side % 2 == 0 :]  # -N/2 of an even side has no opposite
    assert torch.equal(inner, inner.flip(0, 1))
    assert rank.max() < 1 and (rank < 0.5).double().mean() == pytest.approx(0.5, abs=0.1)


class AsMeasured(Operator):
    """Its images are spectra."""

    spectrum = True

    def forward(self, x):
        return x


def test_the_low_pass_hides_what_lies_outside():
    """Value and gradient: the high frequencies have no say, the low ones have what they had, and nothing missing comes back."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(3, 3, 24, 24, generator=generator) for _ in range(2))
    y[:, :, 12, 12] = torch.nan
    seen = low_passed(y, torch.tensor([0.1, 1.0, 1e-9]).view(-1, 1, 1, 1))
    inside = frequency_ranks(24, 24) < 0.1
    (gradient,) = torch.autograd.grad(AsMeasured(0.0).loss(x.requires_grad_(), seen).sum(), x)
    whole = torch.where(torch.isnan(y), 0.0, 2 * (x - y))
    assert (gradient[0][:, ~inside] == 0).all() and torch.equal(gradient[0][:, inside], whole[0][:, inside])
    assert inside.double().mean() == pytest.approx(0.1, abs=0.02)
    assert torch.equal(gradient[1], whole[1]) and torch.isnan(seen[2]).all()  # of which the centre alone would be seen


def test_the_chain_alone_sees_the_low_pass_and_until_its_timestep(world, monkeypatch):
    """Four steps at t = 1000, 750, 500, 250. What compares particles, and the trace, have the whole measurement."""
    seen, compared, gradient, losses = [], [], PhaseRetrieval.loss, []

    def loss(self, x, y):
        (seen if torch.is_grad_enabled() and x.requires_grad else compared).append(torch.isnan(y).flatten(1).double().mean(1))
        return gradient(self, x, y)

    monkeypatch.setattr(PhaseRetrieval, "loss", loss)
    monkeypatch.setattr(LatentDAPS, "probe_peak_mb", lambda *_: None)

    def on_step(info):
        losses.append((info.loss, gradient(PhaseRetrieval(), info.image, info.particles.y)))

    world.run(steps=4, inner=2, portfolio=[{}, LOW], pruning_step=750, keep=4, on_step=on_step)
    missing = torch.stack(seen)[::2].round(decimals=1).tolist()  # of two iterations
    assert missing == [[0.0, 0.8, 0.0, 0.8]] * 2 + [[0.0] * 4] * 2
    assert len(compared) == 4 + 1 + 1  # of each step for the trace, of the pruning and of the result
    assert all((share == 0).all() for share in compared)
    assert all(torch.equal(*pair) for pair in losses)


def test_children_and_clones_have_the_entries_of_their_own_numbers():
    entries = [PortfolioEntry(lr=1.0 + i) for i in range(3)]
    clock = StepClock("progress", annealing_sigmas(4, 10.0, 0.1))
    annealing, diffusion = SimpleNamespace(num_steps=4, sigma_max=10.0, sigma_min=0.1), analytic.DIFFUSION
    loop = analytic.sampler(GAUSSIAN, annealing=annealing)
    loop.portfolio = Portfolio(entries, annealing, diffusion, loop.chain, clock)
    particles = Particles.start(torch.zeros(1, 3, 1, 1), [0], 2, 5, (2, 1, 1), torch.float64)
    family = particles.branch(2, first=7, stay=True)
    assert family.index.tolist() == [5, 6, 7, 8, 9, 10]
    s = loop.scalars(1)
    factors = loop.numbers(family, s).lr.flatten() / s.lr
    torch.testing.assert_close(factors, torch.tensor([3.0, 1.0, 2.0, 3.0, 1.0, 2.0], dtype=torch.float64))


def test_only_what_differs_is_a_number_per_particle():
    loop = analytic.sampler(GAUSSIAN)
    clock = StepClock("progress", loop.sigmas)
    particles = analytic.start(GAUSSIAN, Y_GAUSSIAN, 4)
    of_keys = {"lr": {"lr"}, "tau": {"weight"}, "spacing": {"sigma", "sigma_next", "ode"}, "lowpass": {"share"}}
    for key, fields in of_keys.items():
        entries = [PortfolioEntry(), PortfolioEntry(**OTHERS[key])]
        loop.portfolio = Portfolio(entries, analytic.ANNEALING, analytic.DIFFUSION, loop.chain, clock)
        found = loop.numbers(particles, loop.scalars(2))
        several = {
            name
            for name, value in found._asdict().items()
            if isinstance(value[-1] if name == "ode" else value, torch.Tensor) and (value[-1] if name == "ode" else value).ndim
        }
        assert several == fields
