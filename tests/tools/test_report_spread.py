"""The report's sentence under a spread: a warning, unless a calibration of the same settings lies beside the run."""

import json

import pytest

from tests.worlds.synthetic import write_run
from tools import report
from utils.analysis import runs
from utils.analysis.calibrated import UNKNOWN, calibration_path
from utils.analysis.experiments import gather
from utils.errors import InputError

FOUND = {
    "fingerprint": "x",
    "calibrated": False,
    "agreeing": {"truths": 32, "nominal": 0.6, "covered": {"value": 0.44}, "ratio": {"value": 0.74}},
}


@pytest.fixture
def folder(tmp_path, composed):
    return write_run(tmp_path, composed, [["0", "180"]], means=[26.0])


def captions(folder):
    found = report.drawings(gather([runs.load(folder)]), 1)[1]
    return [picture["caption"] for picture in found if "spread" in picture["caption"]]


@pytest.mark.heavy
def test_a_spread_carries_its_warning(folder):
    (caption,) = captions(folder)
    assert UNKNOWN in caption


@pytest.mark.heavy
def test_a_calibration_of_these_settings_is_quoted_and_one_of_others_is_not(folder):
    calibration_path(folder).write_text(json.dumps(FOUND))
    (caption,) = captions(folder)
    assert "0.74 of the error, and intervals of 60 % cover 44 %" in caption and "NOT calibrated" in caption
    calibration_path(folder).write_text(json.dumps(FOUND | {"calibrated": True}))
    assert "NOT" not in captions(folder)[0] and UNKNOWN not in captions(folder)[0]
    calibration_path(folder).write_text(json.dumps(FOUND | {"fingerprint": "other"}))
    assert UNKNOWN in captions(folder)[0]


@pytest.mark.heavy
def test_a_damaged_calibration_is_one_line(folder):
    calibration_path(folder).write_text("{}")
    with pytest.raises(InputError, match="damaged .fingerprint: field required.; run tools/calibration.py again"):
        captions(folder)


@pytest.mark.heavy
def test_older_records_have_no_spread_and_no_sentence(tmp_path, composed):
    assert captions(write_run(tmp_path, composed, [["0", "180"]], name="old")) == []
