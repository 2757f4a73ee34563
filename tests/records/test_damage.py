"""Damage is told from trouble: a damaged record is set aside and sampled again, a good one stays when memory is short."""

import errno
import io
import json
import logging
import os
import subprocess
import sys
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from tests.worlds.synthetic import write_run
from tools import status
from utils.analysis import runs
from utils.analysis.experiments import gather
from utils.errors import InputError
from utils.figures import comparison
from utils.mechanisms import registry
from utils.paths import PROJECT
from utils.records import files
from utils.records.aggregate import aggregate
from utils.records.births import births
from utils.records.files import RecordError, read_record, record_path
from utils.records.folder import RunFolder
from utils.records.kept import KEPT, packed, read_kept
from utils.records.record import problem
from utils.records.summary import eval_markdown

LABELS = [["0", "180"], ["failed", "0"]]


@pytest.fixture
def folder(tmp_path, composed):
    return write_run(tmp_path, composed, LABELS, means=[20.0, 21.0])


def rewritten(path, record=None, **changes):
    """Writes a record with other arrays, None for one that is missing."""
    content, arrays = read_record(path)
    arrays = {name: array for name, array in (arrays | changes).items() if array is not None}
    text = json.dumps(content if record is None else record(content)).encode()
    np.savez_compressed(path, record=np.frombuffer(text, np.uint8), **arrays)


def with_member(path, name, content):
    """Replaces one member of the archive by other bytes."""
    with zipfile.ZipFile(path) as archive:
        members = {entry: archive.read(entry) for entry in archive.namelist()} | {name: content}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in members.items():
            archive.writestr(entry, data)


def numpy_file(array):
    packed = io.BytesIO()
    np.save(packed, array)
    return packed.getvalue()


