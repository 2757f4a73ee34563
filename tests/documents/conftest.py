"""The project as it was at a commit, and the experiment scripts of a copy with a `python` that only says how it was called."""

import io
import os
import shutil
import subprocess
import tarfile
from functools import cache

import pytest

from utils.paths import PROJECT


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """tree(commit) -> the folder of the project's code and documents as they are, or as they were at a commit that git has."""

    @cache
    def of(commit):
        if commit is None:
            return PROJECT
        done = subprocess.run(
            ["git", "archive", commit, ":!evidence", ":!checkpoints", ":!dataset"], cwd=PROJECT, capture_output=True
        )
        if done.returncode != 0:
            pytest.skip(f"git has no commit {commit} here")
        folder = tmp_path_factory.mktemp(commit)
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as packed:
            packed.extractall(folder, filter="data")
        return folder

    return of


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
