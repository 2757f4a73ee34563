"""Every data term through the whole sampler: batches with different masks, bounded passes, stops at the term's own floor."""

import pytest
import torch

from tests.worlds.data_terms import with_fidelity
from tests.worlds.least_squares import settings
from tests.worlds.xla import World
from utils.mechanisms.optimization.act import HardDataConsistency
from utils.sampling.particles import Particles

COUNTS = dict(gaussian=0.0, photons=100.0)
TERMS = {
    "free_scale": dict(free_scale=True),
    "poisson": dict(COUNTS, poisson=1.0),
    "amplitude, free_scale": dict(COUNTS, amplitude=1.0, free_scale=True),
    "gaussian and one's own": dict(terms=dict(squares=dict(_target_="tests.worlds.own_terms.Squares", weight=0.5))),
}
ALL = dict(pruning_step=700, optimization_step=400, recombination_step=900, steps=4, lost=0.2)


@pytest.fixture(scope="module")
def world(tiny_prior):
    return World(tiny_prior, torch.device("cpu"), torch.float64)


@pytest.mark.heavy
@pytest.mark.parametrize("name", TERMS)
def test_a_batch_with_different_masks_equals_single_runs_also_in_bounded_passes(world, name):
    batch, _ = world.run(image=(0, 1), fidelity=TERMS[name], **ALL)
    bounded, _ = world.run(image=(0, 1), fidelity=TERMS[name], passes=3, **ALL)
    torch.testing.assert_close(bounded.particles.z, batch.particles.z, rtol=0, atol=1e-8)
    for image in (0, 1):
        alone, _ = world.run(image=image, fidelity=TERMS[name], **ALL)
        mine = batch.particles.select(batch.particles.of_image(image))
        assert mine.index.tolist() == alone.particles.index.tolist()
        torch.testing.assert_close(mine.z, alone.particles.z, rtol=0, atol=1e-8)
    plain, _ = world.run(image=(0, 1), **ALL)
    assert torch.isfinite(batch.particles.z).all() and (plain.particles.z - batch.particles.z).abs().max() > 1e-6


@pytest.mark.parametrize("name", TERMS)
def test_the_optimisation_stops_at_the_terms_own_floor(name):
    """On the image itself: the truth of a typical measurement is at its floor, and 1.1 times that allows it to stay."""
    operator = with_fidelity(sigma=0.05, **TERMS[name])
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(1, 3, 32, 32, generator=generator, dtype=torch.float64) * 1.6 - 0.8
    y = operator.measure(truth, torch.randn(operator(truth).shape, generator=generator, dtype=torch.float64))
    y[..., 20:26, 20:26] = torch.nan
    particles = Particles.start(y, [0], 2, 0, truth.shape[1:], truth.dtype)
    off = truth + 0.2 * torch.randn(truth.shape, generator=generator, dtype=torch.float64)
    particles = particles.at(torch.cat([truth, off]))

    def data_gradient(p):
        z = p.z.detach().requires_grad_()
        loss = operator.loss(z, p.y)
        return torch.autograd.grad(loss.sum(), z)[0], loss.detach(), z

    floor = operator.noise_floor(particles.y)
    chosen = settings(max_iterations=100, lr=0.01, stop_factor=1.1, max_move=10.0)
    z, report = HardDataConsistency(chosen, 0, None)(particles, data_gradient, floor)
    assert report["stopped_by"] == ["discrepancy"] * 2 and report["iterations"][0] == 0 < report["iterations"][1]
    loss = operator.loss(z, particles.y)
    assert (loss <= 1.1 * floor).all() and loss[1] > 0.8 * floor[1]


@pytest.mark.program
def test_a_run_names_each_term_in_trace_and_metrics(run):
    folder, m = run(
        "fidelity.amplitude=0.5", "fidelity.photons=100", "pruning_step=500", "optimization_step=400", "recombination_step=700"
    )
    assert list(m["loss"]["terms"]) == ["gaussian", "amplitude"]
    for i in range(2):
        for p in range(4):
            parts = [m["loss"]["terms"][name]["sample"][i][p] for name in ("gaussian", "amplitude")]
            total = m["loss"]["sample"][i][p]
            assert total is None and parts == [None, None] or total == pytest.approx(parts[0] + 0.5 * parts[1], rel=1e-5)
        floors = [m["loss"]["terms"][name]["noise_floor"][i] for name in ("gaussian", "amplitude")]
        assert m["loss"]["noise_floor"][i] == pytest.approx(floors[0] + 0.5 * floors[1])
    from utils.records.files import read_record

    trace = read_record(folder / "records" / "00000.npz")[0]["trace"]
    for step in range(3):
        for total, *parts in zip(trace["loss"][step], *(trace["terms"][n][step] for n in ("gaussian", "amplitude"))):
            assert total is None and parts == [None, None] or total == pytest.approx(parts[0] + 0.5 * parts[1], rel=1e-5)


@pytest.mark.program
def test_the_default_names_no_term_and_keeps_its_fingerprint(run, composed):
    from utils.config.check import check

    _, m = run("data.end_id=1")
    assert "terms" not in m["loss"]
    plain, off, on = (
        check(composed(*more)).composition.fingerprint
        for more in ([], ["fidelity.background=3", "fidelity.poisson=0"], ["fidelity.gaussian=0.5"])
    )
    assert plain == off != on


@pytest.mark.program
def test_a_term_of_weight_0_is_no_term_bit_for_bit(run):
    from utils.records.files import read_record

    mine, latents = "+fidelity.terms.mine={_target_:tests.worlds.own_terms.Squares,weight:%s}", []
    for weight in (None, 0, 0.2):
        folder, m = run("data.end_id=1", *([] if weight is None else [mine % weight]), f"name=w{weight}")
        latents.append(read_record(folder / "records" / "00000.npz")[1]["z"])
    assert (latents[0] == latents[1]).all() and (latents[0] != latents[2]).any()
    assert list(m["loss"]["terms"]) == ["gaussian", "mine"]
