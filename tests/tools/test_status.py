"""tools/status.py: what it says about a run that goes on, has stopped, or is done."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.worlds import runs
from tools import status
from utils.command_line import run
from utils.config.fingerprint import identity
from utils.errors import InputError
from utils.plain_files import read_yaml
from utils.records.files import read_record, record_path, write_record
from utils.records.folder import RunFolder
from utils.records.progress import Progress, write_progress

pytestmark = pytest.mark.program


@pytest.fixture(scope="module")
def half_done(tmp_path_factory, tiny_prior, no_pictures):
    """The folder of a run over 4 images, of which shard 0/2 is done."""
    return runs.Place(tmp_path_factory.mktemp("status"), tiny_prior, images=4).run("status", "data.end_id=4", "shard=0/2")


@pytest.fixture
def folder(half_done, tmp_path):
    """A copy of it in which shard 1/2 has begun, and taken 3 s for each of 37 steps."""
    folder = shutil.copytree(half_done, tmp_path / "status")
    begun(folder, "at work")
    return folder


def begun(folder, state, **more):
    """Shard 1/2 as its process has left it, a moment after everything else."""
    values = {"steps_done": 37, "seconds": 111.0, "best": "best PSNR 21.00 dB", **more}
    write_progress(folder / "run_shard-1-of-2.log", Progress(state=state, images=2, steps=100, **values))


def set_records(folder, **changes):
    """Rewrite top-level entries of all records."""
    for path in sorted(folder.glob("records/*.npz")):
        record, arrays = read_record(path)
        for key, value in changes.items():
            record[key] = {**record[key], **value} if isinstance(value, dict) else value
        write_record(folder, record, arrays)


def at(folder, seconds):
    """The report `seconds` after the newest file."""
    newest = max(p.stat().st_mtime for p in folder.rglob("*"))
    return "\n".join(status.describe(folder, now=newest + seconds))


def test_the_images_of_an_open_end_are_counted(folder):
    config = (folder / "config.yaml").read_text()
    assert "end_id: 4" in config
    (folder / "config.yaml").write_text(config.replace("end_id: 4", "end_id: null"))
    assert "2 of 4 images done" in at(folder, 1)


def test_images_done_seconds_and_time_left(folder):
    set_records(folder, time={"image_s": 300.0})
    begun(folder, "at work")
    report = at(folder, 10)
    assert "2 of 4 images done, 300.0 s per image, about 3 min left" in report  # shard 1/2 has 63 steps of 3 s to go
    assert "shard 0/2: 2 of 2, done" in report
    assert "shard 1/2: 0 of 2, last sign 10 s ago" in report and "stopped" not in report


def test_the_slowest_of_several_processes_tells_the_time_left(folder):
    record_path(folder, 2).unlink()
    write_progress(folder / "run_shard-0-of-2.log", Progress(images=1, steps=50, steps_done=10, seconds=120.0))
    assert "about 8 min left" in at(folder, 1)  # 40 steps of 12 s
    write_progress(folder / "run_shard-0-of-2.log", Progress(images=1, steps=50))
    assert "left" not in at(folder, 1)


def test_a_silent_process_is_named_and_no_time_is_promised(folder):
    """Of another host nobody knows whether it lives."""
    assert "stopped" not in at(folder, 60 + 20 * 3)
    report = at(folder, 60 + 20 * 3 + 1)
    assert "shard 1/2: 0 of 2, last sign 2 min ago; has it stopped?" in report.replace("121 s", "2 min")
    assert "left" not in report and "at work" not in report


def test_best_particle_and_diverged_particles(folder):
    path = record_path(folder, 2)
    record, arrays = read_record(path)
    record["diverged"] = [False, True]
    record["scores"] = {name: [value[0], None] for name, value in record["scores"].items()}
    record["modes"]["psnr_aligned"] = [31.25, None]
    write_record(folder, record, arrays)
    report = at(folder, 1)
    assert "best PSNR 31.25 dB (image 2)" in report
    assert "diverged particles: 1 (image 2 p1)" in report


def test_before_the_first_record(folder):
    for path in (*folder.glob("records/*.npz"), *folder.glob("*.progress")):
        path.unlink()
    assert "0 of 4 images done\nbest PSNR: none yet" in at(folder, 1)


def test_it_changes_nothing_and_counts_damaged_records(folder):
    record_path(folder, 0).write_bytes(b"half")
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert "damaged records: 1" in at(folder, 1)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


@pytest.mark.parametrize("content", [None, b"", b"data: [", b"data: {start_id: x, end_id: 3}"])
def test_what_is_no_run_folder_is_one_line(folder, content):
    (folder / "config.yaml").unlink()
    if content is not None:
        (folder / "config.yaml").write_bytes(content)
    with pytest.raises(InputError):
        list(status.describe(folder))


def test_records_hold_json_and_arrays_only(folder):
    with np.load(record_path(folder, 0), allow_pickle=False) as archive:
        assert set(archive.files) == {"record", "y", "z", "images", "truth", "summary_mean"}  # none agrees: no spread
        json.loads(archive["record"].tobytes())


def test_a_folder_of_others_steers_no_terminal(folder, monkeypatch, capsys):
    named = folder.rename(folder.with_name("a\x1b[2J\nb"))
    monkeypatch.setattr(sys, "argv", ["status.py", str(named)])
    run(status.main)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and r"a\x1b[2J\nb: 2 of 4 images done" in shown.splitlines()[0]


def test_steps_are_told_before_the_first_image_is_done(folder):
    for path in folder.glob("records/*.npz"):
        path.unlink()
    for path in folder.glob("run_shard-0*"):
        path.unlink()
    lines = at(folder, 1).splitlines()
    assert (
        lines[0].endswith("0 of 4 images done, about 3 min left") and lines[1] == "at work: step 37 of 100, best PSNR 21.00 dB"
    )


@pytest.mark.parametrize("state", ["interrupted", "failed"])
def test_no_time_is_promised_after_an_interrupt(folder, state):
    assert "about 3 min left" in at(folder, 5)
    begun(folder, state)
    report = at(folder, 5)
    assert "left" not in report and "at work" not in report
    assert f"shard 1/2: 0 of 2, {state} 5 s ago; the same command continues" in report


def test_a_process_that_was_killed_before_its_first_image_is_not_at_work(folder, monkeypatch):
    """kill -9 leaves no word; another host's process may live."""
    for path in folder.glob("records/*.npz"):
        path.unlink()
    gone = subprocess.Popen(["true"])
    gone.wait()
    monkeypatch.setattr("utils.records.progress.os.getpid", lambda: gone.pid)
    begun(folder, "at work")
    assert "shard 1/2: 0 of 2, killed 5 s ago; the same command continues" in at(folder, 5) and "step" not in at(folder, 5)
    monkeypatch.setattr("utils.records.progress.socket.gethostname", lambda: "elsewhere")
    assert "at work: step 37" in at(folder, 5)


