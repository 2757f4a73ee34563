"""What stands between the sampler and the networks: passes of bounded size, and the count of what went through."""

import pytest
import torch

from utils.priors.wrappers import CountingPrior, SplitPrior
from utils.sampling.passes import Passes


class Sizes:
    """A prior that notes how many particles each call had."""

    resolution = 8

    def __init__(self):
        self.seen = []

    def decode(self, z):
        self.seen.append(("decode", len(z)))
        return 2 * z

    def denoise(self, z, sigma):
        self.seen.append(("denoise", len(z)))
        return sigma * z

    def encode(self, x):
        self.seen.append(("encode", len(x)))
        return x / 2


@pytest.fixture
def prior():
    return Sizes()


def test_every_network_runs_in_passes_of_bounded_size(prior):
    split, z, sigma = SplitPrior(prior, Passes(2)), torch.arange(4.0)[:, None], torch.tensor(3.0)
    assert torch.equal(split.decode(z), 2 * z) and torch.equal(split.denoise(z, sigma), 3 * z)
    assert torch.equal(split.encode(z), z / 2) and split.resolution == 8
    assert prior.seen == [("decode", 2)] * 2 + [("denoise", 2)] * 2 + [("encode", 2)] * 2


def test_under_a_gradient_each_network_is_one_pass_as_its_caller_made_it(prior):
    """Halving there would spare no memory: the activations of all halves live until the backward pass."""
    split, z, sigma = SplitPrior(prior, Passes(2)), torch.ones(4, 1, requires_grad=True), torch.tensor(1.0)
    for call in (lambda: split.decode(z), lambda: split.denoise(z, sigma), lambda: split.encode(z)):
        call()
        with torch.no_grad():
            call()
    assert prior.seen == [(name, size) for name in ("decode", "denoise", "encode") for size in (4, 2, 2)]


def test_particles_are_counted_by_network_and_by_gradient(prior):
    counted, z = CountingPrior(prior), torch.ones(4, 1, requires_grad=True)
    counted.decode(z)
    with torch.no_grad():
        counted.decode(z[:3])
    counted.denoise(z, torch.tensor(1.0))
    counted.encode(z[:2])
    assert counted.resolution == 8
    assert counted.calls == {
        "decoder_forward_backward": 4,
        "decoder_forward": 3,
        "denoiser_calls": 4,
        "encoder_forward": 2,
    }
