"""The losses in metrics.json, eval.md and the closing table, from records whose answers are known."""

import pytest
from omegaconf import OmegaConf

from tests.worlds.synthetic import forget_truth, make_record
from utils.errors import visible
from utils.metrics.shifted_psnr import ShiftedPsnr
from utils.records.aggregate import aggregate, at_best, loss_block
from utils.records.metrics import check_metrics
from utils.records.record import problem
from utils.records.summary import eval_markdown, summary_table
from utils.running.console import print_results

PLAIN = OmegaConf.create({"pruning_step": -1, "optimization_step": -1})
RUN = {"run": {"seed": 0, "num_samples": 2, "overrides": [], "git_commit": None, "versions": {}}}


def records(truth):
    """Two images of two particles: losses 3 and 2 at a floor of 2; the second particle of image 8 has none.

    In the better orientation particle 0 is the better one, as is particle 1.
    """
    found = [make_record(image, ["180", "mixed"], 0.0, 1.0, PLAIN) | RUN for image in (7, 8)]
    for record, losses, picked in zip(found, ([3.0, 2.0], [3.0, None]), (1, 0)):
        record |= {"loss": losses, "noise_floor": 2.0}
        record["selection"]["picked"] = picked
        if not truth:
            forget_truth(record)
    return found


def test_the_block_has_losses_floors_and_ratios():
    assert loss_block(records(True)) == {
        "sample": [[3.0, 2.0], [3.0, None]],
        "noise_floor": [2.0, 2.0],
        "ratio": [[1.5, 1.0], [1.5, None]],
    }
    noiseless = [record | {"noise_floor": 0.0} for record in records(True)]
    assert loss_block(noiseless)["ratio"] == [[None, None]] * 2


def test_eval_md_says_what_the_better_orientation_and_place_are():
    found = records(True)
    text = eval_markdown(aggregate(found, "x").content())
    assert text.index("| PSNR, better orientation |") < text.index("Better orientation: as found or turned by 180 degrees")
    assert "Place:" not in text
    for record in found:
        record["scores"]["placed"] = [20.0, 21.0]
        record["metrics"] = {"placed": ShiftedPsnr().about()}
    text = eval_markdown(aggregate(found, "x").content())
    assert text.index("| PSNR, better orientation and place (dB) |") < text.index("Place: also moved to where it is nearest")
    blind = eval_markdown(aggregate(records(False), "x").content())
    assert "orientation" not in blind.lower()


@pytest.mark.parametrize("scores, value", [([1.0, 3.0, 2.0], "b"), ([None, None, 2.0], "c"), ([5.0, 5.0, 1.0], "a")])
def test_the_value_at_the_best_score(scores, value):
    assert at_best(["a", "b", "c"], scores) == value
    assert at_best(["a"], [None]) is None


def test_the_summary_has_a_row_of_losses():
    # by the truth particle 0 is better (24 against 18 dB); the picks are particles 1 and 0
    assert summary_table(aggregate(records(True), "x").content())[-1] == (
        "loss / noise floor",
        "1.500 ± 0.000",
        "1.375 ± 0.177",
        "1.250 ± 0.354",
    )


def test_without_a_truth_the_losses_stand_image_by_image():
    blind = records(False)
    blind[1]["file"] = "a|\x1bb"
    text = eval_markdown(aggregate(blind, "x").content())
    assert "| loss / noise floor | – | 1.375 ± 0.177 | 1.250 ± 0.354 |" in text
    assert (
        "| 7 (7.png) | p1 | 2 | 2 | 1.000 | – | 1.500 1.000 |\n| 8 (a&#124;\\x1bb) | p0 | 3 | 2 | 1.500 | – | 1.500 – |" in text
    )
    assert "| 7 " not in eval_markdown(aggregate(records(True), "x").content())


def test_an_image_without_a_finite_particle_has_no_loss():
    lost = records(False)
    lost[0] |= {"loss": [None, None]}
    lost[0]["selection"]["picked"] = None
    assert "| 7 (7.png) | none | – | 2 | – | – | – – |" in eval_markdown(aggregate(lost, "x").content())


def test_the_aligned_mean_is_a_row_where_records_have_it():
    """Without the truth it is known, so it stands with the pick."""
    found = records(True)
    assert aggregate(found, "x").content()["summary"] is None
    found[0]["summary"] = {"agreeing": [True, False], "psnr": 26.0, "resolution": 2.0}
    metrics = aggregate(found, "x").content()
    assert metrics["summary"] == {
        "agreeing": [[True, False], [None, None]],
        "psnr": [26.0, None],
        "resolution": [2.0, None],
    }
    check_metrics(metrics, "x")
    assert ("PSNR of the aligned mean", "–", "–", "26.00") in summary_table(metrics)
    assert not any(row[0] == "PSNR of the aligned mean" for row in summary_table(aggregate(records(False), "x").content()))


def test_a_summary_has_an_answer_for_each_particle():
    record = records(True)[0] | {"summary": {"agreeing": [True], "psnr": None, "resolution": None}}
    assert "summary.agreeing has not one value" in problem(record, {})
    record["summary"]["agreeing"] = [True, None]
    assert problem(record, {}) is None


@pytest.mark.parametrize("name", ["a[/b]", "[red]a", ":smile:", "a\x1b[2Jb", "a\u202eb"])
def test_the_closing_table_shows_a_folder_by_its_very_name(name, capsys):
    print_results(aggregate(records(False), "x").content(), name)
    assert f"{visible(name)}: " in capsys.readouterr().out


def closing(found, capsys):
    print_results(aggregate(found, "x").content(), "folder")
    return capsys.readouterr().out.splitlines()


def test_the_closing_summary_has_ten_lines_with_the_pictures(capsys):
    found = records(True)
    for record in found:
        record["scores"] |= {name: [0.5, 0.6] for name in ("lpips", "lpips_alex", "gradient_error")}
        record["r_factor"] = [0.1, 0.2]
        record["floor_std"] = 1.0
    lines = closing(found, capsys)
    assert len(lines) == 9 and lines[0] == "folder: 2 images, 2 particles, 2.0 s added up over the images"
    heads = [line.split("  ")[0] for line in lines[3:8]]
    assert heads == ["metric", "PSNR, better orientation", "loss / noise floor", "SSIM, as found", "LPIPS, as found"]
    assert lines[-1].startswith("all of it: folder/eval.md, with ") and lines[-1].endswith("rows more")


def test_one_image_has_no_spread_and_what_nobody_knows_no_row(capsys):
    lines = closing(records(False)[:1], capsys)
    assert lines[0] == "folder: 1 image, 2 particles, 1.0 s"
    assert [line.split() for line in lines[1:3]] == [
        "metric mean over particles label-free pick".split(),  # and no column of the truth
        "loss / noise floor 1.250 1.000".split(),
    ]
    assert not any(word in "\n".join(lines) for word in ("±", "not available", "LPIPS", "PSNR"))
    text = eval_markdown(aggregate(records(False)[:1], "x").content())
    assert text.splitlines()[2] == "1 image, 2 particles, seed 0."