def test_the_next_start_takes_back_how_the_last_one_ended(folder):
    assert (folder / "run_shard-0-of-2.progress").is_file()
    RunFolder(folder, None).look_over(identity(read_yaml(folder / "config.yaml")))
    assert not list(folder.glob("*.progress"))


def test_a_folder_of_runs_is_told_run_by_run(folder, monkeypatch, capsys):
    other = shutil.copytree(folder, folder.parent / "deep" / "other")
    (other / "config.yaml").write_text("data: [")
    shutil.copytree(folder, folder.parent / "deep" / "third")
    monkeypatch.setattr(sys, "argv", ["status.py", str(folder.parent)])
    run(status.main)
    lines = capsys.readouterr().out.splitlines()
    told = [line for line in lines if "images done" in line or "cannot be read" in line]
    places = (other / "config.yaml cannot be read", other.parent / "third: 2 of 4", f"{folder}: 2 of 4")
    assert [line.startswith(str(place)) for line, place in zip(told, places, strict=True)] == [True] * 3


def test_watching_shows_it_again_until_ctrl_c(folder, monkeypatch, capsys):
    seconds = []

    def sleep(s):
        seconds.append(s)
        if len(seconds) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(status.time, "sleep", sleep)
    monkeypatch.setattr(sys, "argv", ["status.py", str(folder), "--watch", "7"])
    run(status.main)
    assert seconds == [7, 7, 7] and capsys.readouterr().out.count("2 of 4 images done") == 3
