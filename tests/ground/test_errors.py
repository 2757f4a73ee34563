"""The reason of an error in one line, whole, and a part of one's own that cannot be built."""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from utils.command_line import say
from utils.config.check import check
from utils.errors import InputError, one_line, short, visible
from utils.running import console
from utils.running.build import make


def test_all_lines_of_an_error_are_kept():
    assert one_line(ValueError("Error loading 'myop.Gray':\n  No module named 'nothing'\n")) == (
        "Error loading 'myop.Gray': No module named 'nothing'"
    )


@pytest.mark.parametrize("text", ["", "  \n "])
def test_an_error_without_a_text_is_its_type(text):
    assert one_line(MemoryError(text)) == "MemoryError"


@pytest.mark.parametrize("size, length", [(400, 400), (401, 400), (10_000, 400), (10_000, 101)])
def test_a_long_text_keeps_its_beginning_and_its_end(size, length):
    line = one_line(ValueError("a" * (size // 2) + "b" * (size - size // 2)), length)
    assert len(line) <= length and line[0] == "a" and line[-1] == "b"
    assert (" ... " in line) == (size > length)


def test_a_long_path_keeps_its_beginning_and_its_file():
    path = f"/data/{'folder/' * 20}mask.txt"
    assert len(short(path)) == 80 and short(path).startswith("/data/folder") and short(path).endswith("/mask.txt")
    assert short(path[:80]) == path[:80] and short("a\nb") == r"a\nb"


BROKEN = {
    "own_import": ("import nothing_at_all", "No module named 'nothing_at_all'"),
    "own_crash": ("class Gray:\n    def __init__(self):\n        1 / 0", "division by zero"),
}


@pytest.mark.parametrize("module", BROKEN)
def test_a_part_of_ones_own_that_cannot_be_built_says_why(module, tmp_path, monkeypatch):
    source, cause = BROKEN[module]
    (tmp_path / f"{module}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=f"_target_={module}.Gray: cannot be built .*{cause}") as caught:
        make("task.ldm.operator", OmegaConf.create({"_target_": f"{module}.Gray"}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["no_such_module.Gray", "own_empty.Gray", "os.path.NoSuchName"])
def test_a_class_that_is_not_found_is_answered_by_both_ways_to_name_its_place(target, tmp_path, monkeypatch):
    (tmp_path / "own_empty.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=f"metrics.mine._target_={target}: cannot be built ") as caught:
        make("metrics.mine", {"_target_": target})
    line = str(caught.value)
    assert "PYTHONPATH" in line and "install its package" in line and "--config-dir" in line and "\n" not in line
    with pytest.raises(InputError, match=r"cannot be built .*unexpected keyword .*; check this block's keys") as caught:
        make("metrics.mine", {"_target_": "json.JSONDecoder", "bad": 1})
    assert "PYTHONPATH" not in str(caught.value)


STEERING = ["\x1b[31m", "\n", "\r", "\x9b", "\u202e", "\u2066", "\u200f", "\u2028", "\x7f"]


@pytest.mark.parametrize("steering", STEERING)
def test_what_steers_a_terminal_is_visible_in_errors_and_log(steering, caplog, monkeypatch):
    name = f"a{steering}b"
    assert visible(name).isprintable() and visible(name) != name and visible(r"Grüße \n 図 📷") == r"Grüße \n 図 📷"
    assert str(InputError(f"{name}: cannot be read")) == f"{visible(name)}: cannot be read"
    console.setup_logging()
    monkeypatch.setattr(console.log, "handlers", [caplog.handler])
    console.log.warning("left out: %s", name)
    assert caplog.messages == [f"left out: {visible(name)}"]


@pytest.mark.parametrize("steering", STEERING)
def test_what_steers_a_terminal_is_visible_in_the_lines_of_tools(steering, capsys):
    say(Path(f"results/a{steering}b"))
    assert capsys.readouterr().out == visible(f"results/a{steering}b") + "\n"


def test_a_very_long_word_is_cut_in_the_log(caplog, monkeypatch):
    console.setup_logging()
    monkeypatch.setattr(console.log, "handlers", [caplog.handler])
    console.log.info("%s: left out, as %s is", "a" * 50_000 + "b", "c" * 1000)
    (line,) = caplog.messages
    assert re.fullmatch(r"a+ \.\.\. a+b: left out, as c{1000} is", line) and len(line) < 2050


@pytest.mark.parametrize("steering", STEERING)
@pytest.mark.parametrize("key", ["name", "save_dir", "data.root"])
def test_a_name_that_steers_a_terminal_is_refused(key, steering, composed):
    cfg = composed()
    OmegaConf.update(cfg, key, f"a{steering}b")
    with pytest.raises(InputError, match=f"^{key}=.*has control or bidirectional characters") as caught:
        check(cfg)
    assert str(caught.value).isprintable()
