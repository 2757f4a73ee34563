"""Which entry of a portfolio is worth its place: failures, picks and scores by the particles' numbers."""

import pytest

from tests.worlds.synthetic import write_run
from utils.analysis import runs
from utils.analysis.comparison import compare
from utils.analysis.experiments import best_of, gather
from utils.analysis.tables import build, markdown

LABELS = [["0", "failed", "180", "failed"], ["failed", "0", "0", None], ["failed"] * 4]
PORTFOLIO = "portfolio=[{},{lr:2.0,lowpass:0.3,lowpass_until:500}]"


@pytest.fixture
def compared(tmp_path, composed):
    """compared(*overrides) -> the numbers of one run; particle 0 has the lowest loss."""

    def start(*overrides):
        write_run(tmp_path, composed, LABELS, overrides=overrides)
        return compare(gather([runs.load(path) for path in runs.find([tmp_path])]))

    return start


@pytest.mark.parametrize("first", [0, 1], ids=["from 0", "from 1"])
def test_each_entry_has_the_particles_of_its_numbers(compared, first):
    (row,) = compared(PORTFOLIO, f"first_particle={first}")
    even, odd = (row["entries"][str((entry + first) % 2)] for entry in (0, 1))  # of positions 0 and 2, and of 1 and 3
    assert (even["failed"]["count"], even["failed"]["n"]) == (3, 6) and (odd["failed"]["count"], odd["failed"]["n"]) == (4, 5)
    assert (even["alone"]["count"], odd["alone"]["count"], odd["alone"]["n"]) == (1, 0, 3)
    assert (even["picked"]["count"], odd["picked"]["count"]) == (3, 0)
    assert even["psnr"]["mean"] == pytest.approx((24.5 + 18.6 + 12.2) / 3)
    assert odd["psnr"]["mean"] == pytest.approx((12 + 25.1 + 12.2) / 3)
    assert even["setting" if not first else "entry"] == ("as the run" if not first else 1)


def test_the_table_names_the_settings(compared):
    rows = compared(PORTFOLIO)
    lines = markdown(build("portfolio", rows)).splitlines()
    assert lines[4].startswith("| exp0 | 0 | as the run | 50 % (3/6)")
    assert lines[5].startswith("| exp0 | 1 | lr 2, lowpass 0.3, lowpass_until 500 | 80 % (4/5)")


def test_particles_that_are_alike_have_no_table(compared):
    rows = compared()
    assert rows[0]["entries"] is None and build("portfolio", rows) is None


def test_a_subset_of_them_is_not_what_fewer_particles_would_have_given(tmp_path, composed):
    """Which numbers a subset has decides its settings."""
    write_run(tmp_path, composed, LABELS, overrides=(PORTFOLIO,))
    write_run(tmp_path, composed, LABELS, name="alike")
    with_portfolio, alike = gather([runs.load(path) for path in sorted(runs.find([tmp_path]), reverse=True)])
    assert not with_portfolio.can_split and alike.can_split
    assert best_of(alike, 2).derived
