"""The experiment scripts: usage, order, and that each names its experiment, whose switches its config alone has."""

import os
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from utils.config.fingerprint import fingerprint
from utils.paths import PROJECT

USAGE = """usage: bash exp0_baseline.sh [--1] [--10] [--100] [--demo]
사용법: bash exp0_baseline.sh [--1] [--10] [--100] [--demo]
  --1   : 1 image sanity check
  --10  : 10 images main experiment
  --100 : 100 images final eval
  --demo: the same on the shipped prior and images, also with --1; alone it means --demo --1
"""
REAL = (
    "posterior_sample.py data=test-imagenet model=imagenet256ldm task_group=ldm_langevin experiment=exp0_baseline "
    "data.end_id={n} use_tpu=false gpu=0 "
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


NAMES = sorted(path.stem for path in (PROJECT / "configs/experiment").glob("*.yaml"))
OF_A_PLACE = {"data", "model", "task_group", "sampler", "data.start_id", "data.end_id", "use_tpu", "gpu", "save_dir", "name"}


def test_every_experiment_has_its_script():
    assert [path.stem for path in sorted((PROJECT / "commands_gpu").glob("*.sh"))] == NAMES


@pytest.mark.heavy
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("demo", [("--demo",), ()])
def test_a_script_names_its_experiment_and_none_of_its_switches(script, composed, name, demo):
    size = "--imagenet" if name == "exp5_final" else "--10"
    (command,) = script(size, *demo, name=name).commands
    passed = dict(word.split("=") for word in command.split()[1:])
    assert passed.pop("experiment") == name and set(passed) <= OF_A_PLACE
    assert passed["save_dir"] == f"results/{name}"
    composed(*command.split()[1:])


def test_on_the_shipped_prior_each_has_its_sampler(script):
    samplers = {"exp0_baseline": None, "exp5_final": "fast_denoised", "exp7_sequential": "short_denoised"}
    for name in NAMES:  # experiment 0 is pinned to the unaccelerated sampler
        for command in script("--demo", name=name).commands:
            passed = dict(word.split("=") for word in command.split()[1:])
            assert passed.get("sampler") == samplers.get(name, "fast")


def test_experiment_8_brings_its_prior_and_photographs(script):
    setting = "model=natural-32 task_group=photographs sampler=fast experiment=exp8_coarse"
    place = "use_tpu=false gpu=0 save_dir=results/exp8_coarse"
    real, ninety = script("--10", "--90", name="exp8_coarse").commands
    assert real == f"posterior_sample.py data=test-imagenet {setting} data.end_id=10 {place} name=imagenet_10"
    assert (
        ninety == f"posterior_sample.py data=test-imagenet {setting} data.start_id=10 data.end_id=100 {place} name=imagenet_90"
    )
    one, five = script("--1", "--10", "--demo", name="exp8_coarse").commands
    assert one == f"posterior_sample.py data=demo-photos {setting} data.end_id=1 {place} name=demo_1"
    assert five == f"posterior_sample.py data=demo-photos {setting} data.end_id=5 {place} name=demo_10"


def test_experiment_8_has_no_images_10_to_99_to_show(script):
    done = script("--90", "--demo", name="exp8_coarse")
    assert (done.returncode, done.commands) == (2, [])
    assert done.stderr == "--demo --90: five photographs are shipped; take --demo --1 or --demo --10\n"


def test_experiment_7_has_the_setting_of_its_certificate_on_a_real_prior_too(script):
    (command,) = script("--1", name="exp7_sequential").commands
    assert " model=imagenet256ldm task_group=ldm sampler=short_denoised experiment=exp7_sequential " in command
    assert (
        "model=imagenet256ldm task_group=ldm experiment=exp7_sequential sampler=short_denoised"
        in (PROJECT / "docs/research/real_models.md").read_text()
    )


def test_one_image_is_a_demo_of_every_experiment(script):
    done = script("--1", name="exp3_2particle")
    assert done.returncode == 2 and "unknown argument: --1; exp3_2particle.sh takes --10 --100 --demo" in done.stderr
    for name in NAMES:
        (command,) = script("--demo", "--1", name=name).commands
        assert " data.end_id=1 " in command and command.endswith(f"save_dir=results/{name} name=demo_1")
        assert script("--1", "--demo", name=name).commands == [command]


def test_a_flag_of_earlier_scripts_is_told_where_its_images_are(script):
    done = script("--90", name="exp1_repulsion")
    assert done.returncode == 2 and done.stderr == (
        "unknown argument: --90; exp1_repulsion.sh takes --1 --10 --100 --demo; the images 10 to 99 of --90 are part of --100\n"
    )


FINAL_USAGE = """usage: bash exp5_final.sh [--imagenet] [--ffhq] [--demo]
사용법: bash exp5_final.sh [--imagenet] [--ffhq] [--demo]
  --imagenet: 100 ImageNet images
  --ffhq    : 100 FFHQ images
  --demo    : the same on the shipped prior and images, also with --1; alone it means --demo --imagenet --ffhq
"""


def final(data, model, group, name, sampler=""):
    """What exp5_final.sh runs on one image set."""
    return (
        f"posterior_sample.py data={data} model={model} task_group={group} {sampler}experiment=exp5_final "
        f"data.end_id=100 use_tpu=false gpu=0 save_dir=results/exp5_final name={name}_100"
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


@pytest.mark.heavy
def test_experiment_5_is_experiment_4(composed):
    final, best = (
        OmegaConf.to_container(composed(f"experiment={name}", "sampler=fast"), resolve=True)
        for name in ("exp5_final", "exp4_optimization")
    )
    assert final == best and fingerprint(final) == fingerprint(best)


@pytest.mark.program
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


def test_a_clone_with_the_line_ends_of_windows_keeps_those_of_the_scripts(tmp_path):
    def git(*arguments):
        asked = ["git", "-c", "core.autocrlf=true", "-c", "user.name=x", "-c", "user.email=x@y", *arguments]
        subprocess.run(asked, cwd=tmp_path / "a", check=True, capture_output=True)

    (tmp_path / "a").mkdir()
    for name, source in ((".gitattributes", ".gitattributes"), ("x.sh", "tools/experiment.sh"), ("x.md", "README.md")):
        (tmp_path / "a" / name).write_bytes((PROJECT / source).read_bytes())
    git("init")
    git("add", ".")
    git("commit", "-m", "x")
    git("clone", ".", str(tmp_path / "b"))
    assert all(b"\r" not in (tmp_path / "b" / name).read_bytes() for name in ("x.sh", "x.md"))
