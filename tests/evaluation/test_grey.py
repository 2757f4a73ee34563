"""Of grey data everything is judged by the grey: its colours are the prior's guess."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from operators.fidelity import WithFidelity
from operators.phase_retrieval import LUMINANCE, PhaseRetrieval
from utils.data import TestItem
from utils.evaluation.evaluator import Evaluator
from utils.evaluation.trace import Trace
from utils.population.certificate import agreements
from utils.records.record import problem
from utils.running.results import results_of
from utils.sampling.outcome import SampleResult, StepInfo
from utils.sampling.particles import Particles
from utils.sampling.profiler import Phase, Profiler
from utils.sampling.schedule import StepClock, annealing_sigmas

SIDE = 12
CLOCK = StepClock(annealing_sigmas(1, 10.0, 0.1))
SUCCESS = SimpleNamespace(threshold_db=20.0, margin_db=3.0)


def grey_of(x):
    """(3, H, W) of an image (3, H, W)."""
    return (torch.tensor(LUMINANCE).view(3, 1, 1) * x).sum(0, keepdim=True).expand(3, SIDE, SIDE)


def of_other_colours(x, seed):
    """The same luminance with other colours."""
    chroma = 0.2 * torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return x + chroma - grey_of(chroma)


@pytest.fixture
def world(tmp_path):
    """world(channels, *images) -> (record, arrays, result, operator, trace), images (3, 12, 12) being the particles."""
    (tmp_path / "x.png").write_bytes(b"x")
    ramp = torch.linspace(-0.6, 0.5, SIDE)
    truth = torch.stack([ramp.expand(SIDE, SIDE), ramp[:, None].expand(SIDE, SIDE), -ramp.expand(SIDE, SIDE)])
    truth = truth + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(5))  # something at each frequency

    def judge(channels, *images):
        operator = PhaseRetrieval(sigma=0.5, channels=channels)
        x = torch.stack([torch.as_tensor(image) for image in images])
        y = operator(truth[None]).expand(len(x), -1, -1, -1)
        particles = Particles(
            z=torch.zeros(len(x), 1, 1, 1), y=y, image=torch.zeros(len(x), dtype=torch.long), index=torch.arange(len(x))
        )
        loss = operator.loss(x, y)
        result = SampleResult(particles, x, loss, [1.0], {})
        trace = Trace({0: truth}, operator=operator)
        trace(StepInfo(0, particles, x, loss))
        profiler = Profiler(torch.device("cpu"))
        profiler.step_s, profiler.phases = [1.0], {"sampling": Phase(time_s=1.0, steps=1)}
        judged = Evaluator(operator, SUCCESS, range(len(x)), CLOCK)
        record, arrays = judged.record(TestItem(0, tmp_path / "x.png"), truth, result, trace, profiler)
        return record, arrays, result, operator, trace.of_image(0, range(len(x)))

    judge.truth = truth
    return judge


def test_particles_of_one_grey_agree_whatever_their_colours(world):
    images = [of_other_colours(world.truth, seed) for seed in range(3)]
    record, arrays, result, operator, _ = world(1, *images)
    assert record["summary"]["agreeing"] == [True] * 3 and record["summary"]["psnr"] > 60
    assert arrays["summary_std"].max() < 1e-3 and np.allclose(arrays["summary_prtf"], 1, atol=1e-3)
    assert agreements(result.image, operator)[0, 1] > 0.999
    assert world(3, *images)[0]["summary"]["agreeing"] != [True] * 3  # of colour data they do not


def test_another_grey_does_not_agree(world):
    other = world.truth + 0.5 * torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(9))
    record = world(1, world.truth, other)[0]
    assert record["summary"]["agreeing"] == [True, False]


def test_pictures_and_scores_are_grey(world):
    coloured = of_other_colours(world.truth, 1)
    record, arrays, *_, trace = world(1, coloured, of_other_colours(world.truth, 2))
    for name in ("images", "truth", "summary_mean"):
        assert np.ptp(arrays[name].astype(int), axis=-1).max() == 0, name
    assert record["scores"]["psnr"][0] > 50 and trace["psnr"][0][0] == pytest.approx(record["scores"]["psnr"][0], rel=1e-3)
    assert np.abs(arrays["images"][0][..., 0] / 127.5 - 1 - grey_of(coloured)[0].numpy()).max() < 0.005
    stamp = {"schema": 1, "fingerprint": "x", "device": {"type": "cpu", "name": "test"}}
    run = {"seed": 0, "num_samples": 2, "overrides": [], "git_commit": None, "versions": {}}
    assert problem({**record, **stamp, "run": run}, arrays) is None
    colours = world(3, coloured)[1]
    assert np.ptp(colours["images"].astype(int), axis=-1).max() > 0


def test_grey_results_have_one_channel(world):
    images = [of_other_colours(world.truth, seed) for seed in range(2)]
    record, _, result, operator, _ = world(1, *images)
    found = results_of(record, result, operator, SIDE, 1)
    assert {name: values.shape for name, values in found.items()} == dict.fromkeys(("pick", "mean", "std"), (1, SIDE, SIDE))
    assert np.allclose(found["mean"], 0.5 * grey_of(world.truth)[:1].numpy() + 0.5, atol=1e-5) and found["std"].max() < 1e-5
    record["diverged"] = [True, False]
    record["selection"]["picked"] = 1
    alone = results_of(record, result, operator, SIDE, 1)
    assert list(alone) == ["pick"] and np.allclose(alone["pick"], 0.5 * grey_of(images[1])[:1].numpy() + 0.5, atol=1e-5)
    record["selection"]["picked"] = None
    assert results_of(record, result, operator, SIDE, 1) == {}


def test_the_data_term_leaves_it_to_its_operator():
    x = torch.rand(2, 3, SIDE, SIDE) * 2 - 1
    settings = SimpleNamespace(weights={"gaussian": 1.0}, photons=None, background=0.1, free_scale=True)
    for channels in (1, 3):
        operator = PhaseRetrieval(channels=channels)
        assert torch.equal(WithFidelity(operator, settings).visible(x), operator.visible(x))
        assert torch.equal(operator.visible(x), x) == (channels == 3)
