"""Conventions of instruments: every one gives the magnitudes that the operator measures, and contradictions end in one line."""

import h5py
import numpy as np
import pytest

from utils.conventions import Convention
from utils.data import Measurement
from utils.errors import InputError
from utils.measurements import read

rng = np.random.default_rng(0)
Y = rng.uniform(0.1, 5.0, (3, 24, 20))  # magnitudes, centred, orthonormal
GAIN = 1000.0


def as_file(quantity, center, norm):
    """Y as an instrument of some convention would write it."""
    y = Y * (24 * 20) ** 0.5 if norm == "none" else Y
    y = y if quantity == "magnitude" else y**2
    y = GAIN * y if quantity == "counts" else y
    return np.fft.ifftshift(y, axes=(-2, -1)) if center == "corner" else y


def save(tmp_path, values, name="y.npy"):
    np.save(tmp_path / name, values)
    return tmp_path / name


@pytest.mark.parametrize("norm", ["ortho", "none"])
@pytest.mark.parametrize("center", ["shifted", "corner"])
@pytest.mark.parametrize("quantity", ["magnitude", "intensity", "counts"])
def test_every_convention_gives_the_same_magnitudes(quantity, center, norm, tmp_path):
    convention = Convention(quantity=quantity, center=center, norm=norm, gain=GAIN if quantity == "counts" else None)
    y = read(save(tmp_path, as_file(quantity, center, norm)), convention).y
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, Y, rtol=1e-6)


def test_an_odd_detector_has_its_corner_in_the_middle(tmp_path):
    y = np.zeros((3, 7, 5))
    y[:, 0, 0] = 1.0
    found = read(save(tmp_path, y), Convention(center="corner")).y
    assert (found[:, 3, 2] == 1).all() and found.sum() == 3


@pytest.mark.parametrize(
    "center, offset", [([14.0, 9.0], (0.0, 0.0)), ([13.5, 9.25], (0.5, -0.25)), ([14.4, 8.6], (-0.4, 0.4))]
)
@pytest.mark.parametrize("raw", [Y, np.round(100 * Y).astype(np.int16)])
def test_a_centre_of_ones_own_lies_in_the_middle_and_what_the_frame_lacks_is_not_measured(center, offset, raw, tmp_path):
    """The zero frequency of 24 x 20 pixels belongs at (12, 10); the pixel next to [14, 9] comes there."""
    reading = read(save(tmp_path, raw), Convention(center=center))
    assert reading.offset == pytest.approx(offset, abs=1e-12) and reading.y.shape == reading.raw.shape == Y.shape
    np.testing.assert_array_equal(reading.y[:, :22, 1:], raw[:, 2:, :19].astype(np.float32))
    np.testing.assert_array_equal(reading.raw[:, :22, 1:], raw[:, 2:, :19])
    lacking = np.ones(Y.shape, bool)
    lacking[:, :22, 1:] = False
    np.testing.assert_array_equal(np.isnan(reading.y), lacking)


def test_a_centre_outside_of_the_frame_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"data.center=\[3.0, 20.0\]: .*y.npy has 24 x 20 pixels") as caught:
        read(save(tmp_path, Y), Convention(center=[3.0, 20.0]))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="no rows and columns"):
        read(save(tmp_path, Y[0, 0]), Convention(center=[3.0, 2.0]))


@pytest.mark.parametrize(
    "mask, missing",
    [
        (0, [0]),
        ([-1], [1]),
        ("max", [2]),
        ([0, -1, "max"], [0, 1, 2]),
    ],
)
def test_values_that_mean_not_measured_are_nan(mask, missing, tmp_path):
    values = rng.integers(10, 1000, (3, 8, 8)).astype(np.int16)
    values[:, 0, :3] = [0, -1, np.iinfo(np.int16).max]
    y = read(save(tmp_path, values), Convention(mask=mask)).y
    where = np.zeros(y.shape, bool)
    where[:, 0, missing] = True
    np.testing.assert_array_equal(np.isnan(y), where)
    np.testing.assert_array_equal(y[~where], values[~where])


def test_nan_is_not_measured_where_the_mask_says_so(tmp_path):
    values = Y.copy()
    values[:, 0, 0] = np.nan
    path = save(tmp_path, values)
    assert np.isnan(read(path, Convention(mask="nan")).y).sum() == 3
    with pytest.raises(ValueError, match="not all finite.*data.mask=nan"):
        read(path, Convention())


