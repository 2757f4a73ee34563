"""The experiment scripts of a copy of the project, with a `python` that only says how it was called."""

import os
import shutil
import subprocess

import pytest

from utils.paths import PROJECT


@pytest.fixture
def script(tmp_path):
    """script(*flags, name=..., folder=..., **environment) -> the finished process of <folder>/<name>.sh.

    Its `commands` are the arguments that `python` was called with, one string a call.
    """
    for folder in ("commands_gpu", "commands_tpu", "tools", "configs/experiment"):
        shutil.copytree(PROJECT / folder, tmp_path / "project" / folder)
    fake = tmp_path / "bin" / "python"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "ran in $(pwd): $*"\n[ -z "$FAIL" ] || exit 3\n')
    fake.chmod(0o755)

    def start(*flags, name="exp0_baseline", folder="commands_gpu", **environment):
        done = subprocess.run(
            ["bash", str(tmp_path / "project" / folder / f"{name}.sh"), *flags],
            text=True,
            capture_output=True,
            cwd=tmp_path,
            env={**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}", **environment},
        )
        done.commands = [line.split(": ", 1)[1] for line in done.stdout.splitlines() if line.startswith("ran in")]
        return done

    return start
