"""Workers: images shared among processes of a machine give the records of one process; whatever ends one, they end together."""

import contextlib
import itertools
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.worlds import runs
from utils import device as devices
from utils.config.check import check
from utils.device import CoreFailure
from utils.errors import InputError
from utils.records.files import read_record, record_paths
from utils.running import threads, workers
from utils.running.ranks import Rank

pytestmark = pytest.mark.program

SELECTION = "data.end_id=5"
ALONE = Rank()
LONG = "sampler.annealing_scheduler_config.num_steps=60"


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_prior, no_pictures):
    return runs.Place(tmp_path_factory.mktemp("workers"), tiny_prior, images=8, overrides=[runs.ANALYTIC])


def contents(folder):
    """{image id: (record without times and commit, arrays)} of a run folder."""
    found = {}
    for record, arrays in map(read_record, record_paths(folder)):
        phases = {
            name: {k: v for k, v in phase.items() if k not in ("time_s", "chain_s")}
            for name, phase in record["time"]["phases"].items()
        }
        about = {
            key: value for key, value in record["run"].items() if key != "git_commit"
        }  # a commit may come between two runs
        found[record["image_id"]] = {**record, "time": phases, "run": about}, arrays
    return found


def assert_same_records(a, b):
    a, b = contents(a), contents(b)
    assert a.keys() == b.keys()
    for image in a:
        assert a[image][0] == b[image][0]
        assert a[image][1].keys() == b[image][1].keys()
        assert all(np.array_equal(array, b[image][1][name]) for name, array in a[image][1].items())


@pytest.mark.parametrize("batch", [1, 2])
def test_two_workers_write_the_records_of_one_process_bit_for_bit(place, caplog, batch):
    """Whole batches are shared, so those of two images are the same pairs. What a run says once is said once."""
    batches, folders, said = f"batch_images={batch}", [], []
    for count in (1, 2):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="latentdaps"):
            folders.append(place.run(f"of{count}_{batch}", SELECTION, batches, "chain_check=true", f"workers={count}"))
        said.append(sorted(message.split(" dB, ")[0] for message in caplog.messages))  # what follows is a time
    assert_same_records(*folders)
    assert runs.scores(runs.metrics_of(folders[0])) == runs.scores(runs.metrics_of(folders[1]))
    assert said[0] == said[1] and any("chain_check" in message for message in said[1])
    assert [p.name for p in folders[1].glob("run*.log")] == ["run.log"]


def when(condition, act):
    """Calls act() from a thread as soon as condition() holds."""

    def watch():
        while not condition():
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_a_killed_worker_ends_the_run_in_one_line_and_the_same_command_continues(place):
    command = place.all("killed", SELECTION, LONG, "workers=2")
    when(lambda: record_paths(place.path("killed")), lambda: os.kill(multiprocessing.active_children()[-1].pid, signal.SIGKILL))
    with pytest.raises(InputError, match="workers=2: process .* was ended by signal 9.*the same command continues"):
        runs.run(*command)
    assert not multiprocessing.active_children()
    done = sorted(contents(place.path("killed")))
    assert 0 < len(done) < 5 and runs.metrics_of(place.path("killed"))["metadata"]["image_ids"] == done
    runs.run(*command)
    assert_same_records(place.run("undisturbed", SELECTION, LONG), place.path("killed"))


