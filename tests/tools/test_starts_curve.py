"""The curve of starts: what a part of a run's particles would have given."""

import pytest

from tools.evidence.starts_curve import HALVES, curves, row
from utils.errors import InputError
from utils.paths import PROJECT

EVIDENCE = PROJECT / "evidence"
DOCUMENT = (PROJECT / "docs" / "research" / "measured" / "coarse.md").read_text()


def test_the_document_holds_what_the_kept_runs_give():
    points = curves(EVIDENCE / "photographs_starts", "bank16", "noise16", HALVES)
    assert len(points) == 16 and all(row(p) in DOCUMENT for p in points if p.name in ("bank", "noise", "mixed"))


@pytest.mark.parametrize("kind", ["faces", "scenes"])
def test_the_document_holds_what_the_shipped_sets_give(kind):
    points = curves(EVIDENCE / f"starts_{kind}", "bank4", "noise4", [(1, 1), (2, 1), (2, 2)])
    assert len(points) == 9 and all(f"| {kind} {row(p)}" in DOCUMENT for p in points)


def test_more_particles_than_a_run_has_are_refused():
    with pytest.raises(InputError, match=r"--mixed 5\+1: .*starts_faces holds fewer particles"):
        curves(EVIDENCE / "starts_faces", "bank4", "noise4", [(5, 1)])
