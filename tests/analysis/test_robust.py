"""Bimodal quantities and paired tests in the tables, from runs whose answers are counted by hand."""

import json

import numpy as np
import pytest
from scipy import stats as scipy_stats

from tests.worlds.synthetic import write_run
from utils.analysis import runs
from utils.analysis.comparison import compare, summarise
from utils.analysis.experiments import best_of, gather
from utils.analysis.tables import build, markdown, parts
from utils.errors import InputError

ROWS = [["0", "failed", "180", "failed"], ["failed", "0", "0", "failed"], ["failed"] * 4]


def summaries(folder, baseline=None, pool=False):
    found = gather([runs.load(path) for path in runs.find([folder])], pool)
    return {s["experiment"]: s for s in compare(found, baseline)}


def test_single_particles_pick_and_best_stand_side_by_side(tmp_path, composed):
    write_run(tmp_path, composed, ROWS)
    s = summaries(tmp_path)["exp0"]
    particles = [25, 12, 24, 12, 12.1, 25.1, 25.1, 12.1, 12.2, 12.2, 12.2, 12.2]  # better orientation
    assert s["robust"]["single"] == pytest.approx(
        {"average": np.mean(particles), "median": 12.2, "low5": np.percentile(particles, 5), "n": 12}
    )
    for part, values in (("pick", [25, 12.1, 12.2]), ("best", [25, 25.1, 12.2])):
        expected = {"average": np.mean(values), "median": np.median(values), "low5": np.percentile(values, 5), "n": 3}
        assert s["robust"][part] == pytest.approx(expected)
    table = markdown(build("robust", [s]))
    assert "| exp0 | 3 | 4 | 16.35 / 12.20 / 12.00 | 16.43 / 12.20 / 12.11 | 20.77 / 25.00 / 13.48 | 4 of 12 |" in table


def test_success_of_single_particles_is_what_is_left_of_their_failures(tmp_path, composed):
    write_run(tmp_path, composed, [["0", None, "mixed", None]] * 4, overrides=("pruning_step=200",))
    s = summaries(tmp_path)["exp0"]
    wilson = scipy_stats.binomtest(2, 4).proportion_ci(method="wilson")  # four images of one half each
    assert s["success_single"] == pytest.approx({"rate": 0.5, "count": 4, "n": 8, "low": wilson.low, "high": wilson.high})
    assert s["success_single"]["low"] == pytest.approx(1 - s["failed"]["high"])


@pytest.mark.heavy
def test_images_count_by_their_surviving_particles(tmp_path, composed):
    rows = [["failed", None, None], ["0", "0", "failed"]]
    write_run(tmp_path, composed, rows, overrides=("pruning_step=200",))
    failed = summaries(tmp_path)["exp0"]["failed"]
    assert (failed["rate"], failed["count"], failed["n"]) == (0.5, 2, 4)


def test_without_two_orientations_the_psnr_as_is_is_taken(tmp_path, composed):
    folder = write_run(tmp_path, composed, [["180", "0"]])
    content = json.loads((folder / "metrics.json").read_text())
    content["modes"] = None
    (folder / "metrics.json").write_text(json.dumps(content))
    s = summaries(tmp_path)["exp0"]
    assert [s["robust"][part]["average"] for part in ("single", "pick", "best")] == [17.5, 10.0, 25.0]
    assert s["success_single"] is None


def test_expectations_over_subsets_have_no_quantiles_and_no_counts(tmp_path, composed):
    write_run(tmp_path, composed, ROWS)
    write_run(tmp_path, composed, [["0"] * 2] * 3, name="other")
    found = gather([runs.load(path) for path in runs.find([tmp_path])])
    derived = best_of(found[0], 2)
    row = summarise(derived, found[1])
    assert row["robust"]["best"] is row["robust"]["pick"] is None and row["robust"]["single"]["n"] == 12
    assert row["paired"]["changed"] == {"success": None, "success_pick": None}
    assert summarise(found[1], derived)["paired"]["changed"]["success"] is None
    assert row["paired"]["success"]["difference"] == pytest.approx((5 / 6 + 5 / 6) / 3 - 1)


@pytest.fixture
def changed(tmp_path, composed):
    """The summary of a run against one that it betters on seven images and worsens on one, of twelve."""
    before = [["failed", "failed"]] * 7 + [["0", "failed"]] * 5
    after = [["failed", "0"]] * 6 + [["0", "0"]] + [["failed", "failed"]] + [["180", "failed"]] * 4
    write_run(tmp_path, composed, before, name="before")
    write_run(tmp_path, composed, after, name="after")
    return summaries(tmp_path, "before")["after"]


@pytest.mark.heavy
def test_rescued_and_lost_images_are_counted(changed):
    p = 2 * (1 + 8) / 2**8
    assert changed["paired"]["changed"]["success"] == {"gained": 7, "lost": 1, "p": pytest.approx(p), "n": 12}
    assert changed["paired"]["changed"]["success_pick"] == {"gained": 1, "lost": 1, "p": 1.0, "n": 12}  # particle 0
    assert parts(changed["paired"]["changed"]["success"], 2) == ("7 / 1", " (p = 0.07)")


