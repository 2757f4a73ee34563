"""tools/lint.py sees each fault of a layout that it is there for."""

import shutil

import pytest

from tools import lint


@pytest.fixture
def tests(tmp_path):
    """A folder of tests without a fault."""
    (tmp_path / "tests" / "worlds").mkdir(parents=True)
    (tmp_path / "tests" / "conftest.py").write_text("from tests.worlds import runs\n")
    (tmp_path / "tests" / "test_one.py").write_text('"""One."""\n\nfrom tests.worlds import runs\nimport pytest\n')
    return tmp_path / "tests"


def test_a_good_layout_has_no_fault(tests):
    assert list(lint.of_tests(tests)) == []


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
@pytest.mark.parametrize("name", ["test_one.py", "conftest.py", "worlds/more.py"])
def test_an_import_from_another_test_is_seen(tests, name, line):
    with open(tests / name, "a") as file:
        file.write(f"{line}\n")
    (fault,) = lint.of_tests(tests)
    assert fault.startswith(f"{tests / name}: imports ")


@pytest.mark.parametrize("text", ["", "import pytest\n", '"""One\n\ntwo\n\nthree."""\n'])
def test_a_file_that_does_not_say_what_it_is_about_is_seen(tests, text):
    (tests / "test_one.py").write_text(text)
    (fault,) = lint.of_tests(tests)
    assert "without a docstring of one or two lines" in fault


def test_two_files_of_one_name_are_seen(tests):
    (tests / "more").mkdir()
    shutil.copy(tests / "test_one.py", tests / "more")
    (fault,) = lint.of_tests(tests)
    assert fault.startswith("test_one.py: 2 files have this name")


@pytest.mark.parametrize("lines, faults", [(19, 1), (20, 0), (60, 0), (61, 1)])
def test_an_example_is_short(tmp_path, lines, faults):
    (tmp_path / "one.py").write_text("pass\n" * lines)
    assert len(list(lint.of_examples(tmp_path))) == faults
