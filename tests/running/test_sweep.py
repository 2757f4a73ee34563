"""Sweeps: numbered jobs with folders of their own, errors said once, one closing table; and the bars over them."""

import re
import sys

import pytest

from tests.worlds import runs
from utils.callbacks.base import OfImage, Step
from utils.config.check import check
from utils.config.compose import compose
from utils.records.progress import Progress, read_progress, write_progress
from utils.running import watching
from utils.running.console import progress_bar
from utils.running.ranks import Rank
from utils.running.sweep import Sweep, swept, with_own_name
from utils.running.watching import Watch


@pytest.mark.parametrize(
    "arguments, keys, count",
    [
        (["-m", "seed=1,2", "num_samples=range(1,4)", "name=x"], ["seed", "num_samples"], 6),
        (["-m", "sampler=fast,short"], ["sampler"], 2),
        (["-m", "experiment=glob(*)"], ["experiment"], None),
        (["-m", "name='a,b'"], [], None),
        (["/folder/of/submitit"], [], None),
    ],
)
def test_a_command_line_tells_how_many_jobs_it_has(arguments, keys, count):
    assert swept(arguments) == (keys, count)


@pytest.mark.parametrize(
    "overrides, name",
    [
        (["repulsion_scale=0.1"], "demo_repulsion_scale-0.1"),
        (["sampler=fast", "+callbacks.mine.x=1", "seed=3"], "demo_sampler-fast_seed-3"),
        (["shard=1/2", "data.end_id=3"], "demo"),  # they share a result
        (["pyramid.levels=[32,64]", "model.path=../a b/../../x"], "demo_pyramid.levels--32,64-_model.path-..-a-b-..-..-x"),
    ],
)
def test_a_job_is_named_by_what_changes_its_result(overrides, name):
    assert with_own_name(compose([]), overrides).name == name


def test_a_long_name_stays_a_file_name_and_apart():
    names = {with_own_name(compose([]), [f"model.path={'x' * 300}{i}"]).name for i in range(2)}
    assert len(names) == 2 and max(map(len, names)) < 200


@pytest.mark.program
def test_a_sweep_numbers_its_jobs_says_an_error_once_and_ends_in_one_table(tmp_path, tiny_prior):
    place = runs.Place(tmp_path, tiny_prior, images=1)
    words = [word for word in place.all("x", "data.end_id=1", "seed=7,8", "task_group=demo_langevin,none") if word != "name=x"]
    done = runs.command("-m", *words, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    said = re.sub(r"\s+", " ", done.stderr)  # the terminal breaks lines
    for number, (seed, group) in enumerate([(7, "demo_langevin"), (7, "none"), (8, "demo_langevin"), (8, "none")], 1):
        assert f"[{number}/4] seed={seed} task_group={group}: " in said
        assert place.path(f"demo_seed-{seed}_task_group-{group}").is_dir() == (group != "none")
    assert done.stderr.count("error: ") == 2 and "Error executing job" not in done.stderr
    table = done.stdout.splitlines()[-5:]
    assert table[0].split()[0] == "job" and [row.split()[0] for row in table[1:]] == list("1234")
    assert "  PSNR, better orientation  " in table[1]
    assert table[1].rstrip().endswith("  ok") and "error: task_group=none" in table[2] and "0 of 1" in table[3]


def test_one_job_has_no_table_and_an_interrupted_one_is_in_it(capsys):
    sweep = Sweep()
    sweep.rows = [("1", "seed=1", *"-----", "ok")]
    sweep.close()
    assert capsys.readouterr().out == ""
    sweep.rows.append(("2", "seed=2\x1b", *"-----", "interrupted"))
    sweep.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["2", r"seed=2\x1b", *"-----", "interrupted"]


def step_of(number, loss):
    return Step(number, {0: OfImage([0], None, [loss], None, 0.0)})


@pytest.fixture
def settings(tmp_path):
    return check(compose([f"save_dir={tmp_path}", "name=run"]))


@pytest.fixture
def at_once(monkeypatch, settings):
    """Progress is written, and read, at every step."""
    monkeypatch.setattr(watching, "EVERY_S", 0.0)
    settings.folder.mkdir()


def columns_of(bar):
    return [(task.description, task.completed, task.total) for task in bar.bar.tasks]


def test_the_bars_count_jobs_images_and_steps(settings, at_once):
    with Watch(settings, Rank(), (3, 7)) as watch, progress_bar(2, 10, watch) as bar:
        bar.begin([0], 0, 2)
        bar.advance(step_of(0, 5.0))
        bar.advance(step_of(3, 4.0))
        assert columns_of(bar) == [("jobs", 2, 7), ("images", 0, 2), ("steps", 4, 20)]
        assert bar.bar.tasks[2].fields["best"] == "lowest loss 4"
        bar.begin([0], 2, 2)  # a second round of a sequential population
        bar.advance(step_of(0, 5.0))
        bar.move(images=1)
        assert columns_of(bar)[1:] == [("images", 1, 2), ("steps", 5, 30)]


def test_the_first_rank_counts_the_images_of_all(settings, at_once):
    """Of shard 1/2, which torchrun divides among two: those of shard 0/2 are another command's."""
    rank = Rank(0, 2, 0)
    of_rank = rank.settings(settings.model_copy(update={"shard": "1/2"}))
    logs = {name: settings.folder / f"run_shard-{name}-of-4.log" for name in (0, 1, 2, 3)}
    write_progress(logs[3], Progress(images=3, images_done=1, steps=30, steps_done=12))
    write_progress(logs[0], Progress(images=100, steps=1000))
    with Watch(of_rank, rank) as watch, progress_bar(2, 10, watch) as bar:
        bar.begin([0], 0, 2)
        bar.advance(step_of(4, 5.0))
        assert columns_of(bar) == [("images", 1, 5), ("steps", 17, 50)]
    mine = read_progress(logs[1])
    assert (mine.images, mine.steps, mine.steps_done) == (2, 20, 5)


@pytest.mark.parametrize("error, state", [(None, "done"), (KeyboardInterrupt(), "interrupted"), (ValueError(), "failed")])
def test_how_a_run_ended_stands_beside_its_log(settings, at_once, error, state):
    def run():
        with Watch(settings, Rank()) as watch:
            watch.begin([])
            if error:
                raise error

    if error:
        with pytest.raises(type(error)):
            run()
    else:
        run()
    assert read_progress(settings.folder / "run.log").state == state


def test_a_place_that_cannot_be_written_ends_no_run(settings):
    with Watch(settings, Rank()) as watch, progress_bar(1, 2, watch) as bar:  # there is no folder
        bar.begin([0], 0, 1)
        bar.advance(step_of(0, 1.0))
    assert not settings.folder.exists() and sys.exc_info()[0] is None