@pytest.mark.heavy
def test_wilcoxon_is_of_the_differences_per_image(changed):
    best = [13.0] * 7 + [-13.0] + [-1.0] * 4
    mean = [6.5] * 6 + [13.0] + [-6.5] + [-0.5] * 4
    pick = [0.0] * 6 + [13.0] + [-13.0] + [-1.0] * 4
    for part, differences in (("best", best), ("mean", mean), ("pick", pick)):
        found = changed["paired"]["wilcoxon"][part]
        expected = scipy_stats.wilcoxon([d for d in differences if d]).pvalue
        assert found["shift"] == pytest.approx(np.median(differences)) and found["n"] == 12
        assert found["p"] == pytest.approx(expected)
    assert parts({"shift": 0.0006, "p": 0.1849, "n": 9}, 3) == ("+0.001", " (p = 0.18)")
    assert parts({"shift": -13.0, "p": 0.0001, "n": 9}, 3) == ("-13.000", " (p < 0.001)")


@pytest.mark.heavy
def test_of_several_seeds_an_image_counts_once_by_the_sign_of_its_mean(tmp_path, composed):
    for seed, before, after in ((1, "failed", "0"), (2, "0", "0"), (3, "failed", "failed")):
        write_run(tmp_path, composed, [[before], ["0"], ["0"]], name=f"before{seed}", seed=seed)
        second = {1: "failed", 2: "failed", 3: "0"}[seed]
        write_run(tmp_path, composed, [[after], [second], ["0"]], name=f"after{seed}", seed=seed)
    found = [runs.load(path) for path in runs.find([tmp_path])]
    before, after = (gather([run for run in found if run.name.startswith(name)], pool=True)[0] for name in ("before", "after"))
    row = summarise(after, before)["paired"]
    assert row["images"] == 3 and row["changed"]["success"] == {"gained": 1, "lost": 1, "p": 1.0, "n": 3}


@pytest.mark.heavy
def test_a_table_says_how_many_comparisons_it_makes(tmp_path, composed):
    for name, gain in (("a", 0.0), ("b", 0.5), ("c", 1.0)):
        write_run(tmp_path, composed, ROWS, name=name, gain=gain)
    rows = list(summaries(tmp_path, "a").values())

    def note(*arguments):
        return next(note for note in build(*arguments).notes if "not corrected" in note)

    tests = note("paired_tests", rows)
    assert tests.startswith("10 p-values in this table, not corrected") and "p = 0.005)" in tests
    some = note("paired", rows, ["experiment", "paired.images", "paired.success", "paired.changed.success"])
    assert some.startswith("2 p-values in this table") and "p = 0.025)" in some
    assert not any("not corrected" in note for note in build("modes", rows).notes)


# losses


def test_losses_are_multiples_of_the_noise_floor(tmp_path, composed):
    folder = write_run(tmp_path, composed, [["mixed", "failed", "180", "failed"]] + ROWS[1:])  # as is the best is mixed
    content = json.loads((folder / "metrics.json").read_text())
    content["loss"] = {"sample": [[2.0, 3.0, 4.0, 5.0]] * 3, "noise_floor": [2.0] * 3, "ratio": [[1.0, 1.5, 2.0, 2.5]] * 3}
    content["selection"]["picked"] = [3, 0, 0]
    (folder / "metrics.json").write_text(json.dumps(content))
    s = summaries(tmp_path)["exp0"]
    assert [s["loss"][part]["mean"] for part in ("mean", "pick", "best")] == [1.75, 1.5, pytest.approx((2 + 1.5 + 1) / 3)]
    assert s["noise_floor"]["mean"] == 2.0
    assert "| exp0 | 3 | 4 | 2.000 ± 0.000 | 1.750 ± 0.000 | 1.500 ± 0.866 | 1.500 ± 0.500 |" in markdown(build("loss", [s]))


def test_a_run_on_measurements_has_a_table_of_losses(tmp_path, composed):
    write_run(tmp_path, composed, ROWS, truth=False)
    s = summaries(tmp_path)["exp0"]
    assert s["robust"] == {"single": None, "pick": None, "best": None} and s["loss"]["best"] is None
    assert (s["loss"]["pick"]["mean"], s["loss"]["mean"]["mean"]) == (0.0, 1.5)  # losses 0 1 2 3, floor 1
    assert "| 0.000 ± 0.000 | – | – |" in markdown(build("loss", [s]))


def test_older_files_without_losses_are_read_and_have_no_such_table(tmp_path, composed):
    folder = write_run(tmp_path, composed, ROWS)
    content = json.loads((folder / "metrics.json").read_text())
    del content["loss"]
    (folder / "metrics.json").write_text(json.dumps(content))
    s = summaries(tmp_path)["exp0"]
    assert s["loss"] == dict.fromkeys(("best", "mean", "pick", "deviation")) and build("loss", [s]) is None
    (folder / "metrics.json").write_text(json.dumps(content | {"loss": {"sample": [], "noise_floor": [], "ratio": []}}))
    with pytest.raises(InputError, match="loss.sample has 0 entries"):
        runs.load(folder / "metrics.json")
    wrong = {"sample": [[9.0] * 4] * 3, "noise_floor": [1.0] * 3, "ratio": [[9.0] * 4] * 3}
    (folder / "metrics.json").write_text(json.dumps(content | {"loss": wrong}))
    with pytest.raises(InputError, match="loss differs from its records"):
        runs.load(folder / "metrics.json", from_records=True)
    (folder / "metrics.json").write_text(json.dumps(content))
    anew = runs.load(folder / "metrics.json", from_records=True)
    assert anew.metrics.loss.ratio == [[0.0, 1.0, 2.0, 3.0]] * 3
