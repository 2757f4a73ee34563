"""Kept runs: one file of records gives what the run folder gave, and a damaged one ends in one line."""

import gzip
import json
import sys
import time

import numpy as np
import pytest

from tests.worlds.synthetic import write_run
from tools import merge_runs, parse_metrics, status
from tools.evidence import keep_evidence
from utils.analysis import runs
from utils.command_line import run as run_tool
from utils.config.fingerprint import fingerprint
from utils.errors import InputError
from utils.records.files import RecordError, read_record, record_path, record_paths, write_record
from utils.records.kept import KEPT, packed, read_kept, read_records

FOUR = [["0", "failed", "180", "failed"], ["failed", "0", "0", "failed"], ["failed"] * 4]


@pytest.fixture
def full(tmp_path, composed):
    return write_run(tmp_path / "full", composed, FOUR, pictures=False)


@pytest.fixture
def kept(full, tmp_path):
    keep_evidence.keep(full, tmp_path / "kept" / "exp0")
    return tmp_path / "kept" / "exp0"


def lines_of(folder):
    return gzip.decompress((folder / KEPT).read_bytes()).splitlines(keepends=True)


def pack(folder, lines):
    (folder / KEPT).write_bytes(gzip.compress(b"".join(lines)))


def edited(line, **changes):
    return json.dumps(json.loads(line) | changes).encode() + b"\n"


@pytest.mark.program
@pytest.mark.parametrize(
    "overrides",
    [(), ("task=hdr",), ("repulsion_scale=0.3", "pruning_step=700", "optimization_step=400", "optimization.max_iterations=1")],
)
def test_a_real_run_keeps_its_metrics(run, tmp_path, overrides):
    folder, metrics = run(*overrides)
    kept = tmp_path / "kept" / folder.name
    assert keep_evidence.keep(folder, kept) == 2
    assert sorted(path.name for path in kept.iterdir()) == ["config.yaml", KEPT]
    found = runs.load(kept)
    assert found.metrics == runs.load(folder).metrics
    config, whole = found.config, runs.load(folder).config
    assert list(config["task"]) == [config["task_group"]] and len(whole["task"]) > 1
    assert {**whole, "task": config["task"]} == config and fingerprint(config) == fingerprint(whole)
    assert json.loads(found.metrics.model_dump_json(by_alias=True, exclude_unset=True)) == metrics
    for (full, _), (record, arrays) in zip(read_records(folder), read_records(kept), strict=True):
        for name in ("psnr", "loss"):
            assert full["trace"].pop(name)
        assert record == full and list(record) == list(full) and arrays == {}


def measured_on_the_way(record):
    """The distances of the trace, the channels' losses of the first event and the steps' seconds, which it takes out."""
    trace, events, time = record.pop("trace"), record.pop("recombination")["events"], record.pop("time")
    losses = [value for particle in events[0]["particles"] for value in particle["loss"]]
    return np.array(trace["pairwise_distance"]), np.array(losses), np.array(time["step_s"])


@pytest.mark.program
def test_rounded_runs_differ_in_what_was_measured_on_the_way_alone(run, tmp_path):
    folder, _ = run("recombination_step=700", "recombination.excess=0")
    exact, rounded = tmp_path / "exact" / folder.name, tmp_path / "rounded" / folder.name
    keep_evidence.keep(folder, exact)
    keep_evidence.keep(folder, rounded, digits=5)
    assert (rounded / KEPT).stat().st_size < (exact / KEPT).stat().st_size
    for (record, _), (other, _) in zip(read_records(exact), read_records(rounded), strict=True):
        for one, near in zip(measured_on_the_way(record), measured_on_the_way(other), strict=True):
            assert np.any(one != near) and np.allclose(one, near, rtol=1e-4, atol=0)
            assert all(float(f"{value:.5g}") == value for value in near)
        assert record == other


