"""How many particles an image may have in a run, and which numbers: what mechanisms say, counted through the steps."""

import pytest

from utils.errors import InputError
from utils.sampling.mechanism import Mechanism, census


class Adding(Mechanism):
    """`count` for each at step `at`, beside them."""

    name, needs_all = "adding", True

    def __init__(self, at, count):
        self.at, self.count = at, count

    def acts(self, step):
        return step == self.at

    def newborn(self, step, present):
        return self.count * present


class Halving(Adding):
    """Half of them go at step `at`."""

    def newborn(self, step, present):
        return 0

    def present_after(self, step, present):
        return present // 2


def test_without_mechanisms_it_is_those_at_the_start():
    assert census([], 3, 4, 4, 5) == (range(3, 7), 4)
    assert census([], 0, 8, 2, 5) == (range(8), 2)  # of rounds of two


def test_numbers_follow_those_at_the_start_and_then_the_mechanisms_before():
    parts = [Adding(3, 1), Halving(1, 0), Adding(1, 2)]
    # 4 at the start; at step 1 half of them go and each of the two that are left gets two; at step 3 each of the six gets one
    assert census(parts, 10, 4, 4, 5) == (range(10, 10 + 4 + 6 + 4), 12)
    assert [part.first_newborn for part in parts] == [14, 20, 20]


def test_what_never_acts_adds_nobody():
    assert census([Adding(7, 3)], 0, 4, 4, 5) == (range(4), 4)


def test_those_that_go_later_count_in_the_most():
    assert census([Halving(1, 0)], 0, 4, 4, 5) == (range(4), 4)


def test_one_that_adds_particles_needs_all():
    part = Adding(1, 1)
    part.needs_all = False
    with pytest.raises(InputError, match="^adding: Adding adds particles, .*needs_all = True$"):
        census([part], 0, 4, 4, 5)
