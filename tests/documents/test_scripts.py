"""The experiment scripts: usage, order, and the switches that they pass visibly."""

import os
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from utils.paths import PROJECT

USAGE = """사용법: bash exp0_baseline.sh [--1] [--10] [--100]
  --1   : 1 image sanity check
  --10  : 10 images main experiment
  --100 : 100 images final eval
  --demo: the same on the shipped prior and images; alone it means --demo --1
"""
REAL = (
    "posterior_sample.py data=test-imagenet model=imagenet256ldm task_group=ldm_langevin num_samples=4 "
    "repulsion_scale=0.0 pruning_step=-1 optimization_step=-1 data.end_id={n} use_tpu=false gpu=0 "
    "save_dir=results/exp0_baseline name=imagenet_{n}"
)
DEMO = REAL.replace(
    "data=test-imagenet model=imagenet256ldm task_group=ldm_langevin",
    "data=demo-scenes model=demo-scenes task_group=demo_langevin",
).replace("imagenet_", "demo_")


def test_usage_without_arguments(script):
    done = script()
    assert (done.returncode, done.stdout) == (0, USAGE)


@pytest.mark.parametrize("flags", [("--5",), ("--1", "--nonsense"), ("1",)])
def test_unknown_arguments_run_nothing(script, flags):
    done = script(*flags)
    assert done.returncode == 2 and done.commands == []
    assert done.stderr == f"unknown argument: {flags[-1]}; exp0_baseline.sh takes --1 --10 --100 --demo\n"


def test_sizes_run_in_the_order_given(script, tmp_path):
    done = script("--10", "--1", "--100")
    assert done.commands == [REAL.format(n=n) for n in (10, 1, 100)]
    assert f"+ python {REAL.format(n=10)}" in done.stdout  # shown before it runs
    assert f"ran in {tmp_path}/project:" in done.stdout  # from any directory


def test_demo_uses_the_shipped_prior_and_images(script):
    assert script("--demo").commands == [DEMO.format(n=1)]
    assert script("--10", "--demo").commands == [DEMO.format(n=10)]


def test_a_failing_run_stops_the_script(script):
    done = script("--1", "--10", FAIL="1")
    assert done.returncode == 3 and len(done.commands) == 1


