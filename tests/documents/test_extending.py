"""The worked examples of docs/extending.md and docs/design.md run as they stand there on a tiny prior and few steps."""

import json
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

from utils.paths import PROJECT
from utils.records.files import read_record

pytestmark = pytest.mark.program

DOCUMENT = "".join((PROJECT / "docs" / name).read_text() for name in ("extending.md", "design.md"))
BLOCKS = re.findall(r"```(?:python|yaml)\n((?:# @package _global_\n)?# (my_parts/\S+)\n.*?)```", DOCUMENT, re.DOTALL)
FILES = {name: block for block, name in BLOCKS}  # whole, as a reader copies them
COMMANDS = {
    text.split("name=")[1]: shlex.split(text.replace("\\\n", " "))
    for text in re.findall(r"^    PYTHONPATH=my_parts python posterior_sample\.py ((?:.*\\\n)*.*)$", DOCUMENT, re.MULTILINE)
}


(ADD,) = re.findall(r"^    PYTHONPATH=my_parts python tools/add_metric\.py (.*)$", DOCUMENT, re.MULTILINE)
(CHECK,) = re.findall(r"^    PYTHONPATH=my_parts python tools/check_gradients\.py (.*)$", DOCUMENT, re.MULTILINE)
(PRINTED,) = re.findall(r"```text\n(cut: .*?)```", DOCUMENT, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that holds the examples' files."""
    folder = tmp_path_factory.mktemp("examples")
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def example(folder, tiny_prior, tiny_images):
    """example(name, *overrides) -> (metrics, arrays of the first record) of its command, made small."""

    def start(name, *overrides):
        own_algorithm = any(word.startswith("sampler=") for word in COMMANDS[name])
        steps = "sampler.steps" if own_algorithm else "sampler.annealing_scheduler_config.num_steps"
        command = [
            *COMMANDS[name],
            "gpu=-1",
            "num_samples=2",
            "model.resolution=16",
            "data.resolution=16",
            "data.end_id=1",
            f"data.root={tiny_images}",
            f"{steps}=3",
            "task.demo_langevin.mcmc_sampler_config.num_steps=2",
            *overrides,
        ]
        done = subprocess.run(
            [sys.executable, str(PROJECT / "posterior_sample.py"), *command],
            cwd=folder,
            text=True,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": "my_parts"},
        )
        assert done.returncode == 0, done.stderr
        run = folder / "results" / name
        return json.loads((run / "metrics.json").read_text()), read_record(run / "records/00000.npz")[1]

    return start


def test_every_example_is_short_and_has_its_command():
    names = ("grayscale.py", "grayscale.yaml", "principal.py", "principal.yaml", "colour.py", "smooth.py", "smooth.yaml")
    own = {f"{name}.{kind}" for name in ("absolute", "alternating", "diary", "lens", "outliers") for kind in ("py", "yaml")}
    assert {name.split("/")[-1] for name in FILES} == {*names, *own}
    assert set(COMMANDS) == {"grayscale", "principal", "colours", "absolute", "alternating", "smooth", "outliers", "diary"}
    for name, text in FILES.items():
        assert text.count("\n") < 30, name


def test_an_operator_of_your_own(example, tiny_prior):
    metrics, arrays = example("grayscale", f"model.path={tiny_prior}")
    assert arrays["y"].shape == (1, 16, 16) and metrics["modes"] is None
    assert np.isfinite(metrics["psnr"]["max"]).all()


def test_a_prior_of_your_own(example, tiny_images):
    metrics, arrays = example("principal", f"model.path={tiny_images}", "model.components=5")
    assert arrays["z"].shape == (2, 5, 1, 1)
    assert np.isfinite(metrics["psnr"]["max"]).all()


def test_a_similarity_of_your_own(example, run, folder, tiny_prior, monkeypatch):
    apart, _ = example("colours", f"model.path={tiny_prior}")
    monkeypatch.syspath_prepend(folder / "my_parts")
    switches = [word for word in COMMANDS["colours"] if "=" in word and not word.startswith(("repulsion", "name"))]
    found_in = f"hydra.searchpath=[file://{folder}/my_parts/configs]"
    _, alone = run(found_in, *switches, "num_samples=2", "data.end_id=1")  # the run above without its force
    assert apart["psnr"]["sample"] != alone["psnr"]["sample"]


def test_a_metric_of_your_own(example, tiny_prior, folder):
    """In a run, and the same added to a run without it."""
    metrics, arrays = example("outliers", f"model.path={tiny_prior}")
    (off,) = np.abs(arrays["images"].astype(float) - arrays["truth"]).reshape(1, 2, -1)
    assert metrics["outliers"]["sample"][0] == pytest.approx(np.quantile(off, 0.99, axis=1), abs=1.0)
    assert "| pixel error (levels) |" in (folder / "results/outliers/eval.md").read_text()
    example("outliers", f"model.path={tiny_prior}", "name=demo", "~metrics.outliers")
    demo = folder / "results/demo/metrics.json"
    assert "outliers" not in json.loads(demo.read_text())
    environment = {**os.environ, "PYTHONPATH": f"my_parts{os.pathsep}{PROJECT}"}
    command = [sys.executable, str(PROJECT / "tools/add_metric.py"), *shlex.split(ADD)]
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    added = json.loads(demo.read_text())
    assert added["outliers"]["sample"][0] == pytest.approx(metrics["outliers"]["sample"][0], abs=1.0)


def test_a_callback_of_your_own(example, tiny_prior, folder):
    metrics, _ = example("diary", f"model.path={tiny_prior}")
    (line,) = (folder / "diary.txt").read_text().splitlines()
    assert line.startswith("00000.png: loss ") and line.endswith(f", in the end {min(metrics['loss']['sample'][0]):.0f}")


def test_a_mechanism_of_your_own(example, tiny_prior):
    smoothed, with_it = example("smooth", f"model.path={tiny_prior}")
    assert [report["step"] for report in smoothed["mechanisms"]["smooth"][0]["events"]] == [0, 1]  # t = 1000 and 667
    assert smoothed["pruning"] is None and list(smoothed["time"]["phases"]) == ["sampling"]
    _, without = example("smooth", f"model.path={tiny_prior}", "mechanisms.smooth.share=0", "resume=false")
    assert (with_it["z"] != without["z"]).any()


def test_an_algorithm_of_your_own(example, tiny_prior):
    metrics, _ = example("alternating", f"model.path={tiny_prior}")
    sampling = metrics["time"]["phases"]["sampling"]
    assert sampling["steps"] == sampling["denoiser_calls"] == sampling["decoder_forward_backward"] == 3
    assert np.isfinite(metrics["psnr"]["max"]).all()


def test_a_term_of_your_own(example, tiny_prior):
    metrics, _ = example("absolute", f"model.path={tiny_prior}")
    assert list(metrics["loss"]["terms"]) == ["absolute"]
    (floor,) = metrics["loss"]["terms"]["absolute"]["noise_floor"]
    assert floor == metrics["loss"]["noise_floor"][0] == pytest.approx(3 * 24 * 24 * 0.05**2)


def test_the_line_that_cuts_the_gradient_is_printed_as_the_document_shows_it(folder, tiny_prior):
    small = (f"model.path={tiny_prior}", "model.resolution=16", "data.resolution=16", "gpu=-1")
    done = subprocess.run(
        [sys.executable, str(PROJECT / "tools/check_gradients.py"), *shlex.split(CHECK), *small],
        cwd=folder,
        text=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": f"my_parts{os.pathsep}{PROJECT}"},
    )
    assert done.returncode == 1, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("cut: ")] == PRINTED.splitlines()