def lying(shape):
    """A .npy file whose header says more than it holds."""
    packed = io.BytesIO()
    np.lib.format.write_array_header_1_0(packed, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return packed.getvalue() + bytes(64)


def replaced(path, make):
    path.unlink()
    make(path)


def not_a_number(array):
    array = array.copy()
    array.flat[0] = np.nan
    return array


DAMAGE = {
    "y is missing": lambda path: rewritten(path, y=None),
    "truth is missing": lambda path: rewritten(path, truth=None),
    "the mean is missing": lambda path: rewritten(path, summary_mean=None),
    "latents of one particle more": lambda path: rewritten(path, z=np.zeros((3, 4, 8, 8), np.float32)),
    "one picture too few": lambda path: rewritten(path, images=np.zeros((1, 16, 16, 3), np.uint8)),
    "a truth of another size": lambda path: rewritten(path, truth=np.zeros((8, 8, 3), np.uint8)),
    "a spread of another size": lambda path: rewritten(path, summary_std=np.zeros((3, 8, 8), np.float16)),
    "y is a number": lambda path: rewritten(path, y=np.float32(1)),
    "latents not finite": lambda path: rewritten(path, z=not_a_number(read_record(path)[1]["z"])),
    "y infinite": lambda path: rewritten(path, y=np.full((3, 24, 24), np.inf, np.float32)),
    "nothing of y known": lambda path: rewritten(path, y=np.full((3, 24, 24), np.nan, np.float32)),
    "a spread not finite": lambda path: rewritten(path, summary_std=np.full((3, 16, 16), np.nan, np.float16)),
    "a bomb": lambda path: with_member(path, "y.npy", numpy_file(np.zeros((3, 8192, 8192), np.float32))),
    "more promised than there": lambda path: with_member(path, "y.npy", lying((10**6, 10**6))),
    "objects": lambda path: with_member(path, "y.npy", numpy_file(np.array([{}], object))),
    "a record without end": lambda path: with_member(path, "record.npy", numpy_file(np.full(2**26, 32, np.uint8))),
    "a nested record": lambda path: with_member(path, "record.npy", numpy_file(np.frombuffer(b"[" * 10**5, np.uint8))),
    "a pipe": lambda path: replaced(path, os.mkfifo),
    "a device": lambda path: replaced(path, lambda p: p.symlink_to("/dev/zero")),
    "a folder": lambda path: replaced(path, lambda p: p.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_record_is_found_set_aside_and_not_counted(folder, damage):
    path = record_path(folder, 1)
    damage(path)
    tracemalloc.start()
    with pytest.raises(RecordError) as caught:
        read_record(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26 and "\n" not in str(caught.value), "what a file says of itself is compared before it is read"
    assert list(RunFolder(folder, "x").records()) == [0]
    assert os.path.lexists(path.with_name("00001.npz.damaged")) and not os.path.lexists(path)


def test_members_that_would_begin_before_their_file_are_damage(folder):
    path = record_path(folder, 1)
    content = bytearray(path.read_bytes())
    content[-6:-2] = (2**30).to_bytes(4, "little")  # where the central directory begins: all members then lie before the file
    path.write_bytes(content)
    with pytest.raises(RecordError, match="damaged record"):
        read_record(path)


@pytest.fixture
def unpacked(monkeypatch):
    """Names of the members that are read whole from now on."""
    names, read = [], files._array
    monkeypatch.setattr(files, "_array", lambda archive, entry: names.append(entry.filename) or read(archive, entry))
    return names


ASKED = {
    "tools/status.py": lambda folder: status.read(folder),
    "the metrics of a run": lambda folder: RunFolder(folder, "0").aggregate(),
    "parse_metrics.py --from-records": lambda folder: runs.load(folder, from_records=True),
    "parse_metrics.py --common": lambda folder: runs.load(folder).only({0}),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_who_asks_for_numbers_reads_no_arrays_and_each_record_once(folder, unpacked, ask):
    ask(folder)
    assert unpacked == ["record.npy"] * 2


def test_the_pages_of_a_report_read_of_all_images_only_what_they_draw(folder, unpacked):
    comparison.transfer_functions(gather([runs.load(folder)], pool=False)[0])
    assert unpacked == ["summary_prtf.npy"] * 2


@pytest.mark.parametrize("damage", ["a bomb", "a pipe"])
def test_an_array_of_a_damaged_file_is_one_line(folder, damage):
    DAMAGE[damage](record_path(folder, 1))
    with pytest.raises(InputError, match="00001.npz: damaged record"):
        runs.load(folder).arrays("summary_prtf")


@pytest.mark.parametrize("damage", ["y is missing", "one picture too few", "more promised than there", "a bomb", "a pipe"])
def test_type_and_shape_of_arrays_are_looked_at_though_they_are_not_read(folder, damage):
    DAMAGE[damage](record_path(folder, 1))
    with pytest.raises(RecordError):
        read_record(record_path(folder, 1), wanted=())


@pytest.mark.program
@pytest.mark.parametrize(
    "tool, spared",
    [
        ("status", {"scipy", "matplotlib", "torch"}),
        ("parse_metrics", {"scipy.stats", "matplotlib", "torch"}),
        ("report", {"scipy.stats", "torch"}),
    ],
)
def test_a_tool_of_finished_runs_starts_without_what_it_may_not_need(tool, spared):
    command = [sys.executable, "-c", f"import sys, tools.{tool}; print(*sys.modules)"]
    imported = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split()
    assert f"tools.{tool}" in imported and not spared & set(imported)


def test_pixels_that_were_not_measured_and_particles_that_diverged_are_no_damage(folder):
    path = record_path(folder, 1)
    y, z = (not_a_number(read_record(path)[1][name]) for name in ("y", "z"))
    rewritten(path, lambda record: record | {"diverged": [True, False]}, y=y, z=z)
    assert np.isnan(read_record(path)[1]["y"]).sum() == np.isnan(read_record(path)[1]["z"]).sum() == 1


TROUBLE = {
    "memory": (MemoryError(), "Cannot allocate memory"),
    "memory of the library": (zlib.error("Error -4 while decompressing data: "), "Cannot allocate memory"),
    "disk": (OSError(errno.EIO, "Input/output error"), "Input/output error"),
}


@pytest.mark.parametrize("error, reason", TROUBLE.values(), ids=TROUBLE)
def test_trouble_while_reading_leaves_a_good_record_where_it_is(folder, monkeypatch, error, reason):
    def fails(*_):
        raise error

    before = record_path(folder, 1).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(files, "_array" if error.args[:1] != (errno.EIO,) else "open_regular", fails)
        with pytest.raises(InputError, match=f"00000.npz cannot be read .{reason}"):
            RunFolder(folder, "x").records()
        with pytest.raises(InputError, match=reason):
            runs.load(folder, from_records=True)
    assert list(RunFolder(folder, "x").records()) == [0, 1] and record_path(folder, 1).read_bytes() == before


def test_a_record_of_a_newer_program_is_refused_and_stays(folder, tmp_path):
    path = record_path(folder, 1)
    rewritten(path, lambda record: record | {"schema": 2, "particles": "of another form"})
    before = path.read_bytes()
    for read in (lambda: read_record(path), RunFolder(folder, "x").records, lambda: runs.load(folder, from_records=True)):
        with pytest.raises(InputError, match="record of schema 2, and this program reads 1; use the newer program"):
            read()
    assert path.read_bytes() == before
    newer = read_record(record_path(folder, 0))[0] | {"schema": 2}
    (tmp_path / KEPT).write_bytes(packed([newer]))
    with pytest.raises(InputError, match="line 1: record of schema 2"):
        read_kept(tmp_path / "records.jsonl.gz")


# --- blocks of mechanisms ----------------------------------------------------------------------------------------

RECOMBINED = {"index": 0, "donors": [1, 0, 0], "turned": [False] * 3, "loss": [1.0] * 3, "score": [1.0], "accepted": True}
BLOCKS = {
    "recombination": {"events": [{"step_index": 3, "timestep": 500.0, "particles": [RECOMBINED]}]},
    "tree": {"step_index": 3, "timestep": 500.0, "stay": True, "parent": {"1": 0}},
    "start": {"step_index": 3, "timestep": 500.0, "particles": [0], "rank": [0], "residual": [1.0], "turned": [False]},
    "polish": {"step_index": 3, "kept": [0, 1], "dropped": [], "loss": [1.0, 2.0]},
    "mechanisms": {"own": {"parent": {"1": 0}, "stay": False}},
}
JUNK = (None, [], {}, "x", -1, [None], [["x"]], {"a": [1]})


def places(value, place=()):
    if place:
        yield place
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*place, key))


def other(value, place, *junk):
    """A copy with one place replaced by junk, or removed."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    if junk:
        inner[place[-1]] = junk[0]
    else:
        del inner[place[-1]]
    return copy


def use(record):
    """What a run and its pictures ask of a record."""
    eval_markdown(aggregate([record], "run").content())
    assert all(isinstance(birth.gain, int) for birth in births(record.get("mechanisms", {}).values()))
    for particle in record["particles"]:
        registry.absence(record, particle)


def test_blocks_of_the_wrong_form_are_found_when_read(tmp_path, composed):
    switches = ("pruning_step=200", "optimization_step=200")
    whole = read_record(record_path(write_run(tmp_path, composed, LABELS, overrides=switches), 0))[0] | BLOCKS
    assert problem(whole, {}) is None
    use(whole)
    blocks = {name: whole[name] for name in (*BLOCKS, "pruning", "optimization")}
    tried = [other(blocks, place, *junk) for place in places(blocks) for junk in ((), *((each,) for each in JUNK))]
    found = 0
    for changed in tried:
        record = {**{key: value for key, value in whole.items() if key not in blocks}, **changed}
        if problem(record, {}):
            found += 1
        else:
            use(record)
    assert found > 0.7 * len(tried)


def test_records_that_are_whole_but_not_of_one_run_are_one_line(folder):
    one, another = (read_record(record_path(folder, image))[0] for image in (0, 1))
    one["population"] = {"rounds": [{"particles": [0, 1], "passing": [0]}], "signals": {}, "accepted": True, "rule": {}}
    assert problem(one, {}) is None
    with pytest.raises(InputError, match="records of run: only some of them have 'population'"):
        aggregate([one, another], "run")


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("latentdaps").setLevel(logging.CRITICAL)