@pytest.mark.heavy
@pytest.mark.parametrize("form", [(), ("--format", "csv"), ("--format", "json"), ("--format", "csv", "--per-image")])
def test_tables_of_both_forms_are_equal(tmp_path, composed, monkeypatch, capsys, form):
    pruned = [["0", None, "180", None], ["180", "0", None, None]]
    switches = ("pruning_step=200", "optimization_step=200")
    write_run(tmp_path / "full" / "results", composed, FOUR, name="exp0")
    folder = write_run(tmp_path / "full" / "results", composed, pruned, name="exp4", overrides=switches, first_image=1)
    with (folder / "config.yaml").open("a") as config:  # of a retired clock, whose timesteps the records alone hold
        config.write("step_clock: noise\n")
    for name in ("exp0", "exp4"):
        keep_evidence.keep(tmp_path / "full" / "results" / name, tmp_path / "kept" / "results" / name)
    printed = {}
    for folder in ("full", "kept"):
        monkeypatch.chdir(tmp_path / folder)
        monkeypatch.setattr(sys, "argv", ["parse_metrics.py", "results", "--common", "--best-of", "2", *form])
        run_tool(parse_metrics.main)
        printed[folder] = capsys.readouterr().out
    assert printed["full"] == printed["kept"] and "exp4" in printed["kept"]


@pytest.mark.heavy
def test_kept_runs_are_found_among_others_and_called_what_their_folders_are_called(tmp_path, composed, monkeypatch):
    for name in ("a", "b", "c"):
        write_run(tmp_path / "full", composed, FOUR, name=name)
    keep_evidence.keep(tmp_path / "full" / "a", tmp_path / "mixed" / "deep" / "renamed")
    keep_evidence.keep(tmp_path / "full" / "b", tmp_path / "mixed" / "b")
    (tmp_path / "full" / "c").rename(tmp_path / "mixed" / "c")
    found = runs.find([tmp_path / "mixed", tmp_path / "mixed" / "b", tmp_path / "mixed" / "b" / KEPT])
    inside = [path.relative_to(tmp_path / "mixed").as_posix() for path in found]
    assert inside == [f"b/{KEPT}", "c/metrics.json", f"deep/renamed/{KEPT}"]
    assert [runs.load(path).name for path in found] == ["b", "c", "renamed"]
    monkeypatch.chdir(tmp_path / "mixed" / "b")
    assert [runs.load(path).name for path in runs.find(["."])] == ["b"]


