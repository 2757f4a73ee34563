"""commands_tpu/ is commands_gpu/ on another device: the same flags and switches, `_tpu` at the end of the names."""

import pytest

from utils.paths import PROJECT

NAMES = sorted(path.stem for path in (PROJECT / "commands_tpu").glob("*.sh"))


def test_every_experiment_that_xla_does_not_refuse_has_a_script():
    """Rounds of a sequential population differ in size: tests/population/test_certificate_file.py."""
    assert NAMES == [path.stem for path in sorted((PROJECT / "commands_gpu").glob("*.sh")) if path.stem != "exp7_sequential"]


@pytest.mark.parametrize("name", NAMES)
def test_a_tpu_script_is_its_gpu_script_on_another_device(script, name):
    flag, size = ("--imagenet", 100) if name == "exp5_final" else ("--10", 10)
    gpu, tpu = (script(flag, name=name, folder=folder) for folder in ("commands_gpu", "commands_tpu"))
    ((on_gpu,), (on_tpu,)) = (done.commands for done in (gpu, tpu))
    device, place = "use_tpu=false gpu=0", f"save_dir=results/{name} name=imagenet_{size}"
    assert device in on_gpu and on_gpu.endswith(place)
    place_on_tpu = f"save_dir=results/{name}_tpu name=imagenet_{size}_tpu"
    assert on_tpu == on_gpu.replace(device, "use_tpu=true").replace(place, place_on_tpu)


@pytest.mark.parametrize("name", NAMES)
def test_a_tpu_script_says_what_its_gpu_script_says(script, name):
    gpu, tpu = (script(name=name, folder=folder) for folder in ("commands_gpu", "commands_tpu"))
    assert f"bash {name}.sh" in tpu.stdout and (tpu.returncode, tpu.stdout) == (0, gpu.stdout)
    refused = script("--1", "--nonsense", name=name, folder="commands_tpu")
    assert refused.returncode == 2 and refused.commands == [] and f"{name}.sh takes" in refused.stderr


def test_a_failing_run_on_a_tpu_stops_the_script(script):
    done = script("--1", "--10", folder="commands_tpu", FAIL="1")
    assert done.returncode == 3 and len(done.commands) == 1


@pytest.mark.parametrize("platform", ["", "linux/amd64"])
def test_a_platform_of_other_programs_means_a_gpu(script, platform):
    (command,) = script("--1", PLATFORM=platform).commands
    assert "use_tpu=false gpu=0 save_dir=results/exp0_baseline " in command
