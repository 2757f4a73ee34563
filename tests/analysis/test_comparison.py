"""Every number of the tables, from runs whose records were invented so that the answers are known."""

import json
import shutil
from pathlib import Path

import pytest

from tests.worlds.synthetic import write_run
from utils.analysis import runs, stats
from utils.analysis.arguments import read_experiments
from utils.analysis.columns import KINDS
from utils.analysis.comparison import compare, summarise
from utils.analysis.experiments import best_of, find_label, gather
from utils.analysis.tables import build, markdown, parts
from utils.config.algorithms import CLASSICAL
from utils.errors import InputError

FOUR = [["0", "failed", "180", "failed"], ["failed", "0", "0", "failed"], ["failed"] * 4]


def experiments(folder, pool=False):
    return gather([runs.load(path) for path in runs.find([folder])], pool)


def summaries(folder, baseline=None, pool=False):
    found = experiments(folder, pool)
    return {s["experiment"]: s for s in compare(found, baseline)}


@pytest.mark.heavy
def test_best_mean_and_label_free_pick(tmp_path, composed):
    write_run(tmp_path, composed, FOUR)
    s = summaries(tmp_path)["exp0"]
    assert (s["images"], s["particles"], s["seeds"]) == (3, "4", [42])
    # aligned PSNR per image: 25 12 24 12 | 12 25 25 12 (+0.1) | 12 (+0.2); the pick is particle 0
    assert s["psnr_aligned"]["best"]["mean"] == pytest.approx((25 + 25.1 + 12.2) / 3)
    assert s["psnr_aligned"]["mean"]["mean"] == pytest.approx((18.25 + 18.6 + 12.2) / 3)
    assert s["psnr_aligned"]["pick"]["mean"] == pytest.approx((25 + 12.1 + 12.2) / 3)
    assert s["psnr"]["mean"]["mean"] == pytest.approx(((25 + 12 + 10 + 12) / 4 + 18.6 + 12.2) / 3)  # official: not aligned
    assert s["psnr_aligned"]["pick"]["n"] == 3
    assert s["lpips"]["best"]["mean"] == pytest.approx(1 - (25 + 25.1 + 12.2) / 3 / 30)  # smaller is better
    assert s["success"]["count"] == 2 and s["success"]["rate"] == pytest.approx(2 / 3)
    assert s["success_pick"]["count"] == 1 and s["both_modes"]["count"] == 1
    assert s["coverage"]["mean"] == pytest.approx((2 + 1 + 0) / 3)
    assert s["pairwise_distance"]["mean"] == 8.0  # ten steps, phase 1 ends at t = 200: the eighth step


@pytest.mark.heavy
@pytest.mark.parametrize(
    "overrides, last",
    [
        ((), 8),
        (("repulsion.end_step=500",), 5),
        (("repulsion_scale=0.3",), 8),
        (("optimization_step=600",), 4),
        (("repulsion.end_step=0",), 10),
    ],
)
def test_the_distance_is_that_of_the_last_exploration_step(tmp_path, composed, overrides, last):
    write_run(tmp_path, composed, [["0", "0"]], overrides=overrides)
    assert summaries(tmp_path)["exp0"]["pairwise_distance"]["mean"] == last


@pytest.mark.heavy
def test_distances_are_compared_at_one_t(tmp_path, composed):
    write_run(tmp_path, composed, [["0", "0"]])
    write_run(tmp_path, composed, [["0", "0"]], name="exp1", overrides=("repulsion.end_step=500", "repulsion_scale=0.3"))
    s = summaries(tmp_path, "exp0")
    assert s["exp0"]["pairwise_distance"]["mean"] == s["exp1"]["pairwise_distance"]["mean"] == 5
    assert s["exp1"]["paired"]["pairwise_distance"]["difference"] == 0


def by_the_noise_clock(folder):
    """As a run from before that clock was retired: its config says so."""
    with (folder / "config.yaml").open("a") as config:
        config.write("step_clock: noise\n")


