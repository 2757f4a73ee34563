"""The check after the first image: a loss above the floor that still falls is said, and nothing of the run changes."""

import logging

import numpy as np
import pytest
import torch

from tests.worlds import runs
from utils.config.check import check
from utils.data import select_images
from utils.diagnosis import convergence
from utils.diagnosis.convergence import Continued, Convergence
from utils.noise import KeyedNoise
from utils.records.files import read_record
from utils.running.build import build, load_batch

ON = "chain_check=auto"
QUIET = "task.demo_langevin.operator.sigma=1e-7"  # a tenth of what the data term weighs: the floor lies below every image

HAMILTONIAN = [f"sampler.chain.{key}={value}" for key, value in dict(mc_algo="hmc", momentum=0.5, keep_velocity=True).items()]


@pytest.fixture(autouse=True)
def as_a_run_logs(caplog):
    with caplog.at_level(logging.INFO, logger="latentdaps"):
        yield


def said(folder):
    return [line.split(" ", 2)[2] for line in (folder / "run.log").read_text().splitlines() if "last chain" in line]


@pytest.fixture(scope="module")
def rate():
    """At which a Langevin chain of the analytic prior reaches its target in one iteration, in the stiffest direction."""
    decoder = runs.load_analytic(None, torch.device("cpu"), None).decoder.numpy()
    return 1 / (2 * np.linalg.eigvalsh(decoder.T @ decoder)[-1])


@pytest.mark.program
def test_a_chain_that_still_falls_is_said_at_the_end(run, rate):
    """The images are none of the prior's, so the loss stays above its floor in both runs: only one of them would go on."""
    chain = dict(num_steps=4, lr_min_ratio=1.0)
    slow, metrics = run(runs.ANALYTIC, *runs.LINEAR, QUIET, ON, *runs.set_chain(lr=0.05 * rate, **chain), "name=slow")
    measured, warned = said(slow)
    picked = metrics["loss"]["ratio"][0][metrics["selection"]["picked"][0]]
    assert measured.startswith(f"INFO chain_check: image 0: loss / floor of the pick {picked:.3g} (the truth through")
    assert "2 more iterations of its last chain change it by -" in measured
    assert "(2 decoder forward backward, 3 decoder forward, 1 encoder forward, after the last phase)" in measured
    assert warned.startswith(f"WARNING chain_check: under-run: image 0: loss / floor of the pick {picked:.3g}, and 2 more")
    log = (slow / "run.log").read_text()
    assert log.index("more iterations") < log.index("image 1: ") < log.index("under-run")  # at once, and at the end

    settled, _ = run(
        runs.ANALYTIC, *runs.LINEAR, QUIET, ON, *runs.set_chain(lr=rate, num_steps=40, lr_min_ratio=1.0), "name=settled"
    )
    assert len(said(settled)) == 1 and "14 more iterations" in said(settled)[0]


@pytest.mark.program
@pytest.mark.parametrize("batch", [1, 2])
def test_records_are_the_same_with_and_without(run, batch):
    folder, with_it = run(f"batch_images={batch}", ON, "name=on")
    other, without = run(f"batch_images={batch}", "chain_check=false", "name=off")
    assert len(said(folder)) in (1, 2) and said(other) == []
    assert runs.scores(with_it) == runs.scores(without)
    for image in (0, 1):
        (one, arrays), (two, others) = (read_record(f / f"records/{image:05d}.npz") for f in (folder, other))
        assert one["fingerprint"] == two["fingerprint"] and one["loss"] == two["loss"] and one["trace"] == two["trace"]
        assert arrays.keys() == others.keys() and all(np.array_equal(arrays[k], others[k]) for k in arrays)


@pytest.fixture
def world(composed, tiny):
    """world(*overrides) -> (settings, parts, first image, its particles) of the analytic prior."""

    def start(*overrides):
        settings = check(composed(*tiny, runs.ANALYTIC, *runs.LINEAR, ON, *overrides))
        parts, image = build(settings), select_images(settings)[0]
        return settings, parts, image, load_batch(parts, settings, [image])[0]

    return start