def started(place, name):
    return subprocess.Popen(
        [sys.executable, "posterior_sample.py", *place.all(name, LONG, "data.end_id=8", "workers=2")],
        cwd=runs.PROJECT,
        env=runs.environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # a group of its own, as a terminal gives it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def processes_of(group):
    """The processes that are left of a group."""
    listed = subprocess.run(["ps", "-A", "-o", "pgid=,pid=,stat="], capture_output=True, text=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return [int(pid) for pgid, pid, state in rows if int(pgid) == group and not state.startswith("Z")]


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("number, to_all", [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGTERM, False)])
def test_ctrl_c_and_sigterm_end_all_workers_with_one_line(place, number, to_all):
    """Ctrl-C in a terminal, and a batch system's SIGTERM, reach every process; kill reaches one."""
    name = f"ended{number}{to_all}"
    running = started(place, name)
    until(lambda: record_paths(place.path(name)) or running.poll() is not None)
    (os.killpg if to_all else os.kill)(running.pid, number)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert errors.count("interrupted: finished images are kept") == 1 and "Traceback" not in errors
    until(lambda: processes_of(running.pid) == [], seconds=30)  # multiprocessing has a helper, which ends a moment later
    done = sorted(contents(place.path(name)))
    assert 0 < len(done) < 8 and runs.metrics_of(place.path(name))["metadata"]["image_ids"] == done


def test_workers_of_a_killed_run_end_too(place):
    running = started(place, "orphans")
    until(lambda: record_paths(place.path("orphans")) or running.poll() is not None)
    running.kill()
    running.communicate()
    until(lambda: processes_of(running.pid) == [])
    assert len(contents(place.path("orphans"))) < 8


def load_prior_that(path, device, timestep_map, fault, **_):
    """A prior of one's own that cannot be had in a worker."""
    if fault == "refuses":
        raise InputError("model.path: not mine")
    prior = runs.load_analytic(path, device, timestep_map)
    decode, calls = prior.decode, itertools.count()

    def decode_a_while(z):
        if next(calls) > 4:  # after it was tried, and before any worker is done with its first image
            raise RuntimeError("it broke")
        return decode(z)

    prior.decode = decode_a_while
    return prior


@pytest.mark.parametrize(
    "fault, kind, message",
    [("refuses", InputError, "^model.path: not mine$"), ("fails", CoreFailure, "worker .*RuntimeError: it broke")],
)
def test_an_error_in_a_worker_is_the_error_of_the_run(place, fault, kind, message):
    own = f"{__name__}.{load_prior_that.__name__}"
    with pytest.raises(kind, match=f"(?s){message}"):
        place.run(f"own_{fault}", SELECTION, f"model._target_={own}", f"+model.fault={fault}", "workers=2")
    assert not multiprocessing.active_children()


def test_nothing_is_sampled_before_all_measurements_are_looked_at(place):
    folder = place.folder / "measured"
    folder.mkdir()
    for i in range(4):
        shape = (3, 24, 24) if i < 3 else (2, 24, 24)
        np.save(folder / f"{i}.npy", np.random.default_rng(i).uniform(1, 2, shape).astype(np.float32))
    overrides = ("data=measurement", f"data.root={folder}", f"data.resolution={runs.SIDE}", "data.end_id=null", "workers=2")
    with pytest.raises(InputError, match=r"3\.npy: has shape \(2, 24, 24\)"):
        place.run("measured", *overrides)
    assert not record_paths(place.path("measured"))


def test_no_image_is_handed_out_before_the_first_worker_has_looked_at_all():
    pairs = [multiprocessing.Pipe() for _ in range(2)]
    both = [workers.Worker(number, None, ours) for number, (ours, _) in enumerate(pairs)]
    first, second = (theirs for _, theirs in pairs)
    with contextlib.ExitStack() as stack:
        server = threading.Thread(target=workers.serve, args=(both, ["image"], stack), daemon=True)
        server.start()
        second.send(("take", 1))
        assert not second.poll(0.3)
        first.send(("checked",))
        assert second.recv() == ["image"]
        for connection in (first, second):
            connection.send(("done",))
        server.join(10)
        assert not server.is_alive()


# --- what auto chooses ---------------------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch, place):
    """chosen(images, *overrides, ...) -> (workers, threads of each) on a machine of 8 cores and 100 GB."""
    for name in threads.OF_THE_USER:
        monkeypatch.delenv(name, raising=False)

    def chosen(images, *overrides, cores=8, memory=100e9, rank=ALONE, weights=4e6, cuda=False, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(devices, "usable_cores", lambda: cores)
        monkeypatch.setattr(devices, "usable_memory", lambda: memory)
        monkeypatch.setattr(threads, "weight_bytes", lambda path: weights)
        if cuda:
            monkeypatch.setattr(devices, "is_cpu", lambda use_tpu, gpu: False)
        settings = check(runs.config([*place.all("x"), "workers=auto", *overrides]))
        return workers.workers_of(settings, images, rank), threads.threads_of(settings).count

    return chosen


@pytest.mark.parametrize(
    "images, overrides, more, expected",
    [
        (10, (), {}, (8, 1)),
        (3, (), {}, (3, 1)),
        (1, (), {}, (1, 1)),
        (10, ("batch_images=4",), {}, (3, 1)),
        (10, (), {"memory": 4e9}, (2, 1)),
        (10, (), {"memory": 1e6}, (1, 1)),
        (10, ("threads=2",), {}, (4, 2)),
        (10, (), {"OMP_NUM_THREADS": "2"}, (4, None)),
        (10, (), {"OMP_NUM_THREADS": "1"}, (8, None)),
        (10, ("workers=3",), {}, (3, 1)),
        (2, ("workers=3",), {}, (2, 1)),
        (10, ("shard=0/2",), {}, (1, 1)),
        (10, (), {"rank": Rank(1, 2, 1)}, (1, 1)),
        (10, ("compile=true",), {}, (1, 1)),
        (10, (), {"weights": 4e10}, (1, None)),
        (10, (), {"weights": None}, (1, None)),
        (10, (), {"cuda": True}, (1, None)),
        (10, (), {"cores": 1}, (1, 1)),
    ],
)
def test_what_auto_chooses(machine, images, overrides, more, expected):
    assert machine(images, *overrides, **more) == expected


def test_the_log_says_what_was_chosen_and_why(machine, caplog):
    machine(10)
    assert caplog.messages == [
        "workers=auto: 8 processes, 1 thread each (8 cores; a pass is small: 1 million weights, 16 x 16 pixels)"
    ]


def test_one_image_starts_no_process(place, monkeypatch):
    monkeypatch.setattr(workers.multiprocessing, "get_context", lambda *_: pytest.fail("started"))
    place.run("single", "data.end_id=1", "workers=auto")


def test_a_small_pass_has_one_thread_unless_the_user_says_otherwise(place, monkeypatch):
    from utils.running.build import build

    for name in threads.OF_THE_USER:
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()

    def counted(*overrides):
        torch.set_num_threads(3)
        build(check(runs.config(place.all("x", *overrides))), tried=False)
        return torch.get_num_threads()

    try:
        assert counted() == 1 and counted("threads=2") == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert counted() == 3
    finally:
        torch.set_num_threads(before)


def test_workers_on_a_tpu_are_refused(place):
    with pytest.raises(InputError, match=r"workers=2: use_tpu=true spreads images over its cores itself \(num_cores\)"):
        check(runs.config(place.all("x", "use_tpu=true", "workers=2")))


@pytest.mark.parametrize(
    "files, cores, memory",
    [
        ({}, 64, None),
        ({"cpu.max": "max 100000", "memory.max": "max", "memory.current": "5"}, 64, None),
        ({"cpu.max": "250000 100000", "memory.max": "3000", "memory.current": "1000"}, 2, 2000),
        ({"cpu.max": "50000 100000"}, 1, None),
        ({"memory.max": "3000", "memory.current": "2900", "memory.stat": "anon 5\ninactive_file 700"}, 64, 800),
    ],
)
def test_a_containers_limits_count(tmp_path, monkeypatch, files, cores, memory):
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(devices, "CGROUP", Path(tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert devices.usable_cores() == cores
    assert (devices.usable_memory() == memory) if memory else devices.usable_memory() > 10**6
