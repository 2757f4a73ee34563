"""A run folder belongs to one configuration while anybody is at work in it."""

import multiprocessing
import os
import shutil
import signal
import threading
import time

import pytest

from tests.worlds import synthetic
from utils.config.check import check
from utils.data import select_images
from utils.errors import InputError
from utils.files import PARTIAL
from utils.records.claim import claim_path, claimed, unclaimed
from utils.records.files import read_record, record_paths
from utils.records.folder import RunFolder
from utils.running.ranks import Rank

ALONE = Rank()


@pytest.fixture
def opened(composed, tmp_path):
    """opened(*overrides, rank) -> the run folder tmp_path/run, held while the context lasts."""
    return lambda *overrides, rank=ALONE: RunFolder.open(check(composed(f"save_dir={tmp_path}", "name=run", *overrides)), rank)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_another_configuration_is_refused_before_the_first_record_and_touches_nothing(opened):
    with opened("seed=1") as folder:
        before = contents(folder.path)
        with pytest.raises(InputError, match=f"another configuration is at work.*host .*process {os.getpid()}") as refused:
            opened("seed=2").__enter__()
        assert "\n" not in str(refused.value)
        assert contents(folder.path) == before
    with opened("seed=2"):  # it ended without a record, so it holds nothing
        pass


def test_identical_runs_shards_and_ranks_share(opened, monkeypatch):
    monkeypatch.setattr(Rank, "wait_for_first", lambda rank, event: None)
    with opened("shard=0/2"), opened("shard=0/2"), opened("shard=1/2", "data.end_id=2"), opened(rank=Rank(1, 2, 1)):
        with pytest.raises(InputError, match="at work"):
            opened("seed=2").__enter__()


def test_what_was_read_to_open_a_folder_is_not_read_once_more_to_see_what_is_left(opened, monkeypatch):
    reads, records = [], RunFolder.records
    monkeypatch.setattr(RunFolder, "records", lambda *arguments, **named: reads.append(1) or records(*arguments, **named))
    with opened() as folder:
        assert folder.pending([]) == [] and len(reads) == 1
        assert folder.pending([]) == [] and len(reads) == 2  # by now others may have written some


def test_other_images_or_weights_under_the_same_names_are_refused_while_a_run_is_at_work(composed, tmp_path, tiny_images):
    """And one process that selects others, or does not know the weights yet, is let in."""
    images = shutil.copytree(tiny_images, tmp_path / "images")
    settings = check(composed(f"save_dir={tmp_path}", "name=run", f"data.root={images}", "data.end_id=3"))
    more = check(composed(f"save_dir={tmp_path}", "name=run", f"data.root={images}", "data.start_id=2", "data.end_id=5"))
    with RunFolder.open(settings, ALONE, select_images(settings)):
        (images / "00004.png").write_bytes((images / "00000.png").read_bytes())  # outside the first selection
        with RunFolder.open(more, ALONE, select_images(more)):
            pass
        (images / "00002.png").write_bytes((images / "00000.png").read_bytes())
        for content, name in ((select_images(settings), "image 2"), (select_images(more), "image 2")):
            with pytest.raises(InputError, match=rf"^name=run: a run with another content of {name} is at work in .*process"):
                RunFolder.open(settings, ALONE, content).__enter__()
    fingerprint = settings.composition.fingerprint
    with claimed(tmp_path / "run", fingerprint, content={"model.path": "0"}):
        with claimed(tmp_path / "run", fingerprint, content={"image 0": "1"}), claimed(tmp_path / "run", fingerprint):
            pass
        with pytest.raises(InputError, match="another content of model.path"):
            claimed(tmp_path / "run", fingerprint, content={"model.path": "1"}).__enter__()
    with RunFolder.open(settings, ALONE, select_images(settings)):  # nobody is at work there any more
        pass


def test_resume_false_is_refused_while_another_is_at_work(opened):
    with opened() as folder:
        before = contents(folder.path)
        with pytest.raises(InputError, match="resume=false: a run is at work"):
            opened("resume=false").__enter__()
        assert contents(folder.path) == before and not folder.path.with_name("run.1").exists()


def hold_and_die(folder):
    with claimed(folder, "of the killed"):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("text", [None, "", '{"fingerprint": "of the ki', "[1]"])
def test_a_killed_run_leaves_no_claim_behind(tmp_path, text):
    """Nor does one whose kill left the file half written."""
    killed = multiprocessing.get_context("fork").Process(target=hold_and_die, args=(tmp_path,))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL and "of the killed" in claim_path(tmp_path).read_text()
    if text is not None:
        claim_path(tmp_path).write_text(text)
    with claimed(tmp_path, "another"):
        assert '"fingerprint": "another"' in claim_path(tmp_path).read_text()


def test_what_looking_over_refuses_is_not_claimed(tmp_path):
    def refuse():
        raise InputError("no")

    with pytest.raises(InputError, match="no"), claimed(tmp_path, "one", refuse):
        pass
    assert claim_path(tmp_path).read_text() == ""


def test_who_waits_while_the_folder_is_moved_aside_claims_the_new_one(tmp_path):
    folder, looked_over = tmp_path / "run", []
    folder.mkdir()

    def wait():
        with claimed(folder, "new", lambda: looked_over.append(folder)):
            pass

    waiting = threading.Thread(target=wait)
    with unclaimed(folder):
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        folder.rename(tmp_path / "run.1")
    waiting.join(30)
    assert looked_over and claim_path(tmp_path / "run.1").read_text() == "" and "new" in claim_path(folder).read_text()


def test_a_record_of_another_configuration_is_never_overwritten(tmp_path, composed):
    """Even where no lock kept its run out; a damaged one is set aside."""
    own, other = (synthetic.write_run(tmp_path, composed, [["0"]], name=name) for name in ("own", "other"))
    record, arrays = read_record(record_paths(own)[0])
    there = record_paths(other)[0]
    RunFolder(other, "1").prepare()
    before = contents(other)
    with pytest.raises(InputError, match="00000.npz belongs to another configuration and is kept"):
        RunFolder(other, "1").write(record | {"fingerprint": "1"}, arrays)
    assert contents(other) == before
    there.write_bytes(b"half")
    RunFolder(other, "1").write(record | {"fingerprint": "1"}, arrays)
    assert there.with_name("00000.npz.damaged").read_bytes() == b"half" and read_record(there)[0]["fingerprint"] == "1"


def test_leftovers_of_killed_processes_are_removed_only_while_nobody_else_is_at_work(opened):
    """Whatever the clocks of the machines say."""
    with opened() as folder:
        half = folder.path / "records" / f".00001.npz.x{PARTIAL}"
        half.write_bytes(b"half")
        os.utime(half, (time.time() - 10_000,) * 2)
        with opened():
            assert half.exists()
    with opened():
        assert not half.exists()


def test_files_that_the_program_did_not_write_stay_in_a_run_folder(opened):
    with opened() as folder:
        pass
    foreign = [folder.path / name for name in (".notes.partial", "records/mine.npz", "records/.x.partial", f"sub/.x{PARTIAL}")]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
        os.utime(path, (time.time() - 10_000,) * 2)
    with opened() as folder:
        assert folder.records() == {}
    assert all(path.read_text() == "mine" for path in foreign)


def test_resume_false_moves_a_run_from_before_there_was_a_lock(opened):
    with opened() as folder:
        claim_path(folder.path).unlink()
    with opened("resume=false"):
        assert (folder.path.with_name("run.1") / "config.yaml").exists()
