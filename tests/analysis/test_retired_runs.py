"""Runs made with what is retired since: the tools show them as they were."""

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from tests.worlds.synthetic import write_run
from utils.analysis import runs
from utils.analysis.columns import KINDS
from utils.analysis.comparison import compare
from utils.analysis.experiments import best_of, gather
from utils.analysis.tables import build, markdown
from utils.config.check import check
from utils.figures.style import particle_title
from utils.records.aggregate import aggregate
from utils.records.files import read_record, to_json, write_record
from utils.records.summary import certified

LABELS = [["0", "failed", "180", "failed"], ["failed", "0", "0", "mixed"]]


def older(folder, **values):
    """The run folder with further keys in its config."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))
    return folder


def test_a_subset_of_a_portfolios_particles_is_not_what_fewer_would_have_given(tmp_path, composed):
    """Which numbers a subset has decided its settings."""
    entries = [{}, {"lr": 2.0, "lowpass": 0.3, "lowpass_until": 500}]
    with_portfolio, alike = gather(
        [
            runs.load(older(write_run(tmp_path, composed, LABELS, name="with"), portfolio=entries)),
            runs.load(older(write_run(tmp_path, composed, LABELS, name="alike"), portfolio=[])),
        ]
    )
    assert not with_portfolio.can_split and alike.can_split
    assert best_of(alike, 2).derived
    rows = compare([with_portfolio, alike])
    assert rows[0]["failed"]["count"] == rows[1]["failed"]["count"] == 4
    for kind in KINDS:
        assert (table := build(kind, rows)) is None or markdown(table)


def test_a_config_with_retired_keys_that_did_nothing_is_todays(tmp_path, composed):
    """As tools read it that build the parts of a finished run again."""
    folder = write_run(tmp_path, composed, LABELS)
    thresholds = {"deviation": 3.0, "stop_step": None, "stop_deviation": None}
    before = runs.load(folder).config
    sequential = {"population": "sequential", "sequential": before["sequential"] | {"thresholds": thresholds}}
    config = runs.load(older(folder, portfolio=[], **sequential)).config
    assert "portfolio" not in config and config["sequential"]["thresholds"] == {"deviation": 3.0}
    assert check(OmegaConf.create(config)).sequential.thresholds.deviation == 3.0


@pytest.fixture
def stopped(tmp_path, composed):
    """A sequential run of two images of which particle 0 of the first stopped early."""
    folder = write_run(tmp_path, composed, LABELS)
    rounds = [
        [{"particles": [0], "passing": [], "stopped": [0]}, {"particles": [1, 2, 3], "passing": [2], "stopped": []}],
        [{"particles": [0], "passing": [], "stopped": []}, {"particles": [1, 2, 3], "passing": [1], "stopped": []}],
    ]
    rule = {"deviation": 3.0, "denoising": 0.6, "agreement": None, "stop_step": 300, "stop_deviation": 5.7}
    records = []
    for image, of_image in enumerate(rounds):
        record, arrays = read_record(folder / "records" / f"{image:05d}.npz")
        signals = {name: [None if image == 0 else 1.0, 1.0, 1.0, 1.0] for name in ("deviation", "denoising", "agreement")}
        record["population"] = {"rounds": of_image, "signals": signals, "accepted": True, "rule": rule}
        write_record(folder, record, {name: np.asarray(array) for name, array in arrays.items()})
        records.append(record)
    (folder / "metrics.json").write_bytes(to_json(aggregate(records, folder.name).content()))
    return older(folder, population="sequential")


def test_particles_that_stopped_early_are_named(stopped):
    run = runs.load(stopped, from_records=True)
    assert [[part.stopped for part in rounds] for rounds in run.metrics.population.rounds] == [[[0], []], [[], []]]
    record = run.records(1)[0][0]
    assert particle_title(record, 0).startswith("p0: stopped early\n") and particle_title(record, 2).startswith("p2: 180°\n")
    metrics = aggregate([record for record, _ in run.records()], "exp0").content()
    assert "1 of 8 particles stopped early" in certified(metrics)
    assert compare(gather([run]))[0]["particles"] == "4 (≤ 4)"