@pytest.mark.parametrize("shape", [(3, 24, 20), (24, 20), (1, 3, 24, 20)])
def test_a_mask_file_holds_for_the_layout_of_the_file_and_is_zero_where_measured(shape, tmp_path):
    mask = rng.random(shape) < 0.2
    np.save(tmp_path / "mask.npy", mask)
    convention = Convention(mask=str(tmp_path / "mask.npy"), center="corner")
    y = read(save(tmp_path, as_file("magnitude", "corner", "ortho")), convention).y
    full = np.broadcast_to(mask.reshape(mask.shape[-3:]), Y.shape)
    np.testing.assert_array_equal(np.isnan(y), np.fft.fftshift(full, axes=(-2, -1)))
    np.testing.assert_allclose(y[~np.isnan(y)], Y[~np.isnan(y)], rtol=1e-6)


def test_a_mask_lies_in_the_file_or_in_one_of_its_own(tmp_path):
    mask = (rng.random((24, 20)) < 0.2).astype(np.uint8)
    with h5py.File(tmp_path / "y.cxi", "w") as file:
        file["entry_1/data_1/data"], file["entry_1/data_1/mask"] = Y, mask
    inside = read(tmp_path / "y.cxi", Convention(mask_dataset="entry_1/data_1/mask")).y
    beside = read(save(tmp_path, Y), Convention(mask=str(tmp_path / "y.cxi"))).y  # the default dataset of a mask
    assert np.isnan(inside).sum() == 3 * mask.sum()
    np.testing.assert_array_equal(np.isnan(inside), np.isnan(beside))
    assert not np.isnan(read(tmp_path / "y.cxi", Convention()).y).any()


def test_another_mask_is_another_measurement(tmp_path):
    path = save(tmp_path, Y)
    hashes = [Measurement(0, path).sha256]
    for value in (0, 1):
        np.save(tmp_path / "mask.npy", np.full((24, 20), value))
        hashes.append(Measurement(0, path, Convention(mask=str(tmp_path / "mask.npy"))).sha256)
    assert len(set(hashes)) == 3


def test_one_channel_may_lie_in_a_plain_picture(tmp_path):
    path = save(tmp_path, Y[0])
    assert read(path, Convention(channels=1)).y.shape == (1, 24, 20)
    assert read(path, Convention()).y.shape == (24, 20)


def test_negative_intensities_are_refused_unless_masked(tmp_path):
    values = Y.copy()
    values[0, 0, :2] = -1
    path = save(tmp_path, values)
    with pytest.raises(InputError, match="data.quantity=intensity: .*y.npy holds 2 negative values, the lowest -1") as caught:
        read(path, Convention(quantity="intensity"))
    assert "\n" not in str(caught.value)
    assert np.isnan(read(path, Convention(quantity="intensity", mask=-1)).y).sum() == 2
    assert read(path, Convention()).y[0, 0, 0] == -1  # a magnitude with noise may be negative


def test_a_cast_that_overflows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not all finite in float32, in which"):
        read(save(tmp_path, 1e36 * Y), Convention())
    assert np.isfinite(read(save(tmp_path, 1e36 * Y), Convention(quantity="intensity")).y).all()  # after the cast, not before


@pytest.mark.parametrize(
    "convention, values, message",
    [
        (dict(mask="max"), Y, "data.mask=max: .* holds float64"),
        (dict(mask=0), 0 * Y, "no measured pixel; is the mask inverted"),
        (dict(mask=0), Y * np.array([1, 0, 1])[:, None, None], "no measured pixel in channel 1"),
        (dict(mask_dataset="x"), Y, "data.mask_dataset=x"),
    ],
)
def test_contradictions_name_the_file_and_the_key(convention, values, message, tmp_path):
    path = tmp_path / "y.h5"
    with h5py.File(path, "w") as file:
        file["entry_1/data_1/data"] = values
    with pytest.raises(InputError, match=message) as caught:
        read(path, Convention(**convention))
    assert "\n" not in str(caught.value) and "y.h5" in str(caught.value)


@pytest.mark.parametrize("mask", [np.zeros((20, 24)), np.zeros(7), np.zeros(()), np.zeros((24, 20), complex)])
def test_a_mask_of_another_shape_or_kind_is_refused(mask, tmp_path):
    np.save(tmp_path / "mask.npy", mask)
    with pytest.raises(InputError, match=r"data.mask=.*of shape .*\(3, 24, 20\)"):
        read(save(tmp_path, Y), Convention(mask=str(tmp_path / "mask.npy")))


def test_what_a_file_says_of_itself(tmp_path):
    values = rng.integers(10, 1000, (3, 8, 8)).astype(np.uint16)
    values[0, 0, :4] = 65535
    reading = read(save(tmp_path, values), Convention())
    assert reading.whole and reading.at_limit == 4 and reading.raw.max() == 65535
    masked = read(save(tmp_path, values), Convention(mask=["max"]))
    assert masked.at_limit == 0 and np.nanmax(masked.y) < 1000
    assert not read(save(tmp_path, Y), Convention()).whole and read(save(tmp_path, np.round(Y)), Convention()).whole