SWITCHES = {
    "exp0_baseline": ("num_samples=4", "repulsion_scale=0.0", "pruning_step=-1", "optimization_step=-1"),
    "exp1_repulsion": ("num_samples=4", "pruning_step=-1", "optimization_step=-1"),
    "exp2_pruning": ("num_samples=4", "pruning_step=200", "optimization_step=-1"),
    "exp3_2particle": ("num_samples=2", "pruning_step=-1", "optimization_step=-1"),
    "exp4_optimization": ("num_samples=4", "pruning_step=200", "optimization_step=200"),
    "exp6_recombination": ("num_samples=4", "pruning_step=-1", "optimization_step=-1", "recombination_step=300"),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_script_and_config_of_an_experiment_agree(script, composed, name):
    (command,) = script("--10", "--demo", name=name).commands
    assert all(switch in command.split() for switch in SWITCHES[name])
    assert f"save_dir=results/{name} name=demo_10" in command
    assert ("sampler=fast" in command) == (name != "exp0_baseline")  # which is pinned to the unaccelerated sampler
    cfg = composed(f"experiment={name}")
    for switch in ("num_samples", "repulsion_scale", "pruning_step", "optimization_step"):
        assert f"{switch}={cfg[switch]}" in command.split()
    assert cfg.recombination_step == (300 if name == "exp6_recombination" else -1)
    assert cfg.repulsion_scale == 0 or f"repulsion.end_step={cfg.repulsion.end_step}" in command.split()
    assert (cfg.repulsion_scale > 0) == (name != "exp0_baseline")


def test_experiment_3_has_no_single_image_run(script):
    done = script("--1", name="exp3_2particle")
    assert done.returncode == 2 and "unknown argument: --1; exp3_2particle.sh takes --10 --100 --demo" in done.stderr
    assert "[--1]" not in script(name="exp3_2particle").stdout


def test_a_flag_of_earlier_scripts_is_told_where_its_images_are(script):
    done = script("--90", name="exp1_repulsion")
    assert done.returncode == 2 and done.stderr == (
        "unknown argument: --90; exp1_repulsion.sh takes --1 --10 --100 --demo; the images 10 to 99 of --90 are part of --100\n"
    )


FINAL_USAGE = """사용법: bash exp5_final.sh [--imagenet] [--ffhq]
  --imagenet: 100 ImageNet images
  --ffhq    : 100 FFHQ images
  --demo    : the same on the shipped prior and images; alone it means --demo --imagenet --ffhq
"""


def final(data, model, group, name, sampler=""):
    """What exp5_final.sh runs on one image set; the switches are those of its config."""
    config = OmegaConf.load(PROJECT / "configs/experiment/exp5_final.yaml")
    switches = [
        f"{key}.{k}={v}" if k else f"{key}={v}"
        for key, value in config.items()
        for k, v in (value.items() if OmegaConf.is_dict(value) else [("", value)])
    ]
    return (
        f"posterior_sample.py data={data} model={model} task_group={group} {sampler}"
        f"{' '.join(switches)} data.end_id=100 use_tpu=false gpu=0 save_dir=results/exp5_final name={name}_100"
    )


def test_experiment_5_takes_image_sets(script):
    imagenet = final("test-imagenet", "imagenet256ldm", "ldm_langevin", "imagenet")
    ffhq = final("test-ffhq", "ffhq256ldm", "ldm_langevin", "ffhq")
    assert script(name="exp5_final").stdout == FINAL_USAGE
    assert script("--imagenet", name="exp5_final").commands == [imagenet]
    assert script("--ffhq", name="exp5_final").commands == [ffhq]
    assert script("--ffhq", "--imagenet", name="exp5_final").commands == [ffhq, imagenet]


def test_experiment_5_on_the_shipped_priors(script):
    scenes, faces = (
        final(f"demo-{kind}", f"demo-{kind}", "demo_langevin", f"demo-{kind}", "sampler=fast_denoised ")
        for kind in ("scenes", "faces")
    )
    assert script("--demo", name="exp5_final").commands == [scenes, faces]
    assert script("--demo", "--ffhq", name="exp5_final").commands == [faces]


@pytest.mark.parametrize("flag", ["--10", "imagenet", "--coco", ""])
def test_experiment_5_refuses_other_flags_in_one_line(script, flag):
    done = script("--imagenet", flag, name="exp5_final")
    assert done.returncode == 2 and done.commands == []
    assert done.stderr == f"unknown argument: {flag}; exp5_final.sh takes --imagenet --ffhq --demo\n"


def test_experiment_5_passes_details_of_the_parts_too(script, tmp_path):
    config = tmp_path / "project/configs/experiment/exp5_final.yaml"
    config.write_text("# @package _global_\nnum_samples: 3  # why: so\nrepulsion:\n  end_step: 300\npruning_step: -1\n")
    (command,) = script("--ffhq", name="exp5_final").commands
    assert " num_samples=3 repulsion.end_step=300 pruning_step=-1 data.end_id" in command


def test_experiment_5_composes(composed):
    cfg = composed("experiment=exp5_final")
    assert cfg.repulsion_scale > 0 and cfg.num_samples >= 2


def test_real_runs_end_in_the_missing_checkpoint_line(tmp_path):
    if list((PROJECT / "checkpoints").glob("ldm_imagenet256*")):
        pytest.skip("the real checkpoint is installed here")
    # where there is no .venv the script takes the `python` of the PATH: let that be the one of this test
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", str(PROJECT / "commands_gpu/exp0_baseline.sh"), "--1"],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "checkpoints/ldm_imagenet256" in done.stderr
