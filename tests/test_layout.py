"""The tests themselves: in folders of the rooms, each file with its purpose, sharing worlds and not one another."""

import ast

import pytest

from utils.paths import PROJECT

TESTS = PROJECT / "tests"
FILES = {str(path.relative_to(TESTS)): path for path in sorted(TESTS.rglob("test_*.py"))}
SHARED = ("tests.worlds",)


def imported(source):
    """Names of all modules that a file imports anywhere, "a.b" for `from a import b` as well; relative ones with dots."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def from_another_test(source):
    """The imports of a test file that are neither a world nor outside the tests."""
    return [
        name
        for name in imported(source)
        if name.startswith(".")
        or name.split(".")[0] == "tests"
        and not name.startswith(SHARED)
        or any(part == "conftest" or part.startswith("test_") for part in name.split("."))
    ]


@pytest.mark.parametrize("name", FILES)
def test_no_test_imports_from_another_test(name):
    assert from_another_test(FILES[name].read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "from tests.running.test_run import without_times",
        "from tests.running import test_run",
        "import tests.running.test_run",
        "from tests import conftest",
        "from conftest import run",
        "from .test_run import without_times",
        "def late():\n    from tests.helpers import run",
    ],
)
def test_an_import_from_another_test_is_seen(line):
    assert from_another_test(f"from tests.worlds import runs\nimport pytest\n{line}") != []


def test_worlds_import_from_no_test():
    worlds = [TESTS / "conftest.py", *(TESTS / "worlds").glob("*.py")]
    assert {path.name: from_another_test(path.read_text()) for path in worlds} == {path.name: [] for path in worlds}


@pytest.mark.parametrize("name", FILES)
def test_a_docstring_of_one_or_two_lines_says_what_a_file_is_about(name):
    text = ast.get_docstring(ast.parse(FILES[name].read_text()))
    assert text and text.count("\n") <= 1


def test_no_two_files_have_the_same_name():
    """Reports and `-k` would mix them up."""
    names = [path.name for path in FILES.values()]
    assert sorted(set(names)) == sorted(names)
