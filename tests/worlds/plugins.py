"""The plug-ins of docs/examples/plugins, switched on by their YAML alone."""

import os
import subprocess
import sys

from utils.paths import PROJECT

PLUGINS = PROJECT / "docs/examples/plugins"


def experiment(name):
    """The overrides that stand for `--config-dir docs/examples/plugins experiment=NAME`."""
    return f"hydra.searchpath=[file://{PLUGINS}]", f"experiment={name}"


def started_elsewhere(name, overrides, folder, *more):
    """A run as a user starts it, in another working directory and without PYTHONPATH."""
    command = [str(PROJECT / "posterior_sample.py"), "--config-dir", str(PLUGINS), f"experiment={name}", *overrides, *more]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