def test_equal_records_give_equal_bytes(full, tmp_path, monkeypatch):
    records = [record for record, _ in read_records(full)]
    written = []
    for now, order in ((0.0, 1), (2e9, -1)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        written.append(packed(records[::order]))
    (tmp_path / KEPT).write_bytes(written[0])
    assert written[0] == written[1]
    assert written[0][3] == 0 and written[0][4:8] == bytes(4), "neither a file name nor a time in the header"
    assert [json.loads(line)["image_id"] for line in lines_of(tmp_path)] == [0, 1, 2]


def test_records_stripped_one_by_one_and_kept_ones_are_kept_as_the_same_file(full, kept, tmp_path):
    assert not any(read_record(path)[1] for path in record_paths(full)), "this run holds stripped records"
    keep_evidence.keep(kept, tmp_path / "again")
    assert {p.name: p.read_bytes() for p in (tmp_path / "again").iterdir()} == {p.name: p.read_bytes() for p in kept.iterdir()}


@pytest.mark.heavy
def test_a_run_of_more_than_a_hundred_thousand_images_is_read_in_their_order(tmp_path, composed):
    folder = write_run(tmp_path, composed, [["0"]] * 3, first_image=99_999, pictures=False)
    assert [record["image_id"] for record, _ in read_records(folder)] == [99_999, 100_000, 100_001]
    assert runs.load(folder, from_records=True).metrics.metadata.image_ids == [99_999, 100_000, 100_001]


def test_the_records_of_a_kept_run_are_read_once(kept, monkeypatch):
    found = runs.load(kept)
    monkeypatch.setattr(runs, "read_records", None)
    assert [record["image_id"] for record, arrays in found.records(1) if arrays == {}] == [0]
    assert [record["image_id"] for record, _ in found.only({1}).records()] == [1]


def test_only_wanted_images_are_read(full, kept):
    record_path(full, 2).write_bytes(b"damaged")
    for folder in (full, kept):
        assert [record["image_id"] for record, _ in read_records(folder, images=[0, 1, 7])] == [0, 1]
    with pytest.raises(InputError, match="00002.npz: damaged record"):
        runs.load(full, from_records=True)


def test_beside_arrays_a_record_needs_its_whole_trace(tmp_path, composed):
    path = record_path(write_run(tmp_path, composed, FOUR), 1)
    record, arrays = read_record(path)
    del record["trace"]["loss"]
    write_record(path.parent.parent, record, arrays)
    with pytest.raises(RecordError, match="trace.loss: Field required"):
        read_record(path)


DAMAGE = {
    "cut at the end": (lambda content, lines: content[:-9], "damaged after line 3 (Compressed file ended"),
    "no longer gzip": (lambda content, lines: b"PK" + content[2:], "damaged after line 0 (Not a gzipped file"),
    "empty": (lambda content, lines: b"", "line 1: holds no record"),
    "wrong sum": (lambda content, lines: content[:-8] + b"xxxx" + content[-4:], "damaged after line 3 (CRC check failed"),
    "half a line": (lambda content, lines: gzip.compress(lines[0] + lines[1][:99]), "line 2: not JSON (JSONDecodeError:"),
    "noise": (
        lambda content, lines: gzip.compress(lines[0] + b"\xff\xfe\n" + lines[1]),
        "line 2: not JSON (UnicodeDecodeError:",
    ),
    "nested": (lambda content, lines: gzip.compress(b"[" * 100_000), "line 1: not JSON (RecursionError:"),
    "blank": (lambda content, lines: gzip.compress(lines[0] + b"\n" + lines[1]), "line 2: not JSON"),
    "a list": (lambda content, lines: gzip.compress(lines[0] + b"[]\n"), "line 2: damaged record"),
    "no schema": (
        lambda content, lines: gzip.compress(lines[0] + lines[1] + edited(lines[2], schema=None)),
        "line 3: damaged record (schema: Input should be 1)",
    ),
    "a bomb": (lambda content, lines: gzip.compress(lines[0] + b" " * 2**25), "line 2: unpacks to far more than a record"),
    "a bomb of lines": (
        lambda content, lines: gzip.compress(b"".join(edited(lines[0], image_id=i, _=" " * 2**22) for i in range(20))),
        "unpacks to far more than a record",
    ),
    "no scores": (lambda content, lines: gzip.compress(edited(lines[0], scores=None)), "line 1: damaged record (scores"),
    "twice": (
        lambda content, lines: gzip.compress(b"".join(lines[:2] + lines[1:])),
        "line 3: image 1 stands in line 2 already",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_one_line_that_names_file_line_and_remedy(kept, monkeypatch, capsys, name):
    damage, message = DAMAGE[name]
    (kept / KEPT).write_bytes(damage((kept / KEPT).read_bytes(), lines_of(kept)))
    monkeypatch.setattr(sys, "argv", ["parse_metrics.py", str(kept.parent)])
    with pytest.raises(SystemExit) as stop:
        run_tool(parse_metrics.main)
    out, error = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and error.count("\n") == 1
    assert error.startswith(f"error: {kept / KEPT}: ") and message in error
    assert error.endswith("; keep the run again with tools/evidence/keep_evidence.py\n")


@pytest.mark.heavy
def test_however_a_file_is_cut_or_changed_it_is_one_line_or_the_same_records(kept):
    good, records = (kept / KEPT).read_bytes(), read_kept(kept / KEPT)
    rng, refused = np.random.default_rng(0), 0
    for position in range(len(good)):
        other = bytes([good[position] ^ int(rng.integers(1, 256))]) + good[position + 1 :]
        (kept / KEPT).write_bytes(good[:position] + (b"" if position % 20 == 0 else other))
        try:
            assert runs.load(kept).records() == [(record, {}) for record in records]
        except InputError as error:
            assert str(kept / KEPT) in str(error) and " line " in str(error) and "\n" not in str(error)
            refused += 1
    assert refused >= len(good) - 7, "of the header alone flags, time and system may change unnoticed"


@pytest.mark.parametrize("change", [{"fingerprint": "other"}, {"modes": None}])
def test_records_of_several_configurations_are_refused(kept, change):
    first, second, third = lines_of(kept)
    pack(kept, [first, edited(second, **change), third])
    with pytest.raises(InputError, match="the records of images 0 and 1 belong to different configurations"):
        runs.load(kept)


def test_records_that_do_not_fit_together_are_one_line(kept):
    first, second, third = lines_of(kept)
    pack(kept, [first, edited(second, time=json.loads(second)["time"] | {"step_s": [0.1]}), third])
    with pytest.raises(InputError, match="time.per_step_s has not the same number of steps"):
        runs.load(kept)


def test_metrics_beside_kept_records_are_held_to_them(full, kept):
    (kept / "metrics.json").write_bytes((full / "metrics.json").read_bytes())
    assert runs.load(kept, from_records=True).metrics == runs.load(full).metrics
    pack(kept, lines_of(kept)[:2])
    with pytest.raises(InputError, match="has 3 images, its records have 2"):
        runs.load(kept, from_records=True)


def contradicted(folder):
    content = json.loads((folder / "metrics.json").read_text())
    content["psnr"]["max"][0] += 1
    (folder / "metrics.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change, message",
    [
        (contradicted, "psnr differs from its records"),
        (lambda folder: record_path(folder, 1).unlink(), "has 3 images, its records have 2"),
        (lambda folder: [path.unlink() for path in record_paths(folder)], "is no finished run (it has no records)"),
        (lambda folder: (folder / "metrics.json").unlink(), f"holds no metrics.json or {KEPT}"),
        (lambda folder: folder.rename(folder.with_name("moved")), "no such folder"),
    ],
)
def test_what_cannot_be_kept_is_one_line_and_leaves_nothing(full, tmp_path, change, message):
    change(full)
    with pytest.raises(InputError) as caught:
        keep_evidence.keep(full, tmp_path / "kept")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "kept").exists()


def test_a_run_is_kept_whole_or_does_not_count(full, kept, tmp_path, monkeypatch):
    assert keep_evidence.keep(full, kept) == len(FOUR), "the same run again changes nothing"
    for path, content in ((kept / "notes.txt", "mine"), (kept / "config.yaml", "seed: 1\n")):
        before = path.read_bytes() if path.exists() else None
        path.write_text(content)
        with pytest.raises(InputError, match="exists already"):
            keep_evidence.keep(full, kept)
        assert path.read_text() == content
        path.unlink() if before is None else path.write_bytes(before)
    monkeypatch.setattr(keep_evidence, "write_atomically", lambda path, content: 1 / 0)  # the disk is full at config.yaml
    with pytest.raises(ZeroDivisionError):
        keep_evidence.keep(full, tmp_path / "half" / "exp0")
    with pytest.raises(InputError, match=f"half: holds no metrics.json or {KEPT}"):
        runs.find([tmp_path / "half"])


def test_what_needs_a_run_folder_says_so(full, kept, tmp_path):
    with pytest.raises(InputError, match=f"kept/exp0: a finished run kept in {KEPT}; name the run folder"):
        list(status.describe(kept))
    with pytest.raises(InputError, match=f"kept/exp0: a finished run kept in {KEPT}; merge the run folders"):
        merge_runs.merge(tmp_path / "out", [full, kept])
    assert not (tmp_path / "out").exists()


@pytest.mark.program
def test_a_kept_run_does_not_go_on(run, tmp_path):
    folder, _ = run()
    keep_evidence.keep(folder, tmp_path / "kept")
    folder.rename(tmp_path / "elsewhere")
    (tmp_path / "kept").rename(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InputError, match=f"name=run: .*holds a run kept in {KEPT}, which cannot go on; choose another name="):
        run("data.end_id=3")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
