"""Shards, ranks, sweeps: any division of a run gives the metrics.json of one process, times apart."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.worlds import runs
from tools import merge_runs
from utils import device as devices
from utils.config.check import check
from utils.data import select_images
from utils.errors import InputError
from utils.records.files import read_record, record_paths, write_record
from utils.running.ranks import Rank

pytestmark = pytest.mark.program

SELECTION = "data.end_id=5"
NOT_RECORDED = ("gpu", "data.end_id", "save_dir", "name", "chain_check", "workers")  # what changes no result
# standalone: a free port, so that other runs on this machine do not matter
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_prior, no_pictures):
    """On the analytic prior: what is divided and put together again is the matter here, in up to a dozen processes."""
    return runs.Place(tmp_path_factory.mktemp("shards"), tiny_prior, images=5, overrides=[runs.ANALYTIC])


@pytest.fixture(scope="module")
def one_process(place):
    """The scores of one run in this process."""
    return runs.scores(runs.metrics_of(place.run("one", SELECTION)))


@pytest.fixture(scope="module")
def one_command(place, one_process):
    """The same with the overrides that a command line records: those that change results."""
    recorded = [text for text in place.all("any", SELECTION) if text.split("=")[0] not in NOT_RECORDED]
    return {**one_process, "metadata": {**one_process["metadata"], "overrides": recorded}}


def merge(out, *folders):
    """tools/merge_runs.py as a user starts it."""
    return subprocess.run(
        [sys.executable, "tools/merge_runs.py", str(out), *map(str, folders)],
        cwd=runs.PROJECT,
        env=runs.environment(),
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("order", [(0, 1), (2, 0, 1), (6, 5, 4, 3, 2, 1, 0)])
def test_shards_in_one_folder_in_any_order_equal_one_process(place, one_process, order):
    """More shards than images too: some are empty."""
    for k in order:
        folder = place.run(f"shared{len(order)}", SELECTION, f"shard={k}/{len(order)}")
    assert runs.scores(runs.metrics_of(folder)) == one_process
    assert {p.name for p in folder.glob("run*.log")} == {f"run_shard-{k}-of-{len(order)}.log" for k in order}


def test_merged_shards_of_separate_folders_equal_one_process(place, one_process):
    shards = [place.run(f"separate_{k}", SELECTION, f"shard={k}/3") for k in (2, 0, 1)]
    before = {p: p.read_bytes() for shard in shards for p in shard.rglob("*") if p.is_file()}
    out = place.path("merged")
    done = merge(out, *shards)
    assert done.returncode == 0, done.stderr
    assert runs.scores(runs.metrics_of(out)) == one_process
    assert {p: p.read_bytes() for p in before} == before, "the shards' folders stay as they are"
    assert len(list(out.glob("samples/*.png"))) == 10 and (out / "grid_results.png").exists()
    place.run("merged", SELECTION)  # the merged folder is a run folder like any other
    assert runs.scores(runs.metrics_of(out)) == one_process


def test_merging_twice_or_overlapping_shards_changes_nothing(place, one_process):
    one, out = place.run("one", SELECTION), place.path("overlap")
    for _ in range(2):
        merge_runs.merge(out, [one, place.run("part", SELECTION, "shard=1/2")])
        assert runs.scores(runs.metrics_of(out)) == one_process


def test_records_without_pictures_are_merged_too(place, one_process):
    stripped = [place.run(f"stripped_{k}of2", SELECTION, f"shard={k}/2") for k in (0, 1)]
    for folder in stripped:
        for path in record_paths(folder):
            write_record(folder, read_record(path)[0], {})
    done = merge(place.path("merged_stripped"), *stripped)
    assert done.returncode == 0, done.stderr
    assert runs.scores(runs.metrics_of(place.path("merged_stripped"))) == one_process


@pytest.mark.parametrize(
    "problem, message",
    [("other", "num_samples is 1 there and 2 here"), ("empty", "holds no records"), ("taken", "is not empty")],
)
def test_what_cannot_be_merged_is_one_line_and_touches_nothing(place, problem, message):
    one, out = place.run("one", SELECTION), place.path(f"refused_{problem}")
    folders = [one]
    if problem == "other":
        folders.append(place.run("other", "data.end_id=1", "num_samples=1"))
    elif problem == "empty":
        folders.append(place.folder / "images")
    else:
        out.mkdir()
        (out / "thesis.tex").write_text("years of work")
    done = merge(out, *folders)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and message in done.stderr and done.stderr.count("\n") == 1
    assert not out.exists() or [p.name for p in out.iterdir()] == ["thesis.tex"]


def test_a_shard_of_another_configuration_is_refused(place):
    place.run("guarded", SELECTION, "shard=0/2")
    with pytest.raises(InputError, match="seed is 42 there and 1 here"):
        place.run("guarded", SELECTION, "shard=1/2", "seed=1")


@pytest.mark.parametrize("shard", ["0/1", "1/3"])
@pytest.mark.parametrize("count", [2, 5])
def test_ranks_divide_a_shard_into_shards_of_equal_size(place, shard, count):
    settings = check(runs.config(place.all("x", SELECTION, f"shard={shard}")))
    whole = [image.id for image in select_images(settings)]
    parts = [[i.id for i in select_images(Rank(r, count, r).settings(settings))] for r in range(count)]
    assert parts == [whole[r::count] for r in range(count)]


def test_each_rank_takes_its_own_device(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [devices.get_device(gpu=1, local_rank=r).index for r in range(2)] == [1, 2]
    assert devices.get_device(gpu=-1, local_rank=1).type == "cpu"
    with pytest.raises(InputError, match="gpu=1: no CUDA device 3 for rank 2.*devices 0 to 2"):
        devices.get_device(gpu=1, local_rank=2)


def test_torchrun_is_refused_for_tpus(place):
    settings = check(runs.config(place.all("x", SELECTION, "use_tpu=true")))
    with pytest.raises(InputError, match="use_tpu=true: torchrun"):
        Rank(0, 2, 0).settings(settings)


def test_torchrun_runs_no_sweep(place):
    overrides = place.all("sweep", "data.end_id=1", "seed=1,2")
    done = subprocess.run(
        [sys.executable, runs.PROJECT / "posterior_sample.py", "-m", *overrides],
        capture_output=True,
        text=True,
        cwd=place.folder,
        env={**os.environ, "TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"},
    )
    assert done.returncode != 0 and "torchrun runs no sweep (-m)" in done.stderr and "Traceback" not in done.stderr
    assert not place.path("sweep").exists()


def test_torchrun_with_two_ranks_equals_one_process(place, one_command):
    done = runs.command(*place.all("ranks", SELECTION), program=TORCHRUN)
    folder = place.path("ranks")
    assert runs.scores(runs.metrics_of(folder)) == one_command
    assert {p.name for p in folder.glob("run*.log")} == {"run_shard-0-of-2.log", "run_shard-1-of-2.log"}
    assert done.stdout.count("success 0 of 5 images") == 1, "one rank reports, on all images"


@pytest.mark.slow
def test_torchrun_keeps_an_old_result_aside_once(place, one_command):
    place.run("ranks_anew", "data.end_id=1", "num_samples=1")
    runs.command(*place.all("ranks_anew", SELECTION, "resume=false"), program=TORCHRUN)
    assert runs.scores(runs.metrics_of(place.path("ranks_anew"))) == one_command
    assert [p.name for p in place.path("x").parent.glob("ranks_anew.*")] == ["ranks_anew.1"]


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_and_the_same_command_continues(place, one_command):
    """torchrun ends the other rank, which aggregates what is done; then the run goes on at the images not done."""
    overrides = place.all("killed_rank", SELECTION)
    running = subprocess.Popen(
        [*TORCHRUN, "posterior_sample.py", *overrides],
        cwd=runs.PROJECT,
        env=runs.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = place.path("killed_rank")
    while not any(folder.glob("records/*.npz")) and running.poll() is None:
        time.sleep(0.005)
    children = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(running.pid)], capture_output=True, text=True)
    ranks = [int(line.split()[0]) for line in children.stdout.splitlines() if "posterior_sample.py" in line]
    os.kill(ranks[1], signal.SIGKILL)
    running.communicate()
    assert running.returncode != 0
    done = sorted(int(p.stem) for p in folder.glob("records/*.npz"))
    assert done and runs.metrics_of(folder)["metadata"]["image_ids"] == done
    runs.command(*overrides, program=TORCHRUN)
    assert runs.scores(runs.metrics_of(folder)) == one_command


def test_submitit_shards_equal_one_process(place, one_command):
    runs.command(
        "-m",
        "hydra/launcher=submitit_local",
        *place.all("jobs", SELECTION),
        "shard=0/2,1/2",
        f"hydra.sweep.dir={place.folder / 'multirun'}",
        PYTHONPATH=str(runs.PROJECT),  # the jobs are no scripts of this folder, and have to find the analytic prior
    )
    assert runs.scores(runs.metrics_of(place.path("jobs"))) == one_command


def test_the_slurm_launcher_config_composes_and_fits_the_installed_plugin(place):
    done = runs.command(
        "hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "--cfg", "hydra", "-p", "hydra.launcher"
    )
    assert "partition: gpu" in done.stdout and "gpus_per_node: 1" in done.stdout and "max_num_timeout: 20" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("launcher", ["basic", pytest.param("submitit_local", marks=pytest.mark.slow)])
def test_one_failed_job_of_a_sweep_does_not_lose_the_others(place, launcher):
    done = runs.command(
        "-m",
        f"hydra/launcher={launcher}",
        *place.all(f"{launcher}_${{num_samples}}", "data.end_id=1"),
        "num_samples=1,0,3",
        f"hydra.sweep.dir={place.folder / 'multirun'}",
        check=False,
        PYTHONPATH=str(runs.PROJECT),
    )
    assert done.returncode != 0
    assert "error: num_samples=0" in done.stderr and "Traceback" not in done.stderr
    for count in (1, 3):
        assert runs.metrics_of(place.path(f"{launcher}_{count}"))["metadata"]["num_samples"] == count
    assert not place.path(f"{launcher}_0").exists()


@pytest.fixture
def launched(monkeypatch):
    """launched(NAME=value, ...): the variables of a launcher, and none beside them."""

    def set_(**values):
        for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"):
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_


@pytest.mark.parametrize("more", [{}, {"RANK": "0"}, {"RANK": "0", "WORLD_SIZE": "two", "LOCAL_RANK": "0"}])
def test_a_torchrun_without_its_ranks_is_one_line(launched, more):
    launched(TORCHELASTIC_RUN_ID="x", **more)
    with pytest.raises(InputError, match="TORCHELASTIC_RUN_ID is set as by torchrun, but RANK, WORLD_SIZE and LOCAL_RANK are"):
        Rank.of_this_process()


def test_tasks_of_srun_that_would_all_sample_the_same_are_refused(composed, tiny, launched):
    settings, shard = check(composed(*tiny)), check(composed(*tiny, "shard=1/4"))
    launched(SLURM_STEP_NUM_TASKS="4", SLURM_PROCID="1")
    with pytest.raises(InputError, match="srun runs 4 tasks.*'shard=.{oc.env:SLURM_PROCID}/4'") as caught:
        Rank.of_this_process().settings(settings)
    assert "\n" not in str(caught.value)
    assert check(composed(*tiny, str(caught.value).split("'")[1].strip())).shard == "1/4"
    assert Rank.of_this_process().settings(shard) is shard
    launched(SLURM_STEP_NUM_TASKS="1", SLURM_PROCID="0")
    assert Rank.of_this_process().settings(settings) is settings
    launched(SLURM_STEP_NUM_TASKS="2", TORCHELASTIC_RUN_ID="x", RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")  # one torchrun a node
    assert Rank.of_this_process().settings(settings) is settings


def test_a_user_id_without_a_name_gets_one(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import pwd\n\ndef none(uid):\n    raise KeyError(uid)\n\npwd.getpwuid = none\n")
    nameless = {name: value for name, value in os.environ.items() if name not in ("USER", "LOGNAME", "LNAME", "USERNAME")}
    program = "import utils, getpass; print(getpass.getuser())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**nameless, "PYTHONPATH": f"{tmp_path}:{runs.PROJECT}"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{os.getuid()}\n", done.stderr