@pytest.mark.heavy
def test_the_retired_noise_clock_takes_its_timesteps_from_the_records(tmp_path, composed):
    folder = write_run(tmp_path, composed, [["0", "0"]], overrides=("repulsion.end_step=350",))
    by_the_noise_clock(folder)
    assert summaries(tmp_path)["exp0"]["pairwise_distance"]["mean"] == 7  # steps at t = 1000 ... 400
    shutil.rmtree(folder / "records")
    assert summaries(tmp_path)["exp0"]["pairwise_distance"] is None


@pytest.mark.heavy
def test_phases_passes_and_cost_relative_to_the_baseline(tmp_path, composed):
    write_run(tmp_path, composed, FOUR, seconds=2.0)
    write_run(
        tmp_path,
        composed,
        [["0", None, "180", None]] * 3,
        name="exp4",
        seconds=3.0,
        overrides=("repulsion_scale=0.3", "pruning_step=400", "optimization_step=200"),
    )
    s = summaries(tmp_path, "exp0")
    assert s["exp4"]["particles"] == "4 → 2"
    assert s["exp0"]["cost"]["passes"] == 4 * 20 and s["exp0"]["cost"]["relative_time_x_memory"] == 1.0
    phases = s["exp4"]["phases"]
    assert [(p["seconds"], p["steps"], p["peak_mb"]) for p in phases.values()] == [
        (pytest.approx(1.8), 6, 100.0),
        (pytest.approx(0.6), 2, 60.0),
        (pytest.approx(0.6), 2, 60.0),
    ]
    assert s["exp4"]["cost"]["passes"] == 4 * 12 + 2 * 4 + 2 * 4
    assert s["exp4"]["cost"]["optimization_calls"]["mean"] == 2 and s["exp4"]["cost"]["optimization_iterations"]["mean"] == 6
    assert s["exp4"]["cost"]["time_x_memory_mb_s"] == pytest.approx(1.8 * 100 + 1.2 * 60)
    assert s["exp4"]["cost"]["relative_time_x_memory"] == pytest.approx(252 / 200)
    assert s["exp4"]["cost"]["relative_passes"] == pytest.approx(64 / 80)


@pytest.mark.heavy
def test_differences_are_taken_image_by_image_on_the_common_ones(tmp_path, composed):
    write_run(tmp_path, composed, FOUR)
    write_run(tmp_path, composed, [["0", "180"]] * 4, name="exp3", first_image=1, gain=0.5)
    s = summaries(tmp_path, "exp0")
    paired = s["exp3"]["paired"]
    assert s["exp0"]["paired"] is None and paired["images"] == 2  # images 1 and 2
    assert paired["psnr_aligned.best"]["difference"] == pytest.approx(((25.5 - 25.1) + (25.6 - 12.2)) / 2)
    assert paired["success"]["difference"] == 0.5 and paired["success"]["n"] == 2
    assert paired["success"]["low"] < 0 < paired["success"]["high"] < 1  # one of two images proves nothing


@pytest.mark.heavy
def test_nothing_is_paired_across_seeds_or_data(tmp_path, composed):
    write_run(tmp_path, composed, FOUR)
    write_run(tmp_path, composed, FOUR, name="seed", seed=43)
    write_run(tmp_path, composed, FOUR, name="scenes", overrides=("data=demo-scenes",))
    s = summaries(tmp_path, "exp0")
    for name in ("seed", "scenes"):
        assert s[name]["paired"]["images"] == 0 and s[name]["paired"]["success"] is None


@pytest.mark.heavy
def test_seeds_are_pooled_and_images_stay_the_unit_of_the_intervals(tmp_path, composed):
    write_run(tmp_path, composed, FOUR, name="a")
    write_run(tmp_path, composed, [["failed"] * 4] * 3, name="b", seed=43)
    write_run(tmp_path, composed, [["0", "180"]] * 3, name="other")
    s = summaries(tmp_path, pool=True)
    assert list(s) == ["a", "other"] and s["a"]["seeds"] == [42, 43] and s["a"]["images"] == 3
    assert (s["a"]["success"]["count"], s["a"]["success"]["n"]) == (2, 6)
    single = summaries(tmp_path)["a"]["success"]
    assert s["a"]["success"]["high"] - s["a"]["success"]["low"] > 0.9 * (single["high"] - single["low"])
    with pytest.raises(InputError, match="name it once"):
        write_run(tmp_path / "again", composed, FOUR, name="a")
        experiments(tmp_path, pool=True)


