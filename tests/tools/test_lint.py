"""tools/lint.py sees each fault of a layout that it is there for."""

import re
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


LONG = "It" + " is" * 24  # 25 words


def faults(text):
    return list(lint.of_prose(text))


def test_a_sentence_of_25_words_and_two_numbers_is_fine():
    assert faults(f"# Heading\n\n{LONG}. It has 2 of 3.\n\n- {LONG}.\n- It has 2 of 3.\n\n2. it has 2 of 3\n") == []


@pytest.mark.parametrize(
    "text, line",
    [
        (f"Short.\n\n{LONG} six.\n", 3),
        (f"Short. It goes on\nhere. {LONG.replace(' ', chr(10), 1)} six.\n", 2),
        (f"- short\n- {LONG} six\n", 2),
        (f"1. short\n2. {LONG} six\n", 2),
        (f"# Heading\n{LONG} six.\n", 2),
        (f"{LONG} `some code`.\n", 1),
        (f"{LONG} [link](a.md).\n", 1),
        (f"{LONG}; and on.\n", 1),
    ],
)
def test_a_sentence_of_more_than_25_words_is_seen(text, line):
    ((number, fault),) = faults(text)
    assert number == line and re.search(r"a sentence of 2\d words, 25 at most", fault)


@pytest.mark.parametrize("text", ["It has 1, 2 and 3.", "2 of 3 at 0.95.", "- 10 000 of 5 %.", "On 256-pixel pictures 2 of 3."])
def test_a_sentence_of_three_numbers_is_seen(text):
    ((number, fault),) = faults(f"Fine.\n\n{text}\n")
    assert number == 3 and "a sentence of 3 numbers, 2 at most" in fault


def test_a_line_of_more_than_128_characters_is_seen():
    assert faults(f"{'x' * 128}\n") == []
    assert faults(f"Fine.\n{'x' * 129}\n") == [(2, "the line has 129 characters; 128 at most")]


@pytest.mark.parametrize(
    "text",
    [
        f"```\n{LONG} {LONG} 1 2 3\n```\n",
        f"So:\n\n    {LONG} {LONG} 1 2 3\n",
        f"| a |\n|---|\n| {LONG} {LONG} 1 2 3 |\n",
        f"> {LONG} {LONG} 1 2 3\n",
        f"<!-- table: x -->\n\n{LONG} {LONG} 1 2 3\n<!-- end -->\n",
        f"<!-- verbatim -->\n\n{LONG} {LONG} 1 2 3\n<!-- /verbatim -->\n",
        f"It is `f(1, 2, 3, {LONG})`,\nor [here](a_1_2_3.md), of exp7 at A100.\n",
    ],
)
def test_code_tables_quotes_and_targets_of_links_are_no_prose(text):
    assert faults(text) == []


def test_what_follows_a_block_that_is_no_prose_keeps_its_line():
    text = f"```\n{LONG}\n```\n\n<!-- verbatim -->\nx\n<!-- /verbatim -->\n\n{LONG} six.\n"
    assert [line for line, _ in faults(text)] == [9]


def test_the_protocols_may_be_dense_and_other_pages_may_not(tmp_path):
    for name in (
        "docs/research/log.md",
        "docs/research/protocols/a.md",
        "docs/research/measured/a.md",
        "docs/research/findings.md",
        "docs/guide/b.md",
        "docs/reference/c.md",
        "docs/d.md",
        "README.md",
        "CONTRIBUTING.md",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"Fine.\n{LONG} six.\n")
    named = [fault.removeprefix(f"{tmp_path}/").split(": ")[0] for fault in lint.of_documents(tmp_path)]
    pages = ("CONTRIBUTING", "README", "docs/d", "docs/guide/b", "docs/reference/c", "docs/research/findings")
    assert sorted(named) == [f"{page}.md:2" for page in (*pages, "docs/research/log", "docs/research/measured/a")]


def test_a_long_sentence_fails_and_is_named_with_file_and_line(tests, monkeypatch, capsys):
    monkeypatch.setattr(lint, "PROJECT", tests.parent)
    (tests.parent / "docs").mkdir()
    (tests.parent / "docs/a.md").write_text(f"# A\n\nFine.\n{LONG} six.\n")
    with pytest.raises(SystemExit) as end:
        lint.main()
    assert end.value.code and capsys.readouterr().err.startswith(
        f"{tests.parent}/docs/a.md:4: a sentence of 26 words, 25 at most"
    )
