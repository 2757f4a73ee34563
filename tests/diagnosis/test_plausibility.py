"""What a measurement says of its own convention: silent on what the task makes, and the right key for each single mistake."""

import numpy as np
import pytest

from utils.diagnosis.plausibility import Findings, of_picture, of_spectrum
from utils.measurements import Convention, Reading, read

SIDE, FRAME, SIGMA, GAIN = 64, 96, 0.05, 100.0
CENTRE = slice(FRAME // 2 - 2, FRAME // 2 + 3)


def image(seed):
    """(3, SIDE, SIDE) in [0, 1]: a blurred scene with edges, as bright as pictures are."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    picture = np.stack(
        [0.45 + 0.25 * np.sin(2 * np.pi * (rng.uniform(0.3, 2) * x + rng.uniform(0.3, 2) * y)) for _ in range(3)]
    )
    for _ in range(6):
        top, left, size = rng.integers(0, 44), rng.integers(0, 44), rng.integers(6, 20)
        picture[:, top : top + size, left : left + size] = rng.uniform(0, 1, (3, 1, 1))
    return np.clip(picture, 0, 1)


def magnitude(seed):
    pad = (FRAME - SIDE) // 2
    padded = np.pad(image(seed), ((0, 0), (pad, pad), (pad, pad)))
    return np.abs(np.fft.fftshift(np.fft.fft2(padded, norm="ortho"), axes=(-2, -1)))


def measured(seed):
    return np.abs(magnitude(seed) + SIGMA * np.random.default_rng(seed).standard_normal((3, FRAME, FRAME)))


def counts(seed, gain=GAIN):
    return np.random.default_rng(seed).poisson(gain * magnitude(seed) ** 2).astype(np.int32)


def corner(y):
    return np.fft.ifftshift(y, axes=(-2, -1))


def stopped(y, value=0):
    y = y.copy()
    y[:, CENTRE, CENTRE] = value
    return y


def dead(y):
    y = y.copy()
    y[:, np.random.default_rng(9).random((FRAME, FRAME)) < 0.03] = 0
    return y


def column(y):
    y = y.copy()
    y[:, :, 60] = y.max()
    return y


def found(tmp_path, values, sigma=SIGMA, **convention):
    np.save(tmp_path / "y.npy", values)
    convention = Convention(**convention)
    return [f.key for f in of_spectrum(read(tmp_path / "y.npy", convention), convention, SIDE * SIDE, sigma)]


COUNTS = {"quantity": "counts", "gain": GAIN}
SEEDS = range(4)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_the_task_makes_is_plausible_in_every_convention(seed, tmp_path):
    y = measured(seed)
    assert found(tmp_path, y) == []
    assert found(tmp_path, np.maximum(y - 3 * SIGMA, 0)) == []  # zeros among dim pixels are no gap
    assert found(tmp_path, y**2, quantity="intensity") == []
    assert found(tmp_path, corner(y), center="corner") == []
    assert found(tmp_path, FRAME * y, norm="none") == []
    assert found(tmp_path, stopped(y), mask=0) == [] and found(tmp_path, dead(y), mask=0) == []
    for gain in (2.0, 20.0, 200.0):
        assert found(tmp_path, counts(seed, gain), 0.0, quantity="counts", gain=gain) == []
        assert found(tmp_path, counts(seed, gain), 0.0, quantity="counts", gain=gain / FRAME**2, norm="none") == []
        assert found(tmp_path, stopped(counts(seed, gain), -1), 0.0, quantity="counts", gain=gain, mask=-1) == []


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "values, convention, keys",
    [
        (lambda s: measured(s) ** 2, {}, ["data.quantity=intensity"]),
        (counts, {}, ["data.quantity=counts with data.gain"]),
        (counts, {"quantity": "intensity"}, ["data.quantity=counts with data.gain"]),
        (measured, {"quantity": "intensity"}, ["data.quantity=magnitude"]),
        (lambda s: corner(measured(s)), {}, ["data.center=corner"]),
        (measured, {"center": "corner"}, ["data.center=shifted"]),
        (lambda s: FRAME * measured(s), {}, ["data.norm=none"]),
        (measured, {"norm": "none"}, ["data.norm=ortho"]),
        (counts, COUNTS | {"gain": GAIN / 100}, ["data.norm=none or a larger data.gain"]),
        (counts, COUNTS | {"gain": GAIN * 1000}, ["a smaller data.gain"]),
        (lambda s: 3 * measured(s), {}, ["is its exposure calibrated"]),
        (lambda s: stopped(measured(s)), {}, ["data.mask=[0]"]),
        (lambda s: dead(measured(s)), {}, ["data.mask=[0]"]),
        (lambda s: stopped(counts(s)), COUNTS, ["data.mask=[0]"]),
        (lambda s: dead(counts(s)), COUNTS, ["data.mask=[0]"]),
        (lambda s: np.where(counts(s) > 5000, 65535, counts(s)).astype(np.uint16), COUNTS, ["data.mask=[max]"]),
        (lambda s: np.minimum(counts(s), 900), COUNTS, ["data.mask=[900]"]),
        (lambda s: 3 * measured(s), {"scale": "free"}, []),
    ],
)
def test_a_single_mistake_names_its_key(values, convention, keys, seed, tmp_path):
    assert found(tmp_path, values(seed), 0.0 if convention.get("quantity") == "counts" else SIGMA, **convention) == keys


def test_a_saturated_column_names_its_value(tmp_path):
    y = column(measured(0)).astype(np.float32)
    assert found(tmp_path, y) == [f"data.mask=[{float(y.max()):.8g}]"]


def test_a_mask_that_hides_most_pixels_is_thought_inverted(tmp_path):
    y = np.full((3, FRAME, FRAME), -1.0)
    y[:, CENTRE, CENTRE] = measured(0)[:, CENTRE, CENTRE]
    assert "data.mask inverted" in found(tmp_path, y, mask=-1)


def test_pictures_of_another_range_are_said_so():
    inside = Reading(np.full((3, 8, 8), 1.1, np.float32), False, 0, 1.1)
    bytes_ = Reading(np.full((3, 8, 8), 200.0, np.float32), True, 0, 200.0)
    assert of_picture(inside, 1.0, 0.05) == []
    assert [f.key for f in of_picture(bytes_, 1.0, 0.05)] == ["divide the files by their white, times 2, minus 1"]


def test_many_files_of_one_mistake_are_one_line(tmp_path):
    gathered = Findings()
    convention = Convention()
    for name in "abc":
        np.save(tmp_path / "y.npy", FRAME * measured(0))
        gathered.add(name, of_spectrum(read(tmp_path / "y.npy", convention), convention, SIDE * SIDE, SIGMA))
    (line,) = gathered.lines()
    assert line.startswith("implausible measurement: a (and 2 more files): its energy is ") and line.endswith(
        ": data.norm=none?"
    )
