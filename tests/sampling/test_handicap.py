"""What a fitted exposure owes where the particles of an image are compared: in the pruning, the exchange and the pick."""

from types import SimpleNamespace

import torch

from utils.algorithms.contract import Algorithm
from utils.evaluation.evaluator import Evaluator
from utils.mechanisms.pyramid.act import Pyramid
from utils.mechanisms.pyramid.plan import OFF
from utils.sampling.handicap import owed
from utils.sampling.outcome import SampleResult
from utils.sampling.particles import Particles

SAME = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])


def operator(*values):
    return SimpleNamespace(handicap=lambda image, y: torch.tensor(values) if values else None)


def test_it_is_counted_from_the_least_of_the_image():
    assert owed(operator(3.0, 5.0, 9.0), None, None, SAME).tolist() == [0.0, 2.0, 0.0]


def test_a_particle_that_diverged_spoils_no_other():
    found = owed(operator(3.0, float("nan"), 9.0), None, None, SAME)
    assert torch.isnan(found).tolist() == [False, True, False] and found[0] == 0


def test_without_a_handicap_losses_compare_as_they_are():
    assert owed(operator(), None, None, SAME) is None


# Two particles of one image, of which the second fits better by less than it owes: 8 + 5 against 10.
LOSS = torch.tensor([10.0, 8.0])
EXPOSED = SimpleNamespace(
    loss=lambda image, y: LOSS,
    handicap=lambda image, y: torch.tensor([3.0, 8.0]),
    noise_floor=lambda y: torch.ones(2),
    turns=False,
    rotation_ambiguity=False,
)
PARTICLES = Particles(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), torch.tensor([7, 7]), torch.tensor([0, 1]))


def test_the_loss_by_which_particles_are_compared_rises_by_it():
    algorithm = SimpleNamespace(prior=SimpleNamespace(decode=lambda z: z), operator=EXPOSED)
    assert Algorithm.exact_loss(algorithm, PARTICLES).tolist() == [10.0, 13.0]


def test_it_counts_against_a_particle_in_the_pick():
    evaluator = Evaluator(EXPOSED, None, range(2), None)
    assert evaluator._pick(LOSS.tolist(), PARTICLES.z, PARTICLES.y, list) == 0


def test_it_counts_against_a_particle_that_would_go_on_to_the_next_level():
    below = SimpleNamespace(operator=EXPOSED, mechanisms=())
    level = SimpleNamespace(below=below, settings=OFF.model_copy(update={"keep": 1, "consensus": False}), size=4)
    rows, _, _ = Pyramid.chosen(level, SampleResult(PARTICLES, PARTICLES.z, LOSS, [], {}))
    assert rows.tolist() == [0]
