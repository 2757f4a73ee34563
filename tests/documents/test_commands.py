"""Every command that a document shows: its program, its flags and its overrides exist, at the commit that stands behind it."""

import re
import subprocess
from functools import cache

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from tests.worlds.documents import DOCUMENTS, NAMES, at, commands, commits
from utils.paths import PROJECT

HYDRA = {"-m", "--multirun", "--cfg", "--config-dir", "--help"}
CONFIGS = {
    **dict.fromkeys(("posterior_sample.py", "tools/benchmark.py", "tools/check_gradients.py"), "default"),
    "tools/train_prior.py": "train_prior",
}
OF_ALL = [
    pytest.param(path, commit, id=name if commit is None else f"{name} at {commit}")
    for path, name in zip(DOCUMENTS, NAMES)
    for commit in (None, *commits(path.read_text()))
]


def of(path, program, commit=None):
    return [words for words in commands(at(path.read_text(), commit)) if words[0] == program]


@cache
def flags_of(tool, project):
    """The flags that a tool adds to its parser, itself or in what it imports; those of Hydra where it composes a config."""
    source = (project / tool).read_text()
    for module in re.findall(r"^from ((?:tools|utils)\.[\w.]+) import", source, re.MULTILINE):
        file = project / (module.replace(".", "/") + ".py")
        source += file.read_text() if file.is_file() else ""
    return set(re.findall(r'"(--[a-z-]+)"', source)) | (HYDRA if tool in CONFIGS else {"--help"})


@cache
def usage_of(script, project):
    return subprocess.run(["bash", project / script], capture_output=True, text=True, check=True).stdout


def flags(words):
    """The flags among a command's words; brackets around optional ones and values after = fall off."""
    return {word.strip("[]").split("=")[0] for word in words if word.strip("[]").startswith("-")}


def combinations(words):
    """Lists of plain overrides: one per value of a sweep, with the first values of the other sweeps."""
    overrides = OverridesParser.create().parse_overrides(words)
    values = [list(o.sweep_string_iterator()) if o.is_sweep_override() else [None] for o in overrides]
    firsts = [o.input_line if value[0] is None else f"{o.get_key_element()}={value[0]}" for o, value in zip(overrides, values)]
    yield firsts
    for i, o in enumerate(overrides):
        for value in values[i][1:]:
            yield [*firsts[:i], f"{o.get_key_element()}={value}", *firsts[i + 1 :]]


@pytest.mark.parametrize("path, commit", OF_ALL)
def test_every_python_program_and_flag_exists(path, commit, tree):
    for words in of(path, "python", commit):
        if words[1] in ("-c", "-m"):
            continue
        assert (tree(commit) / words[1]).is_file(), words
        assert flags(words[2:]) <= flags_of(words[1], tree(commit)), words


@pytest.mark.heavy
@pytest.mark.filterwarnings(r"ignore:\s*'hydra/launcher:UserWarning")
@pytest.mark.parametrize("path, commit", OF_ALL)
def test_every_override_composes(path, commit, tree):
    for words in of(path, "python", commit) + of(path, "torchrun", commit):
        program = next((word for word in words if word in CONFIGS), None)
        if program is None or "--config-dir" in words:  # with files of the reader's own: tests/documents/test_extending.py
            continue
        rest = [word for word in words[words.index(program) + 1 :] if "=" in word and not word.startswith("-")]
        with initialize_config_dir(str(tree(commit) / "configs"), version_base="1.3"):
            for overrides in combinations(rest):
                compose(CONFIGS[program], overrides=overrides)


@pytest.mark.heavy
def test_the_examples_of_quoting_mean_what_they_say(composed):
    (words,) = [words for words in of(PROJECT / "docs/tutorial.md", "python") if any("=3/" in word for word in words)]
    assert composed(*words[2:]).data.root == "/data/run=3/{a} b"
    (words,) = [words for words in of(PROJECT / "docs/tutorial.md", "python") if "-m" in words]
    names = [composed(*overrides).name for overrides in combinations(words[3:])]
    assert names == ["push_0", "push_0.1"]


@pytest.mark.parametrize("path, commit", OF_ALL)
def test_every_script_and_flag_exists(path, commit, tree):
    for words in of(path, "bash", commit):
        assert (tree(commit) / words[1]).is_file(), words
        if words[1].startswith("commands_"):
            assert all(flag in usage_of(words[1], tree(commit)) for flag in words[2:] if flag != "..."), words


@pytest.mark.parametrize("path, commit", OF_ALL)
def test_every_part_of_a_sweep_exists(path, commit, tree):
    for words in of(path, "bash", commit):
        if re.match(r"tools/evidence/(tuning/|experiments\.sh)", words[1]):
            source = (tree(commit) / words[1]).read_text()
            parts = [part for word in words[2:] for part in word.split("|") if re.fullmatch("[a-z_]+", part)]
            for part in set(parts) - {"faces", "scenes"}:
                assert re.search(rf"^  {part}\)", source, re.MULTILINE), words


@pytest.mark.parametrize("path, commit", OF_ALL)
def test_every_make_target_exists(path, commit, tree):
    for words in of(path, "make", commit):
        assert re.search(rf"^{words[1]}:", (tree(commit) / "Makefile").read_text(), re.MULTILINE), words


def test_commands_of_every_program_are_found():
    assert {words[0] for path in DOCUMENTS for words in commands(path.read_text())} == {"python", "bash", "torchrun", "make"}


def test_what_a_commit_stands_behind_is_of_that_tag_alone():
    text = """A word `here` and `python there.py` (commit v1), or

    python here.py        # a comment
    bash there.sh \\
      one                 # another comment (commit v1)
    bash far.sh           # (commit v2)
"""
    assert commands(at(text)) == [["python", "here.py"]] and "`here`" in at(text)
    assert commands(at(text, "v1")) == [["bash", "there.sh", "one"], ["python", "there.py"]]
    assert commands(at(text, "v2")) == [["bash", "far.sh"]] and commits(text) == ["v1", "v2"]
