"""What every record says about the run as a whole."""

import subprocess
from collections.abc import Sequence
from importlib import metadata as packages
from typing import Any

from utils.config.overrides import changes_results
from utils.paths import PROJECT

PACKAGES = ("torch", "diffusers", "numpy", "hydra-core", "piq")


def run_metadata(seed: int, num_samples: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Seed, particles at the start, overrides, commit, versions; without places and batching, so that shards agree."""
    return {
        "seed": seed,
        "num_samples": num_samples,
        "overrides": [text for text in overrides if changes_results(text)],
        "git_commit": git_commit(),
        "versions": {name: packages.version(name) for name in PACKAGES},
    }


def git_commit() -> str | None:
    """The commit of this program; None outside a repository and where there is no git."""
    try:
        answer = subprocess.run(["git", "-C", str(PROJECT), "rev-parse", "HEAD"], capture_output=True, text=True)
    except OSError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
