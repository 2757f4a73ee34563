"""A tool that is killed before any one change of the disk ends well when it is given again, with the same result."""

import shutil

import pytest

from tests.worlds.kills import contents, killed
from tests.worlds.synthetic import write_run
from tools import merge_runs
from tools.evidence import keep_evidence
from utils.errors import InputError
from utils.records.claim import CLAIM
from utils.records.files import record_path, record_paths


def mended_after_every_kill(tmp_path, prepare, work, without=()):
    """The number of changes of work(folder), which after a kill at each of them ends as it does undisturbed.

    prepare(folder): fills a new folder before.
    """

    def fresh(name):
        (tmp_path / name).mkdir()
        prepare(tmp_path / name)
        return tmp_path / name

    undisturbed = fresh("undisturbed")
    work(undisturbed)
    expected = contents(undisturbed, without)
    at, was_killed = 0, True
    while was_killed:
        at += 1
        folder = fresh(f"killed_{at}")
        was_killed = killed(at, folder, lambda: work(folder))
        work(folder)
        assert contents(folder, without) == expected, f"killed before change {at}"
        shutil.rmtree(folder)
    return at - 1


def shards(folder, composed):
    """Two run folders of one configuration, one image each, and one of an image of both."""
    return [write_run(folder / "from", composed, [["0", "failed"]], name=f"shard{i}", first_image=i % 2) for i in range(3)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory, composed):
    return shards(tmp_path_factory.mktemp("shards"), composed)


@pytest.mark.heavy
def test_merge_runs(tmp_path, sources):
    changes = mended_after_every_kill(
        tmp_path, lambda folder: None, lambda folder: merge_runs.merge(folder / "merged", sources), without=(CLAIM,)
    )
    assert changes > 20, "folders, the lock, config.yaml, pictures and records, metrics.json, eval.md"


def test_what_an_older_merge_left_when_it_was_killed_is_mended(tmp_path, sources):
    merge_runs.merge(tmp_path / "whole" / "merged", sources)
    expected = contents(tmp_path / "whole", without=(CLAIM,))
    (tmp_path / "empty" / "merged" / "records").mkdir(parents=True)
    (tmp_path / "first" / "merged" / "records").mkdir(parents=True)
    shutil.copy(record_path(sources[0], 0), record_path(tmp_path / "first" / "merged", 0))
    for name in ("empty", "first"):
        merge_runs.merge(tmp_path / name / "merged", sources)
        found = contents(tmp_path / name, without=(CLAIM,))
        assert found.keys() | {"merged/samples/00000_p0.png", "merged/samples/00000_p1.png"} == expected.keys()
        assert found.items() <= expected.items()


def test_a_run_of_others_that_has_no_record_yet_is_no_leftover(tmp_path, sources, composed):
    out = tmp_path / "merged"
    merge_runs.merge(out, sources)
    for path in record_paths(out):
        path.unlink()
    (out / "config.yaml").write_text("seed: 7\n")
    before = contents(tmp_path)
    with pytest.raises(InputError, match="is not empty and holds no records"):
        merge_runs.merge(out, sources)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("count", [1, 2])
def test_keep_evidence(tmp_path, sources, count, capsys, monkeypatch):
    (sources[0] / "trivial.json").write_text("{}")

    def keep(folder):
        arguments = ["keep_evidence.py", *map(str, sources[:count]), "--to", str(folder / "evidence")]
        monkeypatch.setattr("sys.argv", arguments)
        keep_evidence.main()

    changes = mended_after_every_kill(tmp_path, lambda folder: None, keep)
    assert changes >= 4 * count, "the folder and its files"
    assert "shard0: 1 images" in capsys.readouterr().out
