"""The confirmation's questions, on runs that are kept in the repository."""

from types import SimpleNamespace

import pytest

from tools.evidence import answers as tool
from tools.evidence.project_tables import Spec, table_of
from utils.analysis.runs import load
from utils.errors import InputError
from utils.paths import PROJECT

KEPT = PROJECT / "evidence" / "experiments"
EXCHANGE, FAST = "exp6_recombination", "exp0_fast"


def place(folder, **renamed):
    """The kept runs under the names that a confirmation gives them; renamed: {name there: name here}."""
    names = {FAST: FAST, EXCHANGE: EXCHANGE, **renamed}
    for kept in ("hard_scenes", "hard_faces"):
        (folder / f"{kept}_101").mkdir(parents=True)
        for there, here in names.items():
            (folder / f"{kept}_101" / there).symlink_to(KEPT / kept / here)
    return tool.Runs(folder)


def succeeded(name, images):
    found = {}
    for kept in ("hard_scenes", "hard_faces"):
        metrics = load(KEPT / kept / name, from_records=True).metrics
        found |= {(kept, i): ok for i, ok in zip(metrics.metadata.image_ids, metrics.modes.success)}
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return {(row.number, row.where): row for row in tool.answers(place(tmp_path_factory.mktemp("forward")))}


@pytest.mark.heavy
def test_what_is_not_there_is_not_asked(found):
    assert {number for number, _ in found} == {3, 4}


@pytest.mark.heavy
def test_images_rescued_and_lost_are_counted_over_both_sets(found):
    one, other = succeeded(EXCHANGE, 100), succeeded(FAST, 100)
    gained, lost = (sum(a[i] and not b[i] for i in one) for a, b in ((one, other), (other, one)))
    assert gained > lost > 0
    row = found[4, "scenes and faces, hard, 200"]
    assert f"{gained} rescued, {lost} lost" in row.found and not row.yes  # p = 0.07


@pytest.mark.heavy
def test_the_direction_of_a_difference_decides(found, tmp_path):
    turned = {(row.number, row.where): row for row in tool.answers(place(tmp_path, **{FAST: EXCHANGE, EXCHANGE: FAST}))}
    key = (3, "scenes, hard, 100")
    assert found[key].yes and not turned[key].yes
    assert found[key].found.startswith("failed -") and turned[key].found.startswith("failed +")


@pytest.mark.parametrize("p, kept", [((0.03, 0.02, 0.004), [True, True, True]), ((0.04, 0.03, 0.004), [True, False, False])])
def test_a_later_p_counts_only_after_the_smaller_ones(p, kept):
    found = tool.holm([tool.Answer(12, "", "", True, each) for each in p])
    assert [row.p for row in found] == sorted(p) and [row.yes for row in found] == kept


@pytest.mark.heavy
def test_the_documents_hold_the_same_answers(found, tmp_path):
    place(tmp_path / "confirmed")
    table = table_of(Spec(name="confirmed_answers", folders=["confirmed"], kind="answers"), tmp_path)
    assert {(row[0], row[1]): row[2:] for row in table.rows} == {
        key: [answer.found, "**yes**" if answer.yes else "not shown"] for key, answer in found.items()
    }
    with pytest.raises(InputError, match="empty: holds no runs named <difficulty>_<set>_<seed>/<run>"):
        table_of(Spec(name="confirmed_answers", folders=["empty"], kind="answers"), tmp_path)


def difference(low, value=0.0):
    return {"difference": value, "low": low, "high": value + 1.0}


def asked(quality, success, wrong=0):
    """{question: yes} of a world in which two questions can be asked: of experiment 0 against DAPS, of 200 certificates."""
    pair = {"psnr_aligned.best": difference(0.5, 1.0), "pick_psnr": quality, "success": success, "images": 100}
    population = SimpleNamespace(wrong=[True] * wrong + [False] * (200 - wrong))
    run = SimpleNamespace(metrics=SimpleNamespace(population=population))
    world = SimpleNamespace(
        pair=lambda name, other, difficulty, *sets: pair if (name, other, sets) == (tool.FAST, tool.DAPS, ("faces",)) else None,
        of=lambda *key: SimpleNamespace(runs=[run]),
    )
    return {row.number: row.yes for row in tool.answers(world)}


@pytest.mark.parametrize(
    "quality, success, yes", [(-0.29, -0.04, True), (-0.31, -0.04, False), (-0.29, -0.06, False)], ids=["both", "dB", "success"]
)
def test_not_worse_is_said_by_the_bound_and_not_by_the_estimate(quality, success, yes):
    assert asked(difference(quality), difference(success))[2] is yes


@pytest.mark.parametrize("wrong, yes", [(3, True), (4, False)])
def test_so_are_false_certificates(wrong, yes):
    """Of 200 images 3 have an upper bound of 4.3 %, and 4, which are 2 %, one of 5.04 %."""
    assert asked(difference(0.0), difference(0.0), wrong)[13] == yes
