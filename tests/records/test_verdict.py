"""Whether a particle explains its measurement: by standard deviations of the true image's loss, in words."""

import logging

import pytest
from omegaconf import OmegaConf

from tests.worlds.synthetic import forget_truth, make_record
from utils.records.aggregate import aggregate, loss_block
from utils.records.summary import eval_markdown, ratios_of_particles, verdict_of_pick
from utils.records.verdict import noise_overstated, remarks, unexplained, verdict_in, verdicts
from utils.running.console import print_results

PLAIN = OmegaConf.create({"pruning_step": -1, "optimization_step": -1})
RUN = {"run": {"seed": 0, "num_samples": 3, "overrides": [], "git_commit": None, "versions": {}}}


def metrics(*losses, floor=100.0, std=2.0, **more):
    """One image for each row of losses, without a truth; std=None: of an older program; more: of each record."""
    found = []
    for image, row in enumerate(losses):
        record = make_record(image, ["0"] * len(row), 0.0, 1.0, PLAIN) | RUN | {"loss": row, "noise_floor": floor}
        record |= {} if std is None else {"floor_std": std}
        record["selection"]["picked"] = row.index(min(v for v in row if v is not None)) if any(row) else None
        forget_truth(record)
        found.append(record | more)
    return aggregate(found, "x").content()


def test_a_deviation_is_the_excess_over_the_floor_in_standard_deviations():
    assert metrics([98.0, 106.0, None])["loss"]["deviation"] == [[-1.0, 3.0, None]]
    assert metrics([98.0, 106.0, None], std=0.0)["loss"].get("deviation") is None
    assert "deviation" not in loss_block([{"loss": [1.0], "noise_floor": 1.0}])  # a record of an older program


def test_up_to_three_standard_deviations_are_within():
    found = metrics([98.0, 106.0, None], [106.2, 114.2, 300.0])
    assert verdicts(found, 0) == ["within", "within", None]
    assert verdicts(found, 1) == ["above (3.1 sd)", "above (7.1 sd)", "above (100.0 sd)"]
    assert [verdict_of_pick(found, i) for i in range(2)] == ["within", "above (3.1 sd)"]
    assert ratios_of_particles(found, 1) == "1.062* 1.142* 3.000*" and ratios_of_particles(found, 0) == "0.980 1.060 –"


def test_a_loss_far_below_its_floor_is_said_so():
    found = metrics([89.0, 87.0, 40.0])
    assert verdicts(found, 0) == ["within", "below (6.5 sd)", "below (30.0 sd)"] and unexplained(found) is None


def test_an_image_that_one_particle_explains_is_no_complaint():
    assert unexplained(metrics([300.0, 300.0, 106.0])) is None
    assert unexplained(metrics([300.0, 300.0, 300.0], std=None)) is None
    assert unexplained(metrics([None, None, None])) is None


def test_only_images_all_of_whose_particles_lie_far_below_are_said_to_be_too_noisy():
    assert remarks(metrics([80.0, 89.0, None], [100.0, 80.0, 80.0], [None, None, None])) == []
    assert remarks(metrics([80.0, 80.0, 80.0], std=None)) == []
    found = metrics([80.0, 87.0, None], [100.0, 80.0, 80.0], [120.0, 110.0, 110.0])
    assert remarks(found) == [unexplained(found), noise_overstated(found)]
    assert "on 1 of 3 images: 0 (6.5 sd) below the floor; operator.sigma is larger" in noise_overstated(found)
    assert "**Every particle fits the measurement more closely" in eval_markdown(found)


def test_the_images_that_no_particle_explains_are_one_line():
    said = unexplained(metrics([100.0, 200.0, 200.0], *[[110.0, 120.0, None]] * 7))
    assert "on 7 of 8 images: 1 (5.0 sd), 2 (5.0 sd), 3 (5.0 sd), 4 (5.0 sd), 5 (5.0 sd) and 2 more" in said
    assert "\n" not in said


@pytest.mark.parametrize("std, verdict", [(2.0, "above (5.0 sd)"), (None, "–")])
def test_the_report_of_a_run_says_it_of_each_image(std, verdict):
    text = eval_markdown(metrics([120.0, 110.0, None], std=std))
    star = "*" if std else ""
    assert f"| 0 (0.png) | p1 | 110 | 100 | 1.100 | {verdict} | 1.200{star} 1.100{star} – |" in text
    assert ("**No particle explains the measurement" in text) == (std is not None)
    assert ("The pick explains the measurement up to its noise: on none of 1 image." in text) == (std is not None)


