"""tools/check_setup.py: every config of data and priors has a row, and every row says what to do."""

import sys

import pytest

from tools import check_setup
from utils.command_line import run
from utils.paths import PROJECT


@pytest.mark.parametrize("part", ["data", "model"])
def test_each_config_has_a_row(part):
    rows = {setting: (state, how) for setting, _, state, how in check_setup.PARTS[part]()}
    assert set(rows) == {f"{part}={path.stem}" for path in (PROJECT / "configs" / part).glob("*.yaml")}
    for setting, (state, how) in rows.items():
        assert state is None or state.startswith("missing") or state == "present" or state.endswith(" files"), setting
        assert how or state not in (None, "missing"), setting


def test_what_the_repository_ships_is_there_and_what_the_user_brings_is_the_user_s():
    data = {setting: state for setting, _, state, _ in check_setup.data_rows()}
    models = {setting: state for setting, _, state, _ in check_setup.model_rows()}
    assert data["data=demo-faces"] == data["data=demo-scenes"] == "100 files" and data["data=folder"] is None
    assert {models[f"model={name}"] for name in ("demo-faces", "demo-scenes", "natural-32")} == {"present"}
    assert models["model=own"] is None


def test_the_table_has_every_part_and_an_unknown_one_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check_setup.py"])
    check_setup.main()
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("data=folder", "model=own", "LPIPS scores", "train_prior.py"))
    monkeypatch.setattr(sys, "argv", ["check_setup.py", "modle"])
    with pytest.raises(SystemExit) as ended:
        run(check_setup.main)
    assert ended.value.code == 2 and capsys.readouterr().err == "error: modle: choose from data, model, optional\n"
