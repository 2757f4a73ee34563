"""What a measurement says of its own convention: silent on what the task makes, and the right key for each single mistake."""

import numpy as np
import pytest
import yaml

from tests.worlds.scenes import SIDE, image
from utils.conventions import Convention
from utils.diagnosis.plausibility import Findings, lost, noise_on, of_picture, of_spectrum
from utils.measurements import Reading, read

FRAME, SIGMA, GAIN = 96, 0.05, 100.0
CENTRE = slice(FRAME // 2 - 2, FRAME // 2 + 3)


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


@pytest.mark.parametrize("seed", SEEDS)
def test_a_background_that_the_likelihood_has_is_no_brightness_of_the_image(seed, tmp_path):
    y = np.random.default_rng(seed).poisson(2 * magnitude(seed) ** 2 + 10)
    told = {"quantity": "counts", "gain": 2.0, "background": 10.0, "kept_background": 10.0}
    assert found(tmp_path, y, 0.3, **told) == []
    assert found(tmp_path, y, 0.3, quantity="counts", gain=2.0) != []


def test_a_stop_in_one_channel_is_a_stop(tmp_path):
    y = measured(0)
    y[1] = stopped(y)[1]
    assert found(tmp_path, y) == ["data.mask=[0]"]


def test_a_saturated_column_names_its_value(tmp_path):
    y = column(measured(0)).astype(np.float32)
    assert found(tmp_path, y) == [f"data.mask=[{y.max()!s}]"]


def test_of_added_up_pixels_no_value_is_named_that_the_file_does_not_have(tmp_path):
    y = np.repeat(np.repeat(column(measured(0)).astype(np.float32), 2, 1), 2, 2) / 2
    assert found(tmp_path, y, bin=2) == ["a mask file"]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.uint32, ">f4"])
def test_the_value_that_a_warning_names_masks_what_it_warned_of(kind, tmp_path):
    y = (measured(0) * 1e6 + 0.1).astype(kind)
    y[:, :, 60] = 4294967295 if np.dtype(kind).kind in "iu" else 25588470.4589
    y[:, 0, 0] = 25588470  # near the value, and not it
    keys = {"scale": "free"}
    advice = [key for key in found(tmp_path, y, **keys) if key.startswith("data.mask=[")]
    if advice == ["data.mask=[max]"]:
        value = "max"
    else:
        value = yaml.safe_load(advice[0].removeprefix("data.mask="))[0]
    reading = read(tmp_path / "y.npy", Convention(mask=[value], **keys))
    assert not reading.idle and np.isnan(reading.y[:, :, 60]).all()
    assert not any(key.startswith("data.mask") for key in found(tmp_path, y, mask=[value], **keys))


def test_a_mask_that_hides_most_pixels_is_thought_inverted(tmp_path):
    y = np.full((3, FRAME, FRAME), -1.0)
    y[:, CENTRE, CENTRE] = measured(0)[:, CENTRE, CENTRE]
    assert "data.mask inverted" in found(tmp_path, y, mask=-1)


def test_pictures_of_another_range_are_said_so():
    inside, bytes_ = (Reading(y := np.full((3, 8, 8), value, np.float32), y, False, 0) for value in (1.1, 200.0))
    assert of_picture(inside, 1.0, 0.05) == []
    assert [f.key for f in of_picture(bytes_, 1.0, 0.05)] == ["divide the files by their white, times 2, minus 1"]


def is_lost(tmp_path, values, sigma=SIGMA, seen=None, spectrum=True, **convention):
    np.save(tmp_path / "y.npy", values)
    convention = Convention(**convention)
    reading = read(tmp_path / "y.npy", convention)
    return lost(reading, noise_on(reading, convention, sigma), convention if spectrum else None, seen)


def replaced(values, where, value):
    values = values.copy()
    values[where] = value
    return values


