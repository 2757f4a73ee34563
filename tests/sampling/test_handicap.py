"""What a fitted exposure owes where the particles of an image are compared: in the pruning, the exchange and the pick."""

from types import SimpleNamespace

import torch

from utils.sampling.handicap import owed

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
