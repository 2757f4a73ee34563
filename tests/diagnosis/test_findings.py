"""What is found in frames of the shipped sets: nothing in right ones, and in each faulty one the override that mends it."""

import numpy as np
import pytest

from tools.evidence.frame_findings import SIDE, alarm, answers, faults, image, magnitude, right
from utils.conventions import Convention
from utils.diagnosis.findings import Frame, findings_of
from utils.diagnosis.frames import by_radius, opposite
from utils.measurements import read
from utils.paths import PROJECT

SETS = ("demo-faces", "demo-scenes")
FAULTS = faults()


def shipped(name, number):
    """(3, 64, 64) in [0, 1]."""
    return image(sorted((PROJECT / "dataset" / name).glob("*.png"))[number])


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("name", SETS)
def test_right_measurements_raise_no_alarm(name, number):
    cases = right(shipped(name, number), np.random.default_rng(number))
    alarms = {case: each for case, measured in cases for each in measured.findings() if alarm(each)}
    assert alarms == {}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("case", FAULTS)
def test_each_fault_is_found_with_its_remedy(case, name):
    findings = FAULTS[case].measure(shipped(name, 0), np.random.default_rng(7)).findings()
    found, others = answers(FAULTS[case], findings)
    assert found, findings
    assert others == [], "one fault is one alarm"


def test_a_background_is_measured_without_the_bias_of_the_darkest_squares():
    findings = FAULTS["background of 10"].measure(shipped(SETS[1], 3), np.random.default_rng(0)).findings()
    (override,) = [each.override for each in findings if each.what == "background"]
    assert float(override.removeprefix("data.background=")) == pytest.approx(10, rel=0.07)


def test_the_center_of_a_binned_frame_is_told_in_pixels_of_the_file(tmp_path):
    """A file of 192 pixels in squares of two, whose zero frequency lies 4 pixels below its middle."""
    m = magnitude(shipped(SETS[0], 0), (50, 48))
    np.save(tmp_path / "y.npy", np.random.default_rng(0).poisson(250 * np.kron(m**2, np.ones((2, 2)))))
    convention = Convention(quantity="counts", gain=1000.0, bin=2)
    frame = Frame.of(read(tmp_path / "y.npy", convention), convention, SIDE, 0.016, "operator.sigma")
    (centre,) = [each for each in findings_of(frame) if each.what == "centre"]
    assert centre.override == "data.center=[100.5,96.5]"


def test_opposite_pixels_and_the_noise_of_their_rings():
    frame = np.arange(12.0).reshape(1, 3, 4)
    np.testing.assert_array_equal(opposite(frame, (1, 1)), [[[10, 9, 8, np.nan], [6, 5, 4, np.nan], [2, 1, 0, np.nan]]])
    np.testing.assert_array_equal(opposite(frame, (1, 1.5)), frame[:, ::-1, ::-1])
    noise = 3 + 0.2 * np.random.default_rng(0).standard_normal((1, 65, 65))
    radial = by_radius(noise, (32, 32))
    np.testing.assert_allclose(radial.mean[5:30], 3, atol=0.12)
    assert np.sqrt(np.mean(radial.noise[5:30] ** 2)) == pytest.approx(0.2, rel=0.05)