@pytest.mark.parametrize("chain", [(), HAMILTONIAN], ids=["langevin", "hmc"])
def test_it_is_the_rest_of_a_longer_chain(world, rate, monkeypatch, chain):
    """Without noise 3 iterations, continued by as many, end where 6 do: the same rate, target and velocity."""
    monkeypatch.setattr(
        "utils.noise.KeyedNoise.draw",
        lambda self, particles, purpose, step=0, count=None: particles.z.new_zeros(
            *([count] if count else []), *particles.z.shape
        ),
    )
    ends = []
    for steps in (3, 6):
        _, parts, _, particles = world(*runs.set_chain(num_steps=steps, lr=0.2 * rate, lr_min_ratio=0.5), *chain)
        sampler = parts.sampler
        z0hat = torch.ones_like(particles.z)
        end, _, _ = sampler.inner_chain(particles, z0hat, sampler.scalars(1))
        ends.append((sampler, end))
    (short, end), (_, whole) = ends
    further, iterations = short.continued(end, z0hat, 1, 1.0)
    assert iterations == 3 and not torch.allclose(end.z, whole.z) and torch.equal(further.z, whole.z)


def test_the_noise_is_none_of_the_runs(world, monkeypatch):
    """Else the chain would repeat the shocks that brought it where it is."""
    _, parts, _, particles = world(*runs.set_chain(num_steps=3))
    draw, purposes = KeyedNoise.draw, []
    monkeypatch.setattr(KeyedNoise, "draw", lambda *args, **more: purposes.append(args[2]) or draw(*args, **more))
    end = particles.at(torch.ones_like(particles.z))
    parts.sampler.continued(end, end.z, 2, 1.0)
    further = set(purposes)
    parts.sampler.sample(particles)
    assert further and not further & set(purposes[1:])


def test_the_pick_alone_is_continued_and_its_passes_are_not_the_runs(world):
    settings, parts, image, particles = world(*runs.set_chain(num_steps=4))
    checked = Convergence(parts, settings, image)
    steps = []
    result = parts.sampler.sample(particles, on_step=checked.watching(steps.append))
    calls = dict(parts.sampler.counted.calls)
    found = checked.continued(2, None)
    assert len(steps) == 3 and dict(parts.sampler.counted.calls) == calls
    assert found.before == pytest.approx(result.loss[2].item(), rel=1e-12) and found.of_truth is None
    assert found.iterations == 2 and found.spent == "2 decoder forward backward, 2 decoder forward"


def conclusion(world, caplog, loss, found, **more):
    settings, parts, image, _ = world()
    checked = Convergence(parts, settings, image)
    record = {"selection": {"picked": 1}, "loss": [None, loss], "noise_floor": 2.0, "floor_std": 0.1, **more}
    checked.conclude(record, found)
    checked.close()
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("loss, after, said", [(2.4, 2.35, 1), (2.2, 2.1, 0), (2.4, 2.39, 0), (2.4, 3.0, 0)])
def test_under_run_is_above_the_floor_and_falling(world, caplog, loss, after, said):
    """Within what noise explains a fall is no fault, and a chain that has settled above it is not mended by more of it."""
    assert len(conclusion(world, caplog, loss, Continued(loss, after, 2, "", None))) == said


@pytest.mark.parametrize("decoder, said", [(1.0, 0), (0.05, 1)])
def test_what_the_prior_cannot_draw_is_no_under_run(world, caplog, decoder, said):
    """The verdict allows the decoder's own error, and so does this."""
    assert len(conclusion(world, caplog, 2.4, Continued(2.4, 2.35, 2, "", None), decoder_floor=decoder)) == said


def test_nothing_it_meets_ends_the_run(run, monkeypatch):
    def refuse(*_):
        raise RuntimeError("no room")

    monkeypatch.setattr(convergence.Convergence, "continued", refuse)
    folder, _ = run(ON)
    assert "chain_check: left out (no room)" in (folder / "run.log").read_text() and said(folder) == []
