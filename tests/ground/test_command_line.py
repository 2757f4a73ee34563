"""Standard streams that end before the program: a closed pipe or terminal, a full disk."""

import errno
import os
import subprocess
import sys

import pytest

from tests.worlds import runs
from utils.command_line import Lasting, lasting_streams, run, write_text
from utils.paths import PROJECT


def closed_pipe():
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


def full_disk():
    return open("/dev/full", "w")


@pytest.mark.parametrize("stream, number", [(closed_pipe, errno.EPIPE), (full_disk, errno.ENOSPC)])
def test_a_stream_that_ends_is_silent_from_then_on_and_says_so_once(stream, number):
    said = []
    with stream() as file:
        lasting = Lasting(file, said.append)
        for _ in range(3):
            print("line", file=lasting, flush=True)
        lasting.write("x" * 100_000)  # more than a buffer
        assert [error.errno for error in said] == [number] and lasting.error is said[0]
        assert lasting.encoding == file.encoding and not lasting.isatty()


def test_streams_are_lent_and_given_back(capsys, monkeypatch):
    before = sys.stdout, sys.stderr
    with lasting_streams():
        print("out")
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr) == before and capsys.readouterr().out == "out\n"
    monkeypatch.setattr(sys, "stdout", None)  # as after >&-
    with lasting_streams():
        print("nowhere")


def tool(monkeypatch, main, stream):
    with stream() as file:
        monkeypatch.setattr(sys, "stdout", file)
        run(main)


def test_a_tool_that_nobody_reads_ends_its_work(monkeypatch, tmp_path):
    def main():
        for _ in range(3):
            print("line", flush=True)
        write_text("done", tmp_path / "out")

    tool(monkeypatch, main, closed_pipe)
    assert (tmp_path / "out").read_text() == "done"


def test_a_tool_whose_output_cannot_be_written_ends_in_one_line(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        tool(monkeypatch, lambda: write_text("table\n", None), full_disk)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: standard output cannot be written (No space left on device)\n"


def test_a_tool_of_another_checkout_is_not_run(tmp_path, monkeypatch, capsys):
    """An environment that two checkouts share installs the modules of one of them."""
    ran = []
    for parts in ("utils/command_line.py", "tools/report.py"):
        (tmp_path / parts).parent.mkdir()
        (tmp_path / parts).touch()
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "tools" / "report.py")])
    with pytest.raises(SystemExit) as ended:
        run(lambda: ran.append(1))
    assert ended.value.code == 2 and not ran
    assert f"report.py: this environment has the modules of {PROJECT}; write PYTHONPATH={tmp_path} " in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [str(PROJECT / "tools" / "report.py")])
    run(lambda: ran.append(1))
    assert ran


def test_a_tool_that_is_interrupted_shows_no_traceback(capsys):
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        run(main)
    assert ended.value.code == 130 and capsys.readouterr().err == "interrupted\n"


@pytest.mark.program
@pytest.mark.parametrize("stream, reason", [(closed_pipe, "Broken pipe"), (full_disk, "No space left on device")])
def test_a_run_outlives_its_streams(tmp_path, tiny, stream, reason):
    with stream() as file:
        done = subprocess.run(
            [sys.executable, "posterior_sample.py", *tiny],
            stdout=file,
            stderr=file,
            cwd=runs.PROJECT,
            env=runs.environment(),
        )
    folder = tmp_path / "results" / "run"
    assert done.returncode == 0 and runs.metrics_of(folder)["metadata"]["image_ids"] == [0, 1]
    log = (folder / "run.log").read_text()
    for name in ("standard error", "standard output"):
        assert f"{name} cannot be written ({reason}); the run goes on" in log
    assert log.count("image 1: ") == 1 and (folder / "trace.png").exists()
