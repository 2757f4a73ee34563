"""docs/reference is what the comments of the configs and of the schema of metrics.json say."""

import re
import sys

import pytest
from omegaconf import OmegaConf

from tools import reference
from utils.paths import PROJECT


def rows(text):
    """[(name, its other cells)] of all tables of a page."""
    cells = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in text.splitlines() if line.startswith("| `")]
    return [(first.strip("`"), rest) for first, *rest in cells]


def keys(config, above=""):
    """The keys of a config with dots, those of sections too where they hold nothing."""
    for name, value in config.items():
        if isinstance(value, dict) and value and not (above == "polish." and name == "chain"):
            yield from keys(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def test_both_pages_are_up_to_date():
    for name, text in (("switches", reference.switches()), ("metrics", reference.metrics())):
        assert (PROJECT / f"docs/reference/{name}.md").read_text() == text, "run tools/reference.py"


def test_every_switch_stands_there_once():
    config = OmegaConf.to_container(OmegaConf.load(PROJECT / "configs/default.yaml"), resolve=False)
    wanted = set(keys({key: value for key, value in config.items() if key not in ("defaults", "hydra")}))
    page = reference.switches().split("\n## `data=`")[0]
    names = [name for name, (default, _) in rows(page) if default]
    assert set(names) == wanted and len(names) == len(wanted)


@pytest.mark.parametrize("page", [reference.switches, reference.metrics])
def test_every_key_and_field_has_a_meaning(page):
    table = rows(page())
    assert len(table) > 100
    assert [name for name, cells in table if not name or not cells[-1].strip(" |")] == []


def test_every_field_of_a_finished_run_stands_there():
    names = {name for name, _ in rows(reference.metrics())}
    assert {"schema", "NAME.sample", "loss.terms.NAME.noise_floor", "population.rounds.passing", "tree.parent.NAME"} <= names
    assert {"pyramid.levels.loss", "recombination.events.particles.donors", "time.phases.NAME.chain_s", "vram.NAME"} <= names


def test_lengths_are_said_in_words():
    cells = dict(rows(reference.metrics()))
    assert cells["loss.sample"][0] == "number or null, per image and particle"
    assert cells["pruning.loss"][0] == "number or null, per image and particle of the start"
    assert cells["diversity.pairwise_distance"][0] == "number or null, per image and annealing step"
    assert cells["selection.picked"][0] == "integer or null, per image"
    assert cells["loss.r_factor"][0] == "number or null, per image and particle; or null"
    assert cells["modes.label"][0].startswith("`0` / `180` / `mixed` / `failed` or null, per image")


def test_words_of_metrics_are_explained_where_they_first_stand():
    lines = reference.metrics().splitlines()
    first = {words: next(line for line in lines if words in line) for words in ("better orientation", "and place", "R-factor")}
    assert "turned by 180 degrees, whichever is nearer to the truth" in first["better orientation"]
    assert "the best shift" in first["and place"] and r"sum \|A(x) - y\| / sum \|y\|" in first["R-factor"]
    assert not any(line.startswith("| `") and line.endswith(("None |", ": |")) for line in lines)


def test_a_comment_goes_on_in_the_next_line_and_a_heading_begins_a_table():
    text = """# the file

# first
a: 1       # one
           # and more
s:         # a section
  b: [2]   # two

# second
c: x  # three
"""
    assert list(reference.sections(text)) == [
        ("first", [("a", "1", "one and more"), ("s", "", "a section"), ("s.b", "[2]", "two")]),
        ("second", [("c", "x", "three")]),
    ]


def test_a_page_that_is_out_of_date_is_named_and_written_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reference, "FOLDER", tmp_path)
    (tmp_path / "metrics.md").write_text(reference.metrics())
    (tmp_path / "switches.md").write_text(reference.switches().replace("`42`", "`43`"))

    def tool(*arguments):
        monkeypatch.setattr(sys, "argv", ["reference.py", *arguments])
        with pytest.raises(SystemExit) as end:
            reference.main()
        return int(end.value.code), capsys.readouterr()

    status, printed = tool("--check")
    assert status == 1 and printed.err == f"{tmp_path / 'switches.md'}: out of date; run tools/reference.py\n"
    assert "`43`" in (tmp_path / "switches.md").read_text()
    assert tool()[0] == 0 and tool("--check")[0] == 0
