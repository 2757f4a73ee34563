"""What a retired part left on disk is still read, aggregated, shown and compared, as a run without it."""

import json
import sys

import pytest
import yaml
from omegaconf import OmegaConf

from tests.worlds.synthetic import write_run
from tools import parse_metrics, status
from tools.evidence import keep_evidence
from utils.analysis import runs
from utils.command_line import run as run_tool
from utils.config.check import check
from utils.errors import InputError
from utils.records.files import read_record, record_paths, write_record

LABELS = [["0", "failed"], ["failed", "180"]]
FREE = {"loss": [2.0, 3.0], "noise_floor": 2.5, "r_factor": [0.1, 0.2]}
RULE = "lowest loss of the measurements kept out of the fit"


@pytest.fixture
def with_free_values(tmp_path, composed):
    """A run folder whose records have the values kept out of the fit, picked by, and metrics.json what it had then."""
    folder = write_run(tmp_path / "results", composed, LABELS, name="free")
    write_run(tmp_path / "results", composed, LABELS, name="plain")
    for path in record_paths(folder):
        record, arrays = read_record(path)
        write_record(folder, {**record, "free": FREE, "selection": {**record["selection"], "picked": 1, "rule": RULE}}, arrays)
    metrics = json.loads((folder / "metrics.json").read_text())
    shown = {"sample": [FREE["loss"]] * 2, "noise_floor": [2.5] * 2, "ratio": [[0.8, 1.2]] * 2}
    metrics |= {"free": shown, "selection": {**metrics["selection"], "picked": [1, 1], "rule": RULE}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    with (folder / "config.yaml").open("a") as config:
        config.write("free_fraction: 0.05\nselection:\n  rule: free_loss\n")
    return folder


@pytest.mark.parametrize("arguments", [(), ("--from-records",), ("--baseline", "plain"), ("--format", "json")])
def test_runs_with_values_kept_out_of_the_fit_are_compared(with_free_values, monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["parse_metrics.py", str(with_free_values.parent), *arguments])
    run_tool(parse_metrics.main)
    shown = capsys.readouterr().out
    assert "plain" in shown and "free" in shown
    assert runs.load(with_free_values).metrics.selection.rule == RULE


@pytest.mark.heavy
def test_their_records_are_kept_and_described(with_free_values, tmp_path):
    keep_evidence.keep(with_free_values, tmp_path / "kept" / "free")
    found = runs.load(tmp_path / "kept" / "free").metrics
    assert found.selection.picked == [1, 1] and found.selection.rule == RULE
    assert list(status.describe(with_free_values))


def with_retired_keys(folder, clock="progress"):
    """config.yaml as it was before these keys were retired."""
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["recombination"]["choice"] = "prior"
    config |= {"free_fraction": 0.0, "selection": {"rule": "loss"}, "step_clock": clock}
    path.write_text(yaml.safe_dump(config))


@pytest.mark.heavy
def test_a_config_with_retired_keys_that_did_nothing_is_read_as_one_without(tmp_path, composed):
    folder = write_run(tmp_path, composed, LABELS)
    today = runs.load(folder).config
    with_retired_keys(folder)
    assert runs.load(folder).config == today
    check(OmegaConf.create(runs.load(folder).config))
    with_retired_keys(folder, clock="noise")
    with pytest.raises(InputError, match="step_clock=noise: the clock by noise levels is retired"):
        check(OmegaConf.create(runs.load(folder).config))


@pytest.mark.heavy
def test_a_run_from_before_goes_on(run):
    folder, _ = run("data.end_id=1")
    with_retired_keys(folder)
    first = record_paths(folder)[0].read_bytes()
    _, metrics = run("data.end_id=2")
    assert metrics["metadata"]["num_images"] == 2 and record_paths(folder)[0].read_bytes() == first
    with_retired_keys(folder, clock="noise")
    with pytest.raises(InputError, match="step_clock is noise there and progress here"):
        run("data.end_id=2")
