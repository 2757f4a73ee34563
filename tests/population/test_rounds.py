"""The rounds of a sequential population: whose particles run together, and who shares the seconds of a round."""

from contextlib import nullcontext

import torch

from utils.population.rounds import Verdict, sample_in_rounds
from utils.records.aggregate import population_block
from utils.sampling.outcome import SampleResult
from utils.sampling.particles import Particles


class Sampler:
    """A round takes 6 seconds, however many particles it has."""

    def sample(self, particles, profiler, on_step):
        with profiler.run({}, ("sampling",)), profiler.step("sampling", len(particles), lambda: None):
            pass
        profiler.step_s, profiler.phases["sampling"].time_s = [6.0], 6.0
        profiler.after = lambda count: nullcontext()
        return SampleResult(particles, particles.z, particles.z.flatten(), [6.0], {})


class FirstImagePasses:
    def signals(self, result):
        return {"image": result.particles.image.tolist()}

    def verdict(self, image, signals):
        return Verdict(signals, [number == 3 for number in signals["image"]])


def test_a_round_is_shared_by_the_images_that_it_runs():
    particles = Particles.start(torch.zeros(2, 1), [3, 4], 2, 0, (1, 1, 1), torch.float32).at(torch.zeros(4, 1, 1, 1))
    rounds = sample_in_rounds(Sampler(), particles, (1, 1), FirstImagePasses(), lambda info: None)
    assert rounds.result.particles.image.tolist() == [3, 4, 4]
    assert {image: p.step_s for image, p in rounds.profilers.items()} == {3: [6 / 2], 4: [6 / 2 + 6]}
    assert {image: p.phases["sampling"].time_s for image, p in rounds.profilers.items()} == {3: 3.0, 4: 9.0}


def record(accepted, labels, picked=0):
    """Of one image whose particles have these labels."""
    rounds = [{"particles": list(range(len(labels))), "passing": []}]
    return {
        "population": {"accepted": accepted, "rule": {}, "rounds": rounds, "signals": {}},
        "particles": list(range(len(labels))),
        "modes": {"label": labels},
        "selection": {"picked": picked},
    }


def test_an_image_is_missed_where_a_success_was_started_and_none_is_accepted():
    found = population_block(
        [
            record(False, ["failed", "180"]),
            record(False, ["failed", "mixed"]),
            record(True, ["failed", "0"], picked=1),
            record(True, ["failed", "0"], picked=0),
        ]
    )["population"]
    assert found["missed"] == [True, False, False, False] and found["false_rejects"] == 0.25
    assert found["wrong"] == [False, False, False, True] and found["false_accepts"] == 0.25
