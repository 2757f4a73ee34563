"""A run folder of others is data: its config builds this project's classes, and others only where the user names them."""

import json
import subprocess
import sys

import pytest
import yaml
from omegaconf import OmegaConf

from tests.worlds.synthetic import write_run
from utils.analysis import runs
from utils.errors import InputError
from utils.paths import PROJECT
from utils.running.finished import OURS, settings_of_finished

PAYLOAD = {"_target_": "torch.load", "f": "p.pt", "weights_only": False}
DEEPINV = "deepinv.physics.Downsampling"
FOREIGN = {
    "model._target_": ({"model": {"_target_": "builtins.dict"}}, "builtins.dict"),
    "model.extra._target_": ({"model": {"extra": PAYLOAD}}, "torch.load"),
    "model.extra[0]._target_": ({"model": {"extra": [PAYLOAD]}}, "torch.load"),
    "sampler._target_": ({"sampler": {"_target_": "os.system"}}, "os.system"),
    "mechanisms.mine._target_": ({"mechanisms": {"mine": PAYLOAD}}, "torch.load"),
    "fidelity.terms.mine._target_": ({"fidelity": {"terms": {"mine": PAYLOAD}}}, "torch.load"),
    "metrics.mine._target_": (
        {"metrics": {"mine": {"_target_": "utils.command_line.write_text"}}},
        "utils.command_line.write_text",
    ),
    "repulsion.similarity": ({"repulsion": {"similarity": "os.system"}}, "os.system"),
}


@pytest.fixture
def folder(tmp_path, composed):
    return write_run(tmp_path, composed, [["0", "failed"]], pictures=False)


def change(folder, update):
    config = OmegaConf.merge(OmegaConf.load(folder / "config.yaml"), update)
    (folder / "config.yaml").write_text(yaml.safe_dump(OmegaConf.to_container(config)))
    return runs.load(folder).config


def test_a_run_of_ours_has_the_settings_of_all_its_images(folder):
    settings = settings_of_finished(change(folder, {"shard": "1/2", "data": {"start_id": 1, "end_id": 2}}), folder)
    assert (settings.shard, settings.data.start_id, settings.data.end_id) == ("0/1", 0, None)


@pytest.mark.parametrize("key", FOREIGN)
def test_a_class_of_others_is_refused_in_one_line_that_names_it(folder, key):
    update, name = FOREIGN[key]
    with pytest.raises(InputError) as caught:
        settings_of_finished(change(folder, update), folder)
    reason = f"is no class of this project and may run anything; where you trust it: --trust {name}"
    assert str(caught.value) == f"{folder}/config.yaml: {key}={name}: {reason}"


def test_a_class_that_the_user_names_is_taken(folder):
    config = change(folder, {"metrics": {"mine": {"_target_": "tests.worlds.own_metrics.MeanError"}}})
    settings_of_finished(config, folder, ["tests.worlds.own_metrics.MeanError"])


def test_nothing_of_the_environment_is_resolved(folder, monkeypatch):
    monkeypatch.setenv("SECRET", "password")
    config = change(folder, {"data": {"source": "x"}})
    config["data"]["source"] = "${oc.env:SECRET}"
    with pytest.raises(InputError, match=r"data.source=\$\{oc.env:SECRET\}: a run leaves no") as caught:
        settings_of_finished(config, folder)
    assert "password" not in str(caught.value)


def test_every_class_that_the_shipped_configs_name_is_ours():
    """But those of deepinv, a library."""
    named = {
        value
        for group in ("model", "sampler", "task", "experiment")
        for file in (PROJECT / "configs" / group).glob("*.yaml")
        for value in _targets(yaml.safe_load(file.read_text()))
    }
    assert named - {DEEPINV} <= OURS and DEEPINV not in OURS


def _targets(node):
    if isinstance(node, dict):
        yield from ([node["_target_"]] if "_target_" in node else [])
        for inner in node.values():
            yield from _targets(inner)


@pytest.mark.parametrize(
    "tool",
    [["calibrate_certificate.py"], ["evidence/trivial_reconstruction.py"], ["add_metric.py", "mine"]],
    ids=lambda t: t[0],
)
def test_no_tool_builds_what_a_run_folder_names(tool, folder, tmp_path):
    ran = tmp_path / "ran"
    write = {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "_args_": [str(ran)]}}
    change(folder, {"metrics": {"mine": write}, "model": {"extra": write}})
    name, *arguments = tool
    done = subprocess.run(
        [sys.executable, f"tools/{name}", *arguments, str(folder)], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "may run anything" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not ran.exists() and json.loads((folder / "metrics.json").read_text())
