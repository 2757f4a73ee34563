"""Resuming: whatever ends a run, the same command finishes it with the results of an undisturbed one."""

import errno
import importlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.worlds import runs
from tools import status
from utils.errors import InputError
from utils.files import PARTIAL
from utils.records.aggregate import aggregate
from utils.records.files import read_record, to_json

pytestmark = pytest.mark.program


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_prior, tiny_images, no_pictures):
    return runs.Place(tmp_path_factory.mktemp("resume"), tiny_prior, tiny_images)


@pytest.fixture(scope="module")
def undisturbed(place):
    """The scores of images 0 to 2, sampled without disturbance."""
    return runs.scores(runs.metrics_of(place.run("undisturbed", "data.end_id=3")))


def contents(folder):
    return {path.name: path.read_bytes() for path in (folder / "records").iterdir()}


def test_a_finished_image_is_never_sampled_again_and_a_run_extends(place, undisturbed):
    short = place.run("extended", "data.end_id=2")
    before = contents(short)
    times = {path: path.stat().st_mtime_ns for path in (short / "records").iterdir()}
    place.run("extended", "data.end_id=3")
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert before.items() <= contents(short).items()
    assert runs.scores(runs.metrics_of(short)) == undisturbed


def test_resume_false_starts_anew_and_keeps_the_old_result(place):
    folder = place.run("anew", "data.end_id=1")
    before = contents(folder)
    place.run("anew", "data.end_id=1", "num_samples=1", "resume=false")
    assert contents(folder.with_name("anew.1")) == before
    assert runs.metrics_of(folder)["metadata"]["num_samples"] == 1


def test_resume_false_is_refused_for_shards_which_would_move_each_others_records(place):
    with pytest.raises(InputError, match="resume=false"):
        place.run("anew_shard", "shard=0/2", "resume=false")


# --- SIGKILL -----------------------------------------------------------------------------------------------------


def in_child(overrides, kill_at, counted):
    """A run that sends itself SIGKILL at its `kill_at`-th function call; the number of calls goes to `counted`."""
    sys.stdout = sys.stderr = open(os.devnull, "w")
    cfg = runs.config(overrides)
    import posterior_sample

    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        if event in ("call", "c_call"):
            calls += 1
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    posterior_sample.run(cfg)
    sys.setprofile(None)
    counted.value = calls


PRELOAD = [
    "posterior_sample",
    "utils.running.build",
    "utils.evaluation.evaluator",
    "utils.evaluation.trace",
    "utils.priors.latent_diffusion",
    "utils.figures.run",
    __name__,
]


@pytest.fixture(scope="module")
def children():
    """Starts runs in processes forked from one that has torch loaded already."""
    for name in PRELOAD:  # a name that is gone would be passed over in silence there
        importlib.import_module(name)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)

    def start(overrides, kill_at=0):
        counted = context.Value("q", 0)
        child = context.Process(target=in_child, args=(overrides, kill_at, counted))
        child.start()
        child.join()
        return child.exitcode, counted.value

    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("PYTHONPATH", str(runs.PROJECT)), ("OMP_NUM_THREADS", "1"), ("PJRT_DEVICE", "CPU")):
            patch.setenv(name, value)
        yield start


def kill_and_resume(place, undisturbed, children, kills, seed):
    code, calls = children(place.all(f"counted{seed}", "data.end_id=3"))
    assert code == 0
    where = random.Random(seed)
    found = set()
    for attempt in range(kills):
        overrides = place.all(f"killed{seed}_{attempt}", "data.end_id=3")
        kill_at = where.randrange(1, int(0.98 * calls))
        code, _ = children(overrides, kill_at)
        assert code == -signal.SIGKILL
        folder = place.path(f"killed{seed}_{attempt}")
        before = {p: p.stat().st_mtime_ns for p in folder.glob("records/*.npz")}
        found.add(len(before))
        assert children(overrides)[0] == 0
        assert runs.scores(runs.metrics_of(folder)) == undisturbed, f"killed at call {kill_at} of {calls}"
        assert {p: p.stat().st_mtime_ns for p in before} == before, "a finished image was sampled again"
        samples = {p.name for p in folder.glob("samples/*.png")}
        assert samples == {p.name for p in place.path("undisturbed").glob("samples/*.png")}
    return found


def test_killed_at_random_moments_it_gives_the_scores_of_an_undisturbed_run(place, undisturbed, children):
    kill_and_resume(place, undisturbed, children, kills=4, seed=1)


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_gives_the_scores_of_an_undisturbed_run(place, undisturbed, children):
    found = kill_and_resume(place, undisturbed, children, kills=20, seed=2)
    assert len(found) > 1, "the kills should fall before and after different records"


# --- signals, disks, damaged files -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_cleanly_with_the_records_so_far_aggregated(place, number):
    """Also where more of them come while the process leaves."""
    name = f"interrupted{number}"
    running = subprocess.Popen(
        [
            sys.executable,
            "posterior_sample.py",
            *place.all(name, "data.end_id=12", "sampler.annealing_scheduler_config.num_steps=100"),
        ],
        cwd=runs.PROJECT,
        env=runs.environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # as in a terminal; tests started in the background inherit that Ctrl-C is ignored
        preexec_fn=lambda: [signal.signal(each, signal.SIG_DFL) for each in (signal.SIGINT, signal.SIGHUP)],
    )
    first = place.path(name) / "records" / "00000.npz"
    while not first.exists() and running.poll() is None:
        time.sleep(0.02)
    report = "\n".join(status.describe(place.path(name)))
    while running.poll() is None:
        running.send_signal(number)
        time.sleep(0.01)
    _, errors = running.communicate()
    assert re.search(r"[1-9][0-9]* of 12 images done, [0-9.]+ s per image", report), "tools/status.py while the run goes on"
    assert running.returncode == 130, errors
    assert "Traceback" not in errors and "KeyboardInterrupt" not in errors
    assert errors.count("interrupted") == 1
    done = [int(p.stem) for p in sorted(place.path(name).glob("records/*.npz"))]
    assert 0 < len(done) < 12
    assert runs.metrics_of(place.path(name))["metadata"]["image_ids"] == done


