"""The rounds of a sequential population: whose particles run together, and who shares the seconds of a round."""

from contextlib import nullcontext

import torch

from utils.population.rounds import Verdict, sample_in_rounds
from utils.records.aggregate import phases_block, population_block
from utils.sampling.outcome import SampleResult
from utils.sampling.particles import Particles
from utils.sampling.profiler import Phase, Profiler, Share


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


def test_calls_are_those_of_the_mean_particle_of_all_rounds():
    """Two rounds: of four images with a particle each, then of one of them with two."""
    shares = []
    for images, particles, calls in ((4, 4, 10.0), (1, 2, 40.0)):
        profiler = Profiler(torch.device("cpu"))
        profiler.phases = {"sampling": Phase(denoiser_calls=calls, particles=particles)}
        shares.append(Share(profiler, images))
    phase = Profiler.of_rounds(shares).phases["sampling"]
    assert phase.denoiser_calls == (1 * 10.0 + 2 * 40.0) / 3 and phase.particles == 1 + 2


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


def test_calls_of_images_count_by_their_particles():
    """One image had a particle of 6 calls, the other three of 10 on average."""
    records = []
    for count, calls in ((1, 6.0), (3, 10.0)):
        phase = {"time_s": 1.0, "steps": 3, "decoder_forward": 0.0, "decoder_forward_backward": calls, "denoiser_calls": 0.0}
        records.append({**record(False, ["failed"] * count), "time": {"phases": {"sampling": {**phase, "particles": count}}}})
    found = phases_block(records)["sampling"]
    assert found["decoder_forward_backward"] == (6 + 3 * 10) / 4 and found["passes"] == (6 + 3 * 10) / 2
