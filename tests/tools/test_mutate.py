"""The list of wrong formulas fits the tree, and the tool tells which of them the tests notice."""

import re

import pytest
from rich.console import Console

from tools.evidence import mutate
from utils.errors import InputError
from utils.paths import PROJECT

MUTATIONS = mutate.load(mutate.LIST)


def test_every_text_of_the_list_occurs_exactly_once():
    assert mutate.stale(PROJECT, MUTATIONS) == []


def test_every_mutation_has_a_name_of_its_own_and_changes_something():
    assert len({m.name for m in MUTATIONS}) == len(MUTATIONS) >= 60
    assert [m.name for m in MUTATIONS if m.old == m.new or not m.breaks] == []


def test_the_tests_of_the_list_exist():
    named = {test for m in MUTATIONS for test in m.tests if test.startswith("tests/")}
    for test in named:
        file, _, function = test.partition("::")
        assert (PROJECT / file).exists(), test
        assert not function or re.search(rf"^def {function}\(", (PROJECT / file).read_text(), re.MULTILINE), test


@pytest.fixture
def project(tmp_path):
    """A tree with one formula and its test."""
    (tmp_path / "utils").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "utils" / "__init__.py").touch()
    (tmp_path / "utils" / "area.py").write_text("def area(a, b):\n    return a * b\n")
    (tmp_path / "tests" / "test_area.py").write_text(
        "from utils.area import area\n\n\ndef test_area():\n    assert area(2, 2) == 4 and area(3, 1) == 3\n"
    )
    return tmp_path


def mutation(new, tests=("tests/test_area.py",), old="a * b"):
    return mutate.Mutation("one", "utils/area.py", old, new, "the area", tests)


@pytest.mark.heavy
@pytest.mark.parametrize(
    "new, verdict, status",
    [("a + b", "1 killed", 0), ("b * a", "1 survived", 1), ("a *", "1 broken", 1)],
)
def test_a_mutation_is_killed_or_survives_or_is_broken(project, new, verdict, status):
    console = Console(record=True, width=120)
    assert mutate.survey(project, [mutation(new)], console) == status
    assert verdict in console.export_text()
    assert "a * b" in (project / "utils" / "area.py").read_text()  # the tree itself is left alone


@pytest.mark.heavy
def test_a_list_that_does_not_fit_is_refused(project):
    with pytest.raises(InputError, match="one: its text does not occur exactly once"):
        mutate.survey(project, [mutation("a", old="a - b")], Console())
    with pytest.raises(InputError, match="does not pass without a mutation"):
        mutate.survey(project, [mutation("a", tests=("tests/test_none.py",))], Console())
    with pytest.raises(InputError, match="--only other: no such mutation"):
        mutate.select([mutation("a")], ["one", "other"])