def test_the_closing_summary_counts_them_and_the_log_warns_once(capsys, caplog):
    with caplog.at_level(logging.WARNING, "latentdaps"):
        print_results(metrics([120.0, 110.0, None], [100.0, 120.0, 120.0]), "folder")
    assert "the pick explains the measurement up to its noise: on 1 of 2 images\n" in capsys.readouterr().out
    (warning,) = caplog.records
    assert "on 1 of 1 image: 0 (5.0 sd)" in unexplained(metrics([120.0, 110.0, None]))
    assert "on 1 of 2 images: 0 (5.0 sd)" in warning.getMessage()


def test_the_closing_summary_says_ok_where_it_is(capsys, caplog):
    print_results(metrics([100.0, 110.0, None], [101.0, 120.0, 120.0]), "folder")
    assert "the pick explains the measurement up to its noise: ok\n" in capsys.readouterr().out and not caplog.records
    print_results(metrics([100.0, 110.0, None], std=None), "folder")
    assert "explains" not in capsys.readouterr().out
    print_results(metrics([100.0, 110.0, None], [120.0, 130.0, None], decoder_floor=20.0), "folder")
    assert "up to its noise: on 1 of 2 images, to what this prior can draw on 1\n" in capsys.readouterr().out


def test_three_answers_where_it_is_known_what_the_decoder_cannot_draw():
    found = metrics([106.0, 126.0, 126.2], [126.2, 140.0, 80.0], decoder_floor=20.0)
    assert found["loss"]["decoder_deviation"] == [10.0, 10.0]
    assert verdicts(found, 0) == ["to the noise", "to what the prior draws", "not explained (13.1 sd)"]
    assert verdicts(found, 1) == ["not explained (13.1 sd)", "not explained (20.0 sd)", "below (10.0 sd)"]
    assert ratios_of_particles(found, 0) == "1.060 1.260 1.262*"
    text = eval_markdown(found)
    assert "To what the prior draws: above it" in text and "| to the noise | 1.060 1.260 1.262* |" in text


def test_a_record_says_what_its_metrics_say():
    record = {"loss": [106.0, 126.0, None], "noise_floor": 100.0, "floor_std": 2.0}
    assert [verdict_in(record, k) for k in range(3)] == ["within", "above (13.0 sd)", None]
    assert [verdict_in(record | {"decoder_floor": 20.0}, k) for k in range(2)] == ["to the noise", "to what the prior draws"]
    assert verdict_in({"loss": [106.0], "noise_floor": 100.0}, 0) is None  # of an older program


def test_an_image_explained_to_what_the_prior_draws_is_no_complaint():
    assert unexplained(metrics([126.0, 300.0, 300.0], decoder_floor=20.0)) is None
    said = unexplained(metrics([127.0, 300.0, 300.0], [126.0, 126.0, 126.0], decoder_floor=20.0))
    assert "nor to what this prior can draw, on 1 of 2 images: 0 (13.5 sd)" in said and "data.gain" not in said


@pytest.mark.parametrize("scale, named", [(1.3, True), (0.7, True), (1.01, False), (None, False)])
def test_a_result_of_another_brightness_names_the_gain(scale, named):
    said = unexplained(metrics([300.0, 300.0, 300.0], scale=scale, r_factor_noise=0.1))
    assert (f"image 0 is {scale} times as bright as its result: data.gain?" in said) == named


def test_where_the_exposure_is_fitted_no_gain_is_named():
    said = unexplained(metrics([300.0, 300.0, 300.0], scale=2.0, exposure=[4.0, 4.0, 4.0]))
    assert said is not None and "data.gain" not in said


def test_the_r_factor_of_noise_stands_below_that_of_the_particles():
    lines = eval_markdown(metrics([100.0, 300.0, 300.0], r_factor=[0.125, 0.3, 0.3], r_factor_noise=0.1)).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("| R-factor |"))
    assert "| 0.1250" in lines[at] and lines[at + 1].startswith("| R-factor of noise alone | – | – | 0.1000")
    assert not any("alone" in line for line in eval_markdown(metrics([100.0, 300.0, 300.0])).splitlines())