@pytest.mark.parametrize(
    "where, said",
    [
        ("build", "interrupted: no image was finished yet, the same command begins with the first one\n"),
        ("report", "interrupted: finished images are kept, the same command continues\n"),  # after a record is written
    ],
)
def test_an_interrupt_says_whether_anything_is_kept(place, undisturbed, monkeypatch, capsys, where, said):
    import posterior_sample
    from utils.running import sampling

    def interrupted(*_):
        raise KeyboardInterrupt

    overrides = (f"at_{where}", "data.end_id=3", "workers=1")
    monkeypatch.setattr(posterior_sample, "call", lambda main: place.run(*overrides))
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="130"):
        patch.setattr(sampling, where, interrupted)
        posterior_sample.start()
    assert capsys.readouterr().err.endswith(said)
    assert runs.scores(runs.metrics_of(place.run(*overrides))) == undisturbed


def test_several_images_warn_of_the_same_thing_once_a_run(place, caplog):
    """lr: so large that the chain jumps and no image is explained."""
    with caplog.at_level("WARNING", "latentdaps"):
        place.run("warned", "data=folder", "data.end_id=4", *runs.set_chain(lr=1.0e-2), "chain_check=true")
    kinds = [re.sub(r"[-+0-9.e]+", "N", record.getMessage())[:40] for record in caplog.records]
    assert len(kinds) >= 2 and len(kinds) == len(set(kinds)), kinds


@pytest.mark.parametrize("write", [1, 3, 7, 11])
def test_a_full_disk_is_one_line_and_the_same_command_continues(place, undisturbed, monkeypatch, write):
    """The disk is full from the `write`-th file on: during the first image, between images, at metrics.json."""
    count, fsync = 0, os.fsync

    def full(handle):
        nonlocal count
        count += 1
        if count >= write:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="No space left on device"):
            place.run(f"full{write}", "data.end_id=3")
    folder = place.path(f"full{write}")
    kept = contents(folder) if (folder / "records").exists() else {}
    assert all(name.endswith(".npz") for name in kept), "no half-written file is left"
    place.run(f"full{write}", "data.end_id=3")
    assert kept.items() <= contents(folder).items()
    assert runs.scores(runs.metrics_of(folder)) == undisturbed


def test_a_place_that_cannot_be_written_is_one_line(place):
    file = place.folder / "a_file"
    file.write_text("not a folder")
    with pytest.raises(InputError, match="save_dir=.*cannot write"):
        place.run("unwritable", "data.end_id=1", f"save_dir={file}")
    assert file.read_text() == "not a folder"


def test_a_damaged_record_is_set_aside_and_its_image_sampled_again(place, undisturbed):
    folder = place.run("damaged", "data.end_id=3")
    record = folder / "records" / "00001.npz"
    half = record.read_bytes()[: len(record.read_bytes()) // 2]
    for times in (1, 2):
        record.write_bytes(half)
        place.run("damaged", "data.end_id=3")
        assert runs.scores(runs.metrics_of(folder)) == undisturbed
        assert len([p for p in record.parent.iterdir() if "damaged" in p.name and p.read_bytes() == half]) == times


def test_a_record_of_another_configuration_is_refused_and_kept(place):
    folder = place.run("foreign", "data.end_id=2")
    other = place.run("foreign_other", "data.end_id=2", "seed=7")
    shutil.copy(other / "records" / "00001.npz", folder / "records" / "00001.npz")
    before = contents(folder)
    with pytest.raises(InputError, match="00001.npz belongs to another configuration"):
        place.run("foreign", "data.end_id=3")
    assert contents(folder) == before


def test_a_record_of_another_image_is_refused(place):
    images = shutil.copytree(place.images, place.folder / "changing")
    overrides = (f"data.root={images}", "data.end_id=2")
    folder = place.run("changing_images", *overrides)
    before = contents(folder)
    shutil.copy(images / "00002.png", images / "00001.png")
    with pytest.raises(InputError, match="another image"):
        place.run("changing_images", *overrides)
    assert contents(folder) == before


def test_a_folder_left_by_a_kill_before_its_config_was_written_is_continued(place, undisturbed):
    folder = place.path("early")
    (folder / "records").mkdir(parents=True)
    (folder / f".config.yaml.x{PARTIAL}").write_text("data:")
    place.run("early", "data.end_id=3")
    assert runs.scores(runs.metrics_of(folder)) == undisturbed


def test_metrics_are_a_pure_function_of_the_records(place, undisturbed):
    folder = place.path("undisturbed")
    records = [read_record(p)[0] for p in sorted(folder.glob("records/*.npz"))]
    assert json.loads(to_json(aggregate(records, "undisturbed").content())) == runs.metrics_of(folder)
