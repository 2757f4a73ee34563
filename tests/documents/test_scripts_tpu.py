"""commands_tpu/ mirrors commands_gpu/: the same switches and sizes, another device, `_tpu` at the end of the names."""

import os
import subprocess

import pytest

from utils.paths import PROJECT

NAMES = ("exp0_baseline", "exp1_repulsion", "exp2_pruning", "exp3_2particle", "exp4_optimization", "exp5_final")


def settings(folder, name):
    """The lines of a script that set something, without the platform."""
    lines = (PROJECT / folder / f"{name}.sh").read_text().splitlines()
    return [line for line in lines if not line.startswith(("#", "PLATFORM="))]


def command(folder, name, tmp_path):
    """What --10 runs, or --imagenet for experiment 5, with a `python` that only prints its arguments."""
    flag = "--imagenet" if name == "exp5_final" else "--10"
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\necho "$*"\n')
    fake.chmod(0o755)
    script = f"PYTHON={fake}; ROOT={PROJECT}; set -- {flag}; " + (PROJECT / folder / f"{name}.sh").read_text().replace(
        '"$(dirname "${BASH_SOURCE[0]}")/../tools/experiment.sh"',
        f"<(sed '/^PYTHON=/d; /^\\[ -x/d; /^ROOT=/d' {PROJECT}/tools/experiment.sh)",
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    return done.stdout.splitlines()[-1].split()


@pytest.mark.parametrize("name", NAMES)
def test_a_tpu_script_is_its_gpu_script_on_another_device(name, tmp_path):
    assert settings("commands_tpu", name) == settings("commands_gpu", name)
    on_gpu, on_tpu = (command(folder, name, tmp_path) for folder in ("commands_gpu", "commands_tpu"))
    assert "use_tpu=true" in on_tpu and not any(word.startswith("gpu=") for word in on_tpu)
    size = 100 if name == "exp5_final" else 10
    assert f"save_dir=results/{name}_tpu" in on_tpu and f"name=imagenet_{size}_tpu" in on_tpu
    kept = ("use_tpu", "gpu", "save_dir", "name")
    assert [w for w in on_tpu if w.split("=")[0] not in kept] == [w for w in on_gpu if w.split("=")[0] not in kept]