@pytest.mark.parametrize(
    "keys", [{}, {"frame": "sum"}, {"crop": (64, 64)}, {"frame": "sum", "crop": (80, 64)}, {"norm": "none"}]
)
def test_the_noise_of_counts_is_that_of_the_frame_that_is_measured(tmp_path, keys):
    """Frames that are added up have more counts at magnitude 1 than one, and so has a frame that was cut."""
    mean = magnitude(0)[0] ** 2 * GAIN
    stack = np.random.default_rng(0).poisson(mean[None], (40, FRAME, FRAME))
    np.save(tmp_path / "y.npy", stack)
    gain = GAIN / (FRAME**2 if keys.get("norm") == "none" else 1)
    convention = Convention(quantity="counts", gain=gain, channels=1, **({"frame": 0} | keys))
    reading = read(tmp_path / "y.npy", convention)
    np.save(tmp_path / "mean.npy", mean * (40 if keys.get("frame") == "sum" else 1))
    true = read(tmp_path / "mean.npy", Convention(**{**vars(convention), "frame": None})).y
    true = true / (40**0.5 if keys.get("frame") == "sum" else 1)
    bright = true > 6 * (reading.unit / gain) ** 0.5
    assert noise_on(reading, convention, 0.0) == pytest.approx(1.2 * np.std((reading.y - true)[bright]), rel=0.25)


QUADRANT = (slice(None), slice(0, FRAME // 2), slice(0, FRAME // 2))
MODULE = (1, slice(20, 40), slice(10, 30))


@pytest.mark.parametrize(
    "values, convention, named",
    [
        (lambda: replaced(measured(0), 1, 0.0), {}, "channel 1 is 0.0 in every pixel"),
        (lambda: replaced(measured(0), 2, 7.5), {}, "channel 2 is 7.5 in every pixel"),
        (lambda: replaced(counts(0), 0, 0), COUNTS, "channel 0 is 0 in every pixel"),
        (lambda: replaced(replaced(measured(0), 1, 0.0), MODULE, -1.0), {"mask": [-1]}, "channel 1 is 0.0 in every pixel"),
        (lambda: np.zeros((3, FRAME, FRAME)), {}, "channel 0 is 0.0 in every pixel"),
        (lambda: np.zeros((FRAME, FRAME)), {"channels": 1}, "it is 0.0 in every pixel"),
        (lambda: replaced(measured(0), QUADRANT, 0.0), {}, "data.mask=[0.0]"),
        (lambda: replaced(counts(0), QUADRANT, 0), COUNTS, "data.mask=[0]"),
        (lambda: corner(replaced(measured(0), QUADRANT, 0.0)), {"center": "corner"}, "data.mask=[0.0]"),
        (lambda: replaced(measured(0), MODULE, 0.1), {}, "data.mask=[0.1]"),
        (lambda: replaced(measured(0), (slice(None), slice(40, 56), slice(40, 56)), 0.0), {}, "data.mask=[0.0]"),
    ],
)
def test_values_that_the_noise_leaves_nowhere_are_no_measurement(values, convention, named, tmp_path):
    sigma = 0.0 if convention.get("quantity") == "counts" else SIGMA
    assert named in is_lost(tmp_path, values(), sigma, **convention)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_noise_clipping_and_masks_leave_is_a_measurement(seed, tmp_path):
    y, clipped = measured(seed), np.clip(measured(seed), 5 * SIGMA, 3.0)
    for values in (y, clipped, np.maximum(y - 5 * SIGMA, 0), column(y), stopped(y), dead(y)):
        assert is_lost(tmp_path, values) is None
    assert is_lost(tmp_path, counts(seed, 2.0), 0.0, quantity="counts", gain=2.0) is None
    assert is_lost(tmp_path, np.minimum(counts(seed), 900), 0.0, **COUNTS) is None
    assert is_lost(tmp_path, replaced(y, MODULE, -1.0), mask=[-1]) is None
    assert is_lost(tmp_path, np.maximum(y - 5 * SIGMA, 0), center="corner") is None  # the warning names the centre
    assert is_lost(tmp_path, replaced(y, 1, 0.0), sigma=0.0) is None  # without noise a black channel is one


def test_a_lost_part_of_a_picture_is_told_from_what_a_task_never_sees(tmp_path):
    noise = SIGMA * np.random.default_rng(0).standard_normal((3, SIDE, SIDE))
    box = (slice(None), slice(10, 30), slice(10, 30))
    y, seen = replaced(2 * image(0) - 1 + noise, box, 0.0), np.ones((3, SIDE, SIDE), bool)
    assert "data.mask=[0.0]" in is_lost(tmp_path, y, seen=seen, spectrum=False)
    seen[box] = False  # as the box of inpainting
    assert is_lost(tmp_path, y, seen=seen, spectrum=False) is None
    white = replaced(2 * image(0) - 1 + noise, box, 1.2)
    reading = Reading(white, white, False, 0)
    assert is_lost(tmp_path, np.clip(white, -1.2, 1.2), spectrum=False) is None
    assert [f.key for f in of_picture(reading, 1.0, SIGMA)] == ["data.mask=[1.2]"]


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
