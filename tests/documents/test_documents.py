"""The documents, the configuration and the files of the project name the same things."""

import re

import pytest

from tests.worlds.documents import DOCUMENTS, NAMES, anchors, at, code, commits, links
from utils.config.renamed import ROWS
from utils.paths import PROJECT


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_file_that_a_document_names_exists(path, tree):
    text, folders = path.read_text(), "commands_gpu|commands_tpu|configs|tools|tests|utils|operators|docs|evidence"
    for commit in (None, *commits(text)):  # evidence is not in the tree of a commit: what was measured stays
        wanted = set(re.findall(rf"(?<![\w/])((?:{folders})/[\w/.-]+\.\w+)", at(text, commit)))
        assert not sorted(name for name in wanted if not (tree(commit) / name).exists())


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_link_leads_somewhere(path):
    for target, anchor in links(path.read_text()):
        there = path.parent / target if target else path
        assert there.exists(), target
        assert not anchor or anchor in anchors(there.read_text()), f"{target}#{anchor}"


@pytest.mark.parametrize("name", ["symmetry", "genetic", "planning"])
def test_the_readings_show_each_figure_and_it_is_small(name):
    page = (PROJECT / "docs/research/readings.md").read_text()
    assert f"](../pictures/reading_{name}.jpg)" in page and len(page.splitlines()) <= 60
    assert (PROJECT / f"docs/pictures/reading_{name}.jpg").stat().st_size < 150_000


def test_every_document_is_reached_from_the_first_two():
    reached, ahead = set(), [PROJECT / "README.md", PROJECT / "PROJECT.md"]
    while ahead:
        path = ahead.pop()
        if path not in reached:
            reached.add(path)
            found = [(path.parent / target).resolve() for target, _ in links(path.read_text()) if target.endswith(".md")]
            ahead += [path for path in found if path in DOCUMENTS]
    assert reached == set(DOCUMENTS)


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_choice_of_a_group_is_shipped(path, tree):
    document = path.read_text()
    own = re.findall(r"^# my_parts/configs/(\w+)/(\w+)\.yaml$", document, re.MULTILINE)
    for commit in (None, *commits(document)):
        for text in [text for part in code(at(document, commit)) for text in part]:
            for group, choice in re.findall(r"(?<![\w./])(data|model|task|sampler|experiment)=([a-z][\w.-]+)", text):
                shipped = [tree(commit) / folder / group / f"{choice}.yaml" for folder in ("configs", "docs/examples/plugins")]
                assert (group, choice) in own or any(file.exists() for file in shipped), text


def retired():
    """A pattern of every key, or key=value, that renamed.py answers with the reason why it is gone."""
    for row in ROWS:
        if re.search("is retired|are retired|was removed|is a plug-in", row.why):
            also_else = re.fullmatch(r"[a-z]+|selection\.rule", row.old)  # a word, or what metrics.json says of the pick
            end = "[=:]" if also_else else r"(?![\w.])"
            yield rf"(?<![\w.]){re.escape(row.old).replace(re.escape('*'), '[^ ]*')}{end}"


def test_no_document_but_the_log_names_what_is_retired():
    assert any(re.search(pattern, "portfolio=null") for pattern in retired())
    for path in DOCUMENTS:
        if path.name != "log.md":
            spans = [span for part in code(at(path.read_text())) for span in part]
            assert not [(path.name, span, key) for span in spans for key in retired() if re.search(key, span)]


def test_the_workflow_makes_what_the_makefile_has():
    wanted = re.findall(r"\bmake ([a-z-]+)", (PROJECT / ".github/workflows/ci.yml").read_text())
    targets = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert {"check", "test"} <= set(wanted) <= set(targets)