@pytest.mark.heavy
def test_runs_of_one_name_on_several_sets_make_one_row(tmp_path, composed):
    for data, better in (("demo-faces", 0.5), ("demo-scenes", 1.5)):
        for name, gain in (("base", 0.0), ("ours", better)):
            write_run(tmp_path / data, composed, [["0"] * 4] * 6, name=name, gain=gain, overrides=(f"data={data}",))
    found = gather([runs.load(path) for path in runs.find([tmp_path])], by_name=True)
    base, ours = compare(found, "base")
    assert (ours["experiment"], ours["images"], ours["success"]["n"]) == ("ours", 12, 12)
    best = ours["paired"]["psnr_aligned.best"]  # image 0 of one set is not image 0 of the other
    assert best["n"] == ours["paired"]["images"] == 12 and best["difference"] == pytest.approx(1.0)
    assert base["cost"]["passes"] == ours["cost"]["passes"] == 4 * 20
    write_run(tmp_path / "again", composed, [["0"] * 4], name="base", overrides=("data=demo-faces",))
    with pytest.raises(InputError, match="another run of the same name holds too"):
        gather([runs.load(path) for path in runs.find([tmp_path])], by_name=True)
    shutil.rmtree(tmp_path / "again")
    write_run(tmp_path / "again", composed, [["0"] * 2], name="base", seed=43)
    with pytest.raises(InputError, match="has other particles or phases"):
        gather([runs.load(path) for path in runs.find([tmp_path])], by_name=True)


@pytest.mark.heavy
def test_failures_on_several_sets_are_told_apart(tmp_path, composed):
    for data in ("demo-faces", "demo-scenes"):
        write_run(tmp_path / data, composed, FOUR, name="base", overrides=(f"data={data}",))
    (experiment,) = gather([runs.load(path) for path in runs.find([tmp_path])], by_name=True)
    assert summarise(experiment)["failures"] == {"count": 2, "ids": ["demo-faces 2", "demo-scenes 2"]}


def test_pairs_of_a_run_say_what_two_particles_would_give(tmp_path, composed):
    write_run(tmp_path, composed, FOUR)
    derived = best_of(experiments(tmp_path)[0], 2)
    s = summarise(derived)
    # image 0: 5 of 6 pairs hold a success, one pair both; image 1: 5 of 6, none; image 2: none
    assert s["success"]["count"] == pytest.approx(5 / 6 + 5 / 6) and s["both_modes"]["count"] == pytest.approx(1 / 6)
    assert s["coverage"]["mean"] == pytest.approx((0.5 + 0.5 + 5 / 6) / 3)
    assert s["psnr_aligned"]["best"]["mean"] == pytest.approx(((3 * 25 + 2 * 24 + 12) / 6 + (5 * 25.1 + 12.1) / 6 + 12.2) / 3)
    assert s["particles"] == "2" and s["cost"] is None
    # of a pair the particle with the lower number is picked: 0 of three pairs, 1 of two, 2 of one
    picks = [(3 * 25 + 2 * 12 + 24) / 6, (3 * 12.1 + 2 * 25.1 + 25.1) / 6, 12.2]
    assert s["psnr_aligned"]["pick"]["mean"] == s["pick_psnr"]["mean"] == pytest.approx(sum(picks) / 3)
    assert s["psnr"]["pick"]["mean"] == pytest.approx(((3 * 25 + 2 * 12 + 10) / 6 + picks[1] + 12.2) / 3)
    assert s["success_pick"]["count"] == pytest.approx(4 / 6 + 3 / 6)


