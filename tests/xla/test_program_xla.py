"""The program with use_tpu=true on XLA:CPU: two cores, one result."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import posterior_sample
from utils.errors import InputError
from utils.paths import PROJECT
from utils.records.files import read_record


def test_two_cores_equal_one(composed, tiny, tmp_path):
    """The program in a process of its own on two XLA:CPU devices, one image each; here on one."""
    overrides = [*tiny, "use_tpu=true"]
    two = subprocess.run(
        [sys.executable, str(PROJECT / "posterior_sample.py"), *overrides, "name=two"],
        cwd=tmp_path,
        env={**os.environ, "CPU_NUM_DEVICES": "2"},
        capture_output=True,
        text=True,
    )
    assert two.returncode == 0, two.stderr
    assert "runs XLA on CPU" in two.stderr
    cfg = composed(*overrides, "num_cores=1", "name=one")
    posterior_sample.run(cfg)
    metrics = {name: json.loads((tmp_path / "results" / name / "metrics.json").read_text()) for name in ("one", "two")}

    for key in ("psnr", "ssim", "modes", "selection", "diversity", "diverged"):
        assert metrics["one"][key] == metrics["two"][key], key
    for image in ("00000", "00001"):
        z_one, z_two = (
            read_record(tmp_path / "results" / name / "records" / f"{image}.npz")[1]["z"] for name in ("one", "two")
        )
        np.testing.assert_allclose(z_two, z_one, rtol=0, atol=1e-6)
    device = metrics["two"]["metadata"]["device"]
    assert (device["type"], device["name"]) == ("xla", "XLA:CPU")
    assert device["cores"] == [{"core": core, "images": 1, "peak_memory_mb": None} for core in (0, 1)]
    assert [core["images"] for core in metrics["one"]["metadata"]["device"]["cores"]] == [2]
    assert metrics["two"]["time"]["compile_s"] > 0 and metrics["one"]["time"]["compile_s"] > 0
    log = (tmp_path / "results" / "two" / "run.log").read_text()
    assert all(log.count(f"image {i}: ") == 1 for i in (0, 1))

    with pytest.raises(InputError, match="num_cores=2: XLA has 1 core"):
        posterior_sample.run(composed(*overrides, "num_cores=2", "name=three"))
