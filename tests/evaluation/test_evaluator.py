"""From a batch's particles to one image's record: each value in the place of its particle."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from operators.phase_retrieval import PhaseRetrieval
from utils.data import TestItem
from utils.evaluation.evaluator import Evaluator
from utils.evaluation.scores import rotated
from utils.evaluation.trace import Trace
from utils.metrics.lpips import Lpips
from utils.metrics.lpips_alex import LpipsAlex
from utils.metrics.pixels import to_pixels, to_unit
from utils.metrics.psnr import psnr
from utils.records.record import problem
from utils.running.console import progress_bar
from utils.sampling.mechanism import Mechanism
from utils.sampling.outcome import SampleResult, StepInfo
from utils.sampling.particles import Particles
from utils.sampling.profiler import Phase, Profiler
from utils.sampling.schedule import StepClock, annealing_sigmas

CLOCK = StepClock(annealing_sigmas(2, 10.0, 0.1))
SUCCESS = SimpleNamespace(threshold_db=20.0, margin_db=3.0)
OPERATOR = PhaseRetrieval(sigma=0.5)
STAMP = {
    "schema": 1,
    "fingerprint": "x",
    "device": {"type": "cpu", "name": "test"},
    "run": {"seed": 0, "num_samples": 4, "overrides": [], "git_commit": None, "versions": {}},
}


def truth(side=12):
    """(3, side, side), far from its own rotation."""
    ramp = torch.linspace(-0.8, 0.8, side)
    return torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side), -ramp.expand(side, side)])


class Speaking(Mechanism):
    name = "speaking"

    def block(self, reports, indices):
        return {"reports": reports, "of": len(indices)}


@pytest.fixture
def record(tmp_path, monkeypatch):
    """Record and arrays of image 7, of a batch with image 5; of its particles 4 to 7 number 5 was pruned, 6 diverged.

    Particle 4 is turned and off by 0.15, 7 is upright, off by 0.05, and has the lower loss.
    """
    monkeypatch.setattr(Lpips, "__call__", lambda self, x, truth: torch.tensor([0.25 * i for i in range(len(x))]))
    monkeypatch.setattr(LpipsAlex, "__call__", lambda self, x, truth: None)
    (tmp_path / "seven.png").write_bytes(b"seven")
    image = torch.stack([torch.zeros(3, 12, 12), rotated(truth()) + 0.15, truth(), truth() + 0.05])
    particles = Particles(
        z=torch.tensor([0.0, 1.0, math.nan, 3.0]).view(4, 1, 1, 1),
        y=torch.stack([torch.zeros(3, 18, 18), *[torch.ones(3, 18, 18)] * 3]),
        image=torch.tensor([5, 7, 7, 7]),
        index=torch.tensor([4, 4, 6, 7]),
    )
    said = {"speaking": [{5: {"step": 0}}, {5: {"step": 1}, 7: {"step": 1}}]}
    result = SampleResult(particles, image, torch.tensor([1.0, 9.0, 2.0, 8.0]), [0.5, 1.5], said)
    trace = Trace({5: truth(), 7: truth()})
    for step in (0, 1):
        trace(StepInfo(step, particles, image, torch.tensor([1.0, 30.0, 2.0, 20.0])))
    profiler = Profiler(torch.device("cpu"))
    profiler.step_s, profiler.phases = [0.5, 1.5], {"sampling": Phase(time_s=2.0, steps=2, denoiser_calls=4.0)}
    judge = Evaluator(OPERATOR, SUCCESS, range(4, 8), CLOCK, [Speaking()])
    return judge.record(TestItem(7, tmp_path / "seven.png"), truth(), result, trace, profiler)


def test_values_stand_in_the_places_of_their_particles(record):
    one, _ = record
    assert one["particles"] == [4, 5, 6, 7] and one["survivors"] == [4, 6, 7]
    assert one["loss"] == [9.0, None, None, 8.0]
    assert one["diverged"] == [False, False, True, False]
    assert one["scores"]["lpips"] == [0.0, None, None, 0.5]
    expected = psnr(torch.stack([rotated(truth()) + 0.15, truth() + 0.05]), truth()).tolist()
    assert one["scores"]["psnr"] == [pytest.approx(expected[0]), None, None, pytest.approx(expected[1])]


def test_labels_need_the_threshold_and_beat_the_other_by_the_margin(record):
    """Both numbers as the config names them: 22 dB are above the threshold, and beat the other orientation by less than 20."""
    modes = record[0]["modes"]
    assert modes["label"] == ["180", None, None, "0"]
    assert 20 > modes["psnr_180"][0] - modes["psnr_0"][0] > 3 and modes["psnr_180"][0] > 20
    assert modes["psnr_rotated_truth"] == pytest.approx(psnr(rotated(truth())[None], truth()).item())


def test_the_pick_is_the_lowest_loss_of_those_that_are_left(record):
    selection = record[0]["selection"]
    assert selection["picked"] == 3
    assert selection["psnr"] == record[0]["scores"]["psnr"][3]
    assert selection["psnr_aligned"] == record[0]["modes"]["psnr_aligned"][3]


def test_time_is_the_share_of_the_image_and_the_noise_floor_is_of_one_measurement(record):
    time = record[0]["time"]
    assert (time["image_s"], time["step_s"], time["compile_s"]) == (2.0, [0.5, 1.5], None)
    assert time["phases"]["sampling"]["time_s"] == 2.0 and time["phases"]["sampling"]["denoiser_calls"] == 4.0
    measured = 3 * 18 * 18
    assert record[0]["noise_floor"] == pytest.approx(measured * 0.25)
    assert record[0]["floor_std"] == pytest.approx((2 * measured) ** 0.5 * 0.25)


def test_a_mechanism_of_ones_own_has_its_block_of_the_image_alone(record):
    assert record[0]["mechanisms"] == {"speaking": {"reports": [{"step": 1}], "of": 4}}
    assert record[0]["pruning"] is None and record[0]["optimization"] is None


def test_the_summary_is_of_the_finite_particles_turned_onto_the_pick(record):
    """Off by 0.15 and 0.05, they are off by 0.1 together, where nothing is clipped."""
    one, arrays = record
    assert one["summary"]["agreeing"] == [True, None, None, True]
    together = psnr(((to_unit(truth() + 0.15) + to_unit(truth() + 0.05)) - 1)[None], truth()).item()
    assert one["summary"]["psnr"] == pytest.approx(together, abs=1e-4)
    assert one["modes"]["psnr_aligned"][0] < together < one["modes"]["psnr_aligned"][3]
    assert arrays["summary_mean"].shape == (12, 12, 3) and arrays["summary_prtf"].shape == (7,)
    assert np.median(arrays["summary_std"].astype(float)) == pytest.approx(0.05 / 2**0.5, rel=0.01)
    assert problem({**one, **STAMP}, arrays) is None


def test_arrays_are_the_images_own(record):
    arrays = record[1]
    assert arrays["y"].min() == 1.0 and arrays["z"].shape == (3, 1, 1, 1)
    assert arrays["images"].shape == (3, 12, 12, 3)
    assert np.array_equal(arrays["truth"], to_pixels(truth()[None])[0])


def test_pixels_are_rounded_and_clipped():
    values = torch.tensor([-2.0, -1.0, -0.999, 0.0, 0.999, 1.0, math.nan, math.inf])
    pixels = to_pixels(values.view(1, 1, 1, 8).expand(1, 3, 1, 8))[0, 0, :, 0]
    assert pixels.tolist() == [0, 0, 0, 128, 255, 255, 0, 255]


def test_a_trace_follows_the_particles_of_its_image_through_the_pruning():
    seen = []
    trace = Trace({3: truth(), 8: truth()}, seen.append)
    start = Particles.start(torch.zeros(2, 1), [3, 8], 2, 0, (1, 1, 1), torch.float32)
    start = start.at(torch.tensor([0.0, 2.0, 0.0, 5.0]).view(4, 1, 1, 1))
    images = torch.stack([truth() + shift for shift in (0.1, 0.2, 0.02, 0.4)])
    trace(StepInfo(0, start, images, torch.tensor([1.0, 2.0, 3.0, 4.0])))
    keep = torch.tensor([1, 2])
    trace(StepInfo(1, start.select(keep), images[keep], torch.tensor([5.0, 6.0])))
    of_3, of_8 = trace.of_image(3, [0, 1]), trace.of_image(8, [0, 1])
    assert (of_3["loss"], of_8["loss"]) == ([[1.0, 2.0], [None, 5.0]], [[3.0, 4.0], [6.0, None]])
    assert (of_3["pairwise_distance"][0], of_8["pairwise_distance"][0]) == (2.0, 5.0)
    expected = psnr(images, truth()).tolist()
    assert of_3["psnr"] == [expected[:2], [None, expected[1]]] and of_8["psnr"][1] == [expected[2], None]
    assert [(step.number, step.best) for step in seen] == [
        (i, f"best PSNR {expected[2]:.2f} dB") for i in range(2)
    ]  # of the batch
    assert seen[1].images[3].loss == [5.0] and seen[1].images[8].psnr == [expected[2]] and seen[0].images[3].distance == 2.0


def test_the_distance_of_several_rounds_is_the_mean_over_all_their_pairs():
    trace = Trace(None)
    for index, z in ((range(2), (0.0, 2.0)), (range(2, 5), (0.0, 6.0, 12.0))):  # 1 pair at 2; 3 pairs, 8 on average
        rest = {"y": torch.zeros(len(z), 1), "image": torch.full((len(z),), 3), "index": torch.tensor(index)}
        particles = Particles(torch.tensor(z).view(-1, 1, 1, 1), **rest)
        trace(StepInfo(0, particles, torch.zeros(len(z), 3, 4, 4), torch.zeros(len(z))))
    assert trace.of_image(3, range(5))["pairwise_distance"] == [pytest.approx((2 + 3 * 8) / 4)]


def test_a_round_counts_by_its_pairs_of_finite_particles():
    trace = Trace(None)
    for index, z in ((range(2), (0.0, 2.0)), (range(2, 5), (0.0, 6.0, math.nan))):  # one pair each
        rest = {"y": torch.zeros(len(z), 1), "image": torch.full((len(z),), 3), "index": torch.tensor(index)}
        trace(
            StepInfo(0, Particles(torch.tensor(z).view(-1, 1, 1, 1), **rest), torch.zeros(len(z), 3, 4, 4), torch.zeros(len(z)))
        )
    assert trace.of_image(3, range(5))["pairwise_distance"] == [pytest.approx((2 + 6) / 2)]


@pytest.mark.parametrize("known, text", [(True, "best PSNR 20.00 dB"), (False, "lowest loss 2.5")])
def test_the_bar_tells_the_best_of_what_is_known_and_skips_diverged_particles(known, text):
    with progress_bar(1, 2) as bar:
        bar.begin([3], 0, 3)
        trace = Trace({3: truth()} if known else None, bar.advance)
        start = Particles.start(torch.zeros(1, 1), [3], 3, 0, (1, 1, 1), torch.float32)
        images = torch.stack([truth() * math.nan, truth() + 0.4, truth() + 0.2])
        trace(StepInfo(0, start, images, torch.tensor([math.nan, 3.0, 2.5])))
        images, task = bar.bar.tasks
        assert (
            (images.completed, images.total, task.total) == (0, 1, 2)
            and task.completed == 1
            and bar.bar.columns[-1].render(task).plain == text
        )