def test_without_losses_a_subset_has_no_pick(tmp_path, composed):
    folder = write_run(tmp_path, composed, FOUR)
    content = json.loads((folder / "metrics.json").read_text())
    del content["loss"]
    (folder / "metrics.json").write_text(json.dumps(content))
    s = summarise(best_of(experiments(tmp_path)[0], 2))
    assert s["pick_psnr"] is s["success_pick"] is None and s["psnr_aligned"]["best"]["n"] == 3


@pytest.mark.heavy
def test_single_particles_that_failed_are_counted_over_survivors(tmp_path, composed):
    folder = write_run(
        tmp_path,
        composed,
        [["0", None, "mixed", None], ["180", None, "0", None], ["failed", None, "0", None]],
        overrides=("pruning_step=200",),
    )
    s = summaries(tmp_path)["exp0"]
    assert (s["failed"]["count"], s["failed"]["n"]) == (2, 6) and s["failed"]["rate"] == pytest.approx(1 / 3)
    assert parts(s["failed"], 2)[1] == " (2/6) [6, 79]"  # three images: Wilson
    content = json.loads((folder / "metrics.json").read_text())
    content["modes"]["label"][1][2], content["diverged"][1][2] = None, True
    (folder / "metrics.json").write_text(json.dumps(content))
    failed = summaries(tmp_path)["exp0"]["failed"]
    assert (failed["count"], failed["n"]) == (3, 6)  # a diverged particle is a failure, a pruned one is nothing


@pytest.mark.heavy
def test_particles_of_one_image_are_not_counted_as_independent(tmp_path, composed):
    together = [["failed"] * 4] * 5 + [["0"] * 4] * 5
    apart = [["failed", "failed", "0", "0"]] * 4 + [["failed", "0", "0", "0"]] * 3 + [["failed"] * 3 + ["0"]] * 3
    write_run(tmp_path, composed, together * 4, name="together")
    write_run(tmp_path, composed, apart * 4, name="apart")
    s = summaries(tmp_path)
    wide, narrow = ([s[name]["failed"][key] for key in ("rate", "low", "high")] for name in ("together", "apart"))
    assert wide[0] == narrow[0] == 0.5 and wide[2] - wide[1] > 0.25 > 0.175 > narrow[2] - narrow[1]


def test_no_failure_at_all_is_not_certainty(tmp_path, composed):
    write_run(tmp_path, composed, [["0", "180"]] * 10)
    failed = summaries(tmp_path)["exp0"]["failed"]
    assert failed["rate"] == 0 and failed["high"] == pytest.approx(stats.wilson(0.0, 10).high)


@pytest.mark.heavy
def test_failed_particles_are_paired_by_image(tmp_path, composed):
    write_run(tmp_path, composed, FOUR * 4)
    write_run(tmp_path, composed, [["0", "180", "0", "failed"]] * 12, name="better")
    write_run(tmp_path, composed, FOUR * 4, name="same")
    s = summaries(tmp_path, "exp0")
    paired = s["better"]["paired"]["failed"]
    assert paired["difference"] == pytest.approx((-0.25 - 0.25 - 0.75) / 3) and paired["high"] < 0
    same = s["same"]["paired"]["failed"]
    assert same["difference"] == 0 and same["low"] < 0 < same["high"]  # twelve images cannot rule out a change


def test_images_without_any_success_are_named(tmp_path, composed):
    write_run(tmp_path, composed, FOUR, first_image=5)
    assert summaries(tmp_path)["exp0"]["failures"] == {"count": 1, "ids": [7]}
    write_run(tmp_path, composed, [["failed"] * 4, ["0"] * 4, ["mixed"] * 4], name="b", seed=43, first_image=5)
    s = summaries(tmp_path, pool=True)["b"]
    assert s["failures"] == {"count": 1.5, "ids": ["5 (43)", "7 (42, 43)"]}  # the mean of both seeds
    assert "| 1.5 | 5 (43), 7 (42, 43) |" in markdown(build("failures", [s]))
    single = summarise(best_of(experiments(tmp_path / "exp0")[0], 2))
    assert single["failures"] == {"count": pytest.approx(1 + 2 / 6), "ids": [5, 6, 7]}


