"""The console command from any folder, and modules of somebody else that have the names of ours."""

import os
import subprocess
import sys
import tomllib

import pytest

from tests.worlds import runs
from utils.paths import PROJECT

pytestmark = pytest.mark.heavy
COMMAND = "import sys; sys.argv[0] = 'latentdaps'; from posterior_sample import start; start()"  # as pip writes it


def python(folder, *arguments, path=(), **more):
    """A process started in `folder`, with the folders `path` and then ours where Python looks for modules."""
    environment = runs.environment(**{"PYTHONPATH": os.pathsep.join(map(str, (*path, PROJECT))), **more})
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )


def test_the_command_is_the_program():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"latentdaps": "posterior_sample:start"}
    assert "latentdaps*" in project["tool"]["setuptools"]["packages"]["find"]["include"]


@pytest.mark.program
def test_the_command_finds_configs_and_priors_from_any_folder_and_writes_there(tmp_path):
    few = ["gpu=-1", "sampler.annealing_scheduler_config.num_steps=2", "chain_check=false", "num_samples=1", "data.end_id=1"]
    done = python(tmp_path, "-Pc", COMMAND, *few, "task.demo_langevin.mcmc_sampler_config.num_steps=1", "name=here")
    assert done.returncode == 0, done.stderr
    assert runs.metrics_of(tmp_path / "results" / "here")["metadata"]["image_ids"] == [0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]


@pytest.mark.program
def test_a_wrong_key_of_the_command_is_one_line(tmp_path):
    done = python(tmp_path, "-Pc", COMMAND, "sead=3")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and done.stderr.startswith(
        "error: sead=3: there is no such key"
    )
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["utils", "operators", "sampler"])
def test_a_namesake_in_the_way_is_one_line(name, tmp_path):
    (tmp_path / f"{name}.py").write_text("mine = True\n")
    line = f"{name}={tmp_path / name}.py: is imported in the place of {PROJECT / name}; rename it, or keep its folder off"
    for folder, arguments, path in (
        (tmp_path, ["-c", COMMAND], ()),  # the current folder is on the path
        (PROJECT.parent, ["-Pc", COMMAND], [tmp_path]),
        (PROJECT, ["-P", "posterior_sample.py"], [tmp_path]),
    ):
        done = python(folder, *arguments, path=path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert done.stderr.startswith(f"error: {line}")
    done = python(tmp_path, "-c", "import latentdaps")
    assert done.stderr.splitlines()[-1].startswith(f"ImportError: {line}")


def test_a_namesake_that_is_imported_already_is_named(tmp_path):
    (tmp_path / "utils.py").write_text("")
    lines = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import utils; del sys.path[0]; import latentdaps"
    done = python(PROJECT, "-c", lines)
    assert done.stderr.splitlines()[-1].startswith(f"ImportError: utils={tmp_path / 'utils.py'}: is imported")


def test_a_namesake_that_comes_after_ours_is_in_nobodys_way(tmp_path):
    (tmp_path / "utils.py").write_text("")
    done = python(PROJECT, "-c", "import latentdaps", PYTHONPATH=f"{PROJECT}{os.pathsep}{tmp_path}")
    assert done.returncode == 0, done.stderr