def test_passes_per_particle_do_not_depend_on_how_many_there_are(tmp_path, composed):
    write_run(tmp_path, composed, FOUR)
    write_run(tmp_path, composed, [["0", None, "180", None]] * 3, name="exp2", overrides=("pruning_step=200",))
    s = summaries(tmp_path)
    assert s["exp0"]["cost"]["passes_per_particle"] == s["exp2"]["cost"]["passes_per_particle"] == 20
    assert s["exp2"]["cost"]["passes"] < s["exp0"]["cost"]["passes"]


@pytest.mark.heavy
def test_runs_of_different_size_are_compared_on_their_common_images(tmp_path, composed):
    write_run(tmp_path, composed, FOUR)
    folder = write_run(tmp_path, composed, [["0", "180"]] * 4, name="exp3", first_image=1, seconds=3.0)
    loaded = runs.restrict_to_common([runs.load(path) for path in runs.find([tmp_path])])
    s = {row["experiment"]: row for row in compare(gather(loaded))}
    assert [row["images"] for row in s.values()] == [2, 2]  # images 1 and 2
    assert (s["exp0"]["success"]["count"], s["exp3"]["success"]["count"]) == (1, 2)
    assert s["exp0"]["failures"]["ids"] == [2] and s["exp3"]["cost"]["passes"] == 2 * 20
    assert [record["image_id"] for record, _ in loaded[1].records()] == [1, 2]
    write_run(tmp_path / "far", composed, [["0", "180"]] * 2, name="far", first_image=8)
    with pytest.raises(InputError, match="share no image"):
        runs.restrict_to_common([runs.load(path) for path in runs.find([tmp_path])])
    shutil.rmtree(folder / "records")
    with pytest.raises(InputError, match="exp3: common images need its records, and 2 are missing"):
        runs.restrict_to_common([runs.load(path) for path in runs.find([tmp_path / "exp0", folder])])


@pytest.mark.heavy
def test_rows_over_several_sets_are_compared_on_the_common_images_of_each(tmp_path, composed):
    for data, first in (("demo-faces", 1), ("demo-scenes", 2)):
        write_run(tmp_path / data, composed, FOUR, overrides=(f"data={data}",))
        write_run(tmp_path / data, composed, [["0"] * 4] * 4, name="exp3", first_image=first, overrides=(f"data={data}",))
    found = read_experiments([tmp_path], common=True, by_name=True)
    assert [[run.metrics.metadata.image_ids for run in e.runs] for e in found] == [[[1, 2], [2]]] * 2
    assert [row["images"] for row in compare(found)] == [3, 3]
    with pytest.raises(InputError, match="by-name: rows over several data sets share no config; leave out pool"):
        read_experiments([tmp_path], pool=True, by_name=True)


@pytest.mark.heavy
def test_particles_that_interact_are_not_split(tmp_path, composed):
    write_run(tmp_path, composed, FOUR)
    write_run(tmp_path, composed, FOUR, name="exp1", overrides=("repulsion_scale=0.3",))
    write_run(tmp_path, composed, [["0", None, "0", None]], name="exp2", overrides=("pruning_step=200",))
    write_run(tmp_path, composed, FOUR, name="exp6", overrides=("recombination_step=300",))
    write_run(tmp_path, composed, FOUR, name="exp6_own", overrides=("recombination_step=300", "recombination.donors=false"))
    write_run(tmp_path, composed, FOUR, name="from_bank", overrides=("start.bank=4",))
    found = experiments(tmp_path)
    assert [e.label for e in found if e.can_split] == ["exp0", "exp6_own"] and len(found) == 6
    found[0].runs[0].config["sampler"]["_target_"] = CLASSICAL  # whose particles come in the order of their residuals
    assert not found[0].can_split


def test_equal_names_are_told_apart_by_their_folders(tmp_path, composed):
    for parent in ("faces", "scenes"):
        write_run(tmp_path / parent, composed, FOUR)
    assert [e.label for e in experiments(tmp_path)] == ["faces/exp0", "scenes/exp0"]
    with pytest.raises(InputError, match="baseline=exp9: choose from faces/exp0, scenes/exp0"):
        summaries(tmp_path, "exp9")


def test_a_run_counts_once_however_it_is_named(tmp_path, composed, monkeypatch):
    folder = write_run(tmp_path, composed, FOUR)
    monkeypatch.chdir(tmp_path)
    assert runs.find(["exp0", folder, "./exp0/metrics.json", tmp_path]) == [Path("exp0/metrics.json")]
    found = gather([runs.load(path) for path in runs.find(["exp0"])])
    for name in ("exp0", "exp0/", f"{folder}/", "../" + tmp_path.name + "/exp0"):
        assert find_label(found, name) is found[0]


@pytest.mark.parametrize("damage", [b"\xff\xfe\x00", b"a: 2020-13-45", b"- 1", b"data: {root: x}\nrepulsion_scale: 0.1\n"])
def test_a_damaged_config_is_one_line(tmp_path, composed, damage):
    folder = write_run(tmp_path, composed, FOUR)
    (folder / "config.yaml").write_bytes(damage)
    with pytest.raises(InputError, match="config.yaml: damaged or not a run's config"):
        runs.load(folder / "metrics.json")


def test_metrics_json_alone_is_enough(tmp_path, composed):
    folder = write_run(tmp_path, composed, FOUR)
    full = summaries(tmp_path)["exp0"]
    shutil.rmtree(folder / "records")
    assert summaries(tmp_path)["exp0"] == full
    (folder / "config.yaml").unlink()
    bare = summaries(folder / "metrics.json")["exp0"]
    assert bare.pop("pairwise_distance") is None and bare == {k: v for k, v in full.items() if k != "pairwise_distance"}


def test_a_file_that_contradicts_its_records_is_refused(tmp_path, composed):
    folder = write_run(tmp_path, composed, FOUR)
    path = folder / "metrics.json"
    content = json.loads(path.read_text())
    assert runs.load(path, from_records=True).metrics.metadata.num_images == 3
    content["modes"]["label"][2][0] = "0"
    path.write_text(json.dumps(content))
    runs.load(path)
    with pytest.raises(InputError, match="modes differs from its records"):
        runs.load(path, from_records=True)
    (folder / "records" / "00002.npz").unlink()
    with pytest.raises(InputError, match="has 3 images, its records have 2"):
        runs.load(path, from_records=True)


def test_what_is_missing_is_said_and_not_averaged(tmp_path, composed):
    folder = write_run(tmp_path, composed, FOUR)
    content = json.loads((folder / "metrics.json").read_text())
    for block in ("mean", "std", "max", "min"):
        content["psnr"][block][1] = None  # all particles of image 1 diverged
    content["modes"]["psnr_aligned"][1], content["psnr"]["sample"][1] = [None] * 4, [None] * 4
    content["selection"]["picked"][1] = content["selection"]["psnr"][1] = content["selection"]["psnr_aligned"][1] = None
    (folder / "metrics.json").write_text(json.dumps(content))
    s = summaries(tmp_path)["exp0"]
    assert s["psnr_aligned"]["best"]["n"] == 2 and s["psnr_aligned"]["best"]["missing"] == 1
    assert s["psnr_aligned"]["best"]["mean"] == pytest.approx((25 + 12.2) / 2)
    assert parts(s["pick_psnr"], 2) == ("18.60", " ± 9.05 (n = 2)")
    assert s["success_pick"]["n"] == 3  # no pick is no success


def test_a_task_without_two_orientations_has_tables_too(tmp_path, composed):
    folder = write_run(tmp_path, composed, [["0", "failed"]] * 2)
    content = json.loads((folder / "metrics.json").read_text())
    content["modes"] = None
    (folder / "metrics.json").write_text(json.dumps(content))
    s = summaries(tmp_path)["exp0"]
    assert s["success"] is None and s["psnr_aligned"]["best"] is None
    assert s["pick_psnr"] == s["psnr"]["pick"] and s["pick_psnr"]["mean"] == pytest.approx(25.05)
    for kind in KINDS:
        table = build(kind, [s])
        assert table is None if kind in ("paired", "paired_tests", "tasks", "metrics") else markdown(table)
