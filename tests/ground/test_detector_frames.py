"""Frames as detectors write them: of a stack, cut, padded, binned, turned, with a background; the scale is the object's."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile

from utils.conventions import Convention
from utils.data import Measurement
from utils.errors import InputError
from utils.frames import bin_frame, corner_level, crop_around
from utils.measurements import OwnFrame, read, reading
from utils.stacks import count_frames

rng = np.random.default_rng(1)
STACK = rng.integers(1, 60, (5, 24, 20)).astype(np.uint16)


def save(folder, values):
    np.save(folder / "y.npy", values)
    return folder / "y.npy"


def counts(**keys):
    return Convention(quantity="counts", gain=2.0, channels=1, **keys)


def spectrum(image, side):
    """|FFT|^2, centred and orthonormal, of an image (n, n) in a field of side x side pixels."""
    before = (side - len(image)) // 2
    field = np.pad(image, (before, side - len(image) - before))
    return np.abs(np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(field), norm="ortho"))) ** 2


# the pure functions


@pytest.mark.parametrize("shape", [(3, 3), (4, 6), (9, 9), (5, 7), (12, 2)])
@pytest.mark.parametrize("center", [(2, 3), (0, 6), (1.6, 2.4), (-3, 3), (20, 20)])
def test_the_pixel_next_to_the_centre_comes_to_the_middle_and_the_rest_is_missing(shape, center):
    frame = np.arange(1.0, 36).reshape(5, 7)
    found, moved = crop_around(frame, center, shape)
    assert found.shape == shape
    for row in range(shape[0]):
        for column in range(shape[1]):
            r = int(np.floor(center[0] + 0.5)) + row - shape[0] // 2
            c = int(np.floor(center[1] + 0.5)) + column - shape[1] // 2
            inside = 0 <= r < 5 and 0 <= c < 7
            np.testing.assert_equal(found[row, column], frame[r, c] if inside else np.nan)
    assert [m - side // 2 for m, side in zip(moved, shape)] == pytest.approx([c - np.floor(c + 0.5) for c in center])


@pytest.mark.parametrize("n, center, expected", [(2, (6, 5), 0.25), (2, (5.5, 6.5), 0), (3, (6, 5), 0), (4, (6, 6), 0.125)])
def test_binned_squares_lie_about_the_centre_and_a_missing_part_is_missing(n, center, expected):
    frame = rng.uniform(1, 2, (2, 13, 14))
    found, moved = bin_frame(frame, n, center)
    before = np.isnan(found).sum()
    frame[0, 6, 6] = np.nan
    found, moved = bin_frame(frame, n, center)
    assert found.shape == (2, 13 // n, 14 // n)
    assert [abs(m - round(m)) for m in moved] == pytest.approx([expected] * 2)
    row, column = (round(m) for m in moved)
    first = [round(c - (m - round(m)) * n - (n - 1) / 2) for c, m in zip(center, moved)]
    np.testing.assert_allclose(found[1, row, column], frame[1, first[0] : first[0] + n, first[1] : first[1] + n].sum())
    assert np.isnan(found).sum() == before + 1


def test_the_corners_tell_a_background_below_one_count_in_spite_of_a_hot_pixel():
    frame = rng.poisson(0.3, (64, 64)).astype(float)
    frame[28:36, 28:36] += 1000
    frame[1, 1], frame[0, 5] = 5000, np.nan
    assert corner_level(frame) == pytest.approx(0.3, abs=0.12)
    with pytest.raises(ValueError, match="no measured pixel in its corners"):
        corner_level(np.full((16, 16), np.nan))


# stacks


def stacks(folder):
    np.save(folder / "a.npy", STACK)
    np.savez(folder / "b.npz", y=STACK)
    with h5py.File(folder / "c.cxi", "w") as file:
        file["entry_1/instrument_1/data"] = STACK
        file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/data")
    tifffile.imwrite(folder / "d.tif", STACK, photometric="minisblack")
    with tifffile.TiffWriter(folder / "e.tif") as file:
        for page in STACK:
            file.write(page, contiguous=False, compression="zlib")
    scipy.io.savemat(folder / "f.mat", {"y": STACK})
    return sorted(folder.iterdir())


def test_a_frame_of_a_stack_is_asked_for_by_its_number_by_sum_or_by_all(tmp_path):
    for path in stacks(tmp_path):
        with pytest.raises(
            InputError, match=f"data.frame=null: .*{path.name} is a stack of 5 frames; data.frame=0 to 4"
        ) as caught:
            read(path, counts())
        assert "\n" not in str(caught.value)
        np.testing.assert_array_equal(read(path, counts(frame=3)).raw[0], STACK[3])
        np.testing.assert_allclose(read(path, counts(frame=3)).y[0], np.sqrt(STACK[3] / 2), rtol=1e-6)
        total = read(path, counts(frame="sum"))
        np.testing.assert_array_equal(total.raw[0], STACK.astype(int).sum(0))
        np.testing.assert_allclose(total.y[0], np.sqrt(STACK.mean(0) / 2), rtol=1e-6)  # the gain is that of one frame
        assert read(path, counts(frame="sum", background=0.5)).background == pytest.approx(2.5)  # of a frame
        assert total.unit == pytest.approx(1 / 5) and count_frames(path, counts()) == 5
        with pytest.raises(InputError, match="data.frame=5: .* holds 5 frames, from 0 to 4"):
            read(path, counts(frame=5))


@pytest.mark.parametrize(
    "keys", [{"photometric": "minisblack"}, {"photometric": "rgb", "planarconfig": "separate"}, {"imagej": True}]
)
def test_a_frame_of_a_colour_stack_has_all_of_its_pages(tmp_path, keys):
    """Page k was taken for frame k, which is a channel of another frame."""
    stack = np.random.default_rng(1).integers(0, 900, (5, 3, 8, 9)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "y.tif", stack, **keys)
    convention = Convention(quantity="intensity")
    np.testing.assert_array_equal(read(tmp_path / "y.tif", replace(convention, frame=2)).raw, stack[2])
    np.testing.assert_array_equal(read(tmp_path / "y.tif", replace(convention, frame="sum")).raw, stack.astype(int).sum(0))


def test_a_stack_that_is_one_page_is_read_frame_by_frame(tmp_path):
    """Three planes of one page, as tifffile writes three frames without a word on what they are."""
    tifffile.imwrite(tmp_path / "y.tif", STACK[:3], photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read(tmp_path / "y.tif", counts(frame=1)).raw[0], STACK[1])


def test_a_stack_of_no_frames_is_said_so(tmp_path):
    with pytest.raises(ValueError, match="holds 0 frames"):
        read(save(tmp_path, np.zeros((0, 8, 8))), counts())


def test_a_stack_in_memory_is_summed_without_a_file():
    stack = np.arange(2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
    found = reading(stack, Path("y[0]"), Convention(frame="sum", quantity="intensity"))
    np.testing.assert_allclose(2 * found.y**2, stack.sum(0), rtol=1e-6)


def test_a_pixel_that_one_frame_lacks_is_missing_in_the_sum_and_saturated_ones_add_up(tmp_path):
    values = STACK.copy()
    values[1, 2, 3], values[4, 0, 0] = 0, 65535
    total = read(save(tmp_path, values), counts(frame="sum", mask=0))
    assert np.argwhere(np.isnan(total.y)).tolist() == [[0, 2, 3]] and total.at_limit == 1
    marks = np.zeros(values.shape, np.uint8)
    marks[2, 5, 5] = 1
    np.save(tmp_path / "mask.npy", marks)
    mask = str(tmp_path / "mask.npy")
    assert np.isnan(read(tmp_path / "y.npy", counts(frame="sum", mask=mask)).y).sum() == 1
    assert [int(np.isnan(read(tmp_path / "y.npy", counts(frame=i, mask=mask)).y).sum()) for i in (1, 2)] == [0, 1]


def test_a_file_with_one_frame_is_no_stack(tmp_path):
    path = save(tmp_path, STACK[:1])
    for frame in (None, 0, "sum"):
        np.testing.assert_array_equal(read(path, counts(frame=frame)).raw, STACK[:1])
    with pytest.raises(InputError, match="data.frame=2: .* holds one frame"):
        read(path, counts(frame=2))
    colour = save(tmp_path, STACK[:3])
    assert read(colour, Convention()).y.shape == (3, 24, 20)


def test_frames_of_one_file_have_names_and_digests_of_their_own(tmp_path):
    path = save(tmp_path, STACK)
    items = [Measurement(i, path, counts(frame=i)) for i in range(5)]
    assert [item.name for item in items][:2] == ["y.npy[0]", "y.npy[1]"] and len({item.digest() for item in items}) == 5
    changed = STACK.copy()
    changed[1] += 1
    before = [item.digest() for item in items]
    np.save(path, changed)
    assert [a == b for a, b in zip(before, (item.digest() for item in items))] == [True, False, True, True, True]


# size and scale


@pytest.mark.parametrize("quantity", ["magnitude", "intensity", "counts"])
@pytest.mark.parametrize("norm", ["ortho", "none"])
def test_a_cut_spectrum_is_that_of_the_same_object_in_larger_pixels(quantity, norm, tmp_path):
    """An object that is constant on squares of 2 x 2 pixels has the middle of its spectrum times sinc-like D near 1."""
    small = np.zeros((12, 12))
    small[3:9, 4:8] = 0.8
    large = np.kron(small, np.ones((2, 2)))
    fine = spectrum(large, 48) * (48 * 48 if norm == "none" else 1)
    values = np.sqrt(fine) if quantity == "magnitude" else fine * (7.0 if quantity == "counts" else 1)
    gain = 7.0 if quantity == "counts" else None
    found = read(save(tmp_path, values), Convention(channels=1, quantity=quantity, norm=norm, gain=gain, crop=(24, 24)))
    wanted = np.sqrt(spectrum(small, 24))
    assert found.y.shape == (1, 24, 24)
    assert found.y[0, 12, 12] == pytest.approx(wanted[12, 12], rel=1e-5)
    np.testing.assert_allclose(found.y[0, 10:15, 10:15], wanted[10:15, 10:15], atol=0.05 * wanted.max())
    assert found.unit == pytest.approx(1 / 4 / (48 * 48 if norm == "none" else 1))


def test_a_small_frame_is_padded_about_its_zero_frequency_and_has_the_scale_of_the_whole(tmp_path):
    whole = np.sqrt(spectrum(rng.uniform(0, 1, (16, 16)), 24))
    for rows, columns in ((14, 14), (13, 15)):
        part, _ = crop_around(whole, (12, 12), (rows, columns))
        scaled = part * (rows * columns / (24 * 24)) ** 0.5  # of a picture of so many pixels, orthonormal
        found = read(save(tmp_path, scaled), Convention(channels=1), own_frame=OwnFrame((24, 24), 16))
        assert found.y.shape == (1, 24, 24) and np.isfinite(found.y).sum() == rows * columns
        measured = np.isfinite(found.y[0])
        np.testing.assert_allclose(found.y[0][measured], whole[measured], rtol=1e-5)
        assert any("counts as not measured" in text for text in found.remarks(Convention(channels=1)))


@pytest.mark.parametrize("quantity", ["magnitude", "intensity"])
@pytest.mark.parametrize("norm", ["ortho", "none"])
def test_binned_pixels_of_a_small_object_are_the_spectrum_in_a_smaller_field(quantity, norm, tmp_path):
    image = rng.uniform(0.2, 1, (5, 5))
    fine = spectrum(image, 96) * (96 * 96 if norm == "none" else 1)
    values = np.sqrt(fine) if quantity == "magnitude" else fine
    found = read(save(tmp_path, values), Convention(channels=1, quantity=quantity, norm=norm, bin=3)).y[0]
    wanted = np.sqrt(spectrum(image, 32))
    assert found.shape == (32, 32)
    assert np.isnan(found).sum() == 63  # the squares that the border cuts
    known = np.isfinite(found)
    np.testing.assert_allclose(found[known] ** 2, wanted[known] ** 2, atol=0.02 * wanted.max() ** 2)  # a mean over a pixel


def test_a_frame_too_large_for_its_object_names_the_keys(tmp_path):
    with pytest.raises(InputError, match=r"data.crop=\[24,24\] takes .*data.bin=6 adds up") as caught:
        read(save(tmp_path, np.ones((3, 144, 144))), Convention(), own_frame=OwnFrame((24, 24), 16))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="data.bin=90: .* has frames of 144 x 144 pixels"):
        read(tmp_path / "y.npy", Convention(bin=90))


@pytest.mark.parametrize("name", ["y.npy", "y.h5", "y.mat"])
def test_rows_and_columns_are_swapped_with_the_mask_of_the_file(name, tmp_path):
    values = rng.uniform(1, 2, (24, 20))
    values[3, 7] = -1
    if name == "y.h5":
        with h5py.File(tmp_path / name, "w") as file:
            file["entry_1/data_1/data"] = values
    elif name == "y.mat":
        scipy.io.savemat(tmp_path / name, {"frame": values})
    else:
        np.save(tmp_path / name, values)
    found = read(tmp_path / name, Convention(channels=1, transpose=True, mask=-1))
    assert found.y.shape == (1, 20, 24) and np.argwhere(np.isnan(found.y)).tolist() == [[0, 7, 3]]
    np.testing.assert_array_equal(found.raw[0], values.T)


def test_a_file_of_matlab_is_as_matlab_shows_it_in_either_version(tmp_path):
    values = rng.uniform(1, 2, (3, 24, 20))
    scipy.io.savemat(tmp_path / "old.mat", {"y": values, "about": "text"})
    with h5py.File(tmp_path / "new.mat", "w", userblock_size=512) as file:
        file["y"] = values.T  # MATLAB's first axis is the last of HDF5
        file["stack"] = STACK.T
    for name, keys in (("old.mat", {}), ("new.mat", {"dataset": "y"})):
        np.testing.assert_array_equal(read(tmp_path / name, Convention(**keys)).raw, values)
    np.testing.assert_array_equal(read(tmp_path / "new.mat", counts(dataset="stack", frame=3)).raw[0], STACK[3])
    with pytest.raises(InputError, match="has no such dataset; it has stack, y"):
        read(tmp_path / "new.mat", Convention(dataset="z"))
    (tmp_path / "old.mat").write_bytes((tmp_path / "old.mat").read_bytes()[:300])
    with pytest.raises(ValueError):
        read(tmp_path / "old.mat", Convention())


# background


def test_a_background_is_taken_off_and_what_lies_below_it_is_nothing(tmp_path):
    values = rng.integers(5, 60, (24, 20))
    path = save(tmp_path, values)
    found = read(path, counts(background=10.0))
    np.testing.assert_allclose(found.y[0], np.sqrt(np.maximum(values - 10, 0) / 2), rtol=1e-6)
    assert found.negative == (values < 10).sum() > 0 and found.background == 10
    assert f"and {found.negative} pixels are below it" in next(found.remarks(counts(background=10.0)))
    dark = rng.integers(0, 10, (24, 20))
    np.save(tmp_path / "dark.npy", dark)
    found = read(path, counts(background=str(tmp_path / "dark.npy"), transpose=True))
    np.testing.assert_allclose(found.y[0], np.sqrt(np.maximum(values - dark, 0) / 2).T, rtol=1e-6)
    np.save(tmp_path / "dark.npy", dark[:3])
    with pytest.raises(InputError, match=r"data.background=.*has shape \(3, 20\)") as caught:
        read(path, counts(background=str(tmp_path / "dark.npy")))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_background_that_is_no_number_where_something_was_measured_is_refused(tmp_path, wrong):
    """NaN left the pixel out of the measurement, and an infinite one made it 0, both without a word."""
    values, dark = STACK[0].astype(float), np.full(STACK[0].shape, 3.0)
    dark[4, 5] = wrong
    np.save(tmp_path / "dark.npy", dark)
    convention = counts(background=str(tmp_path / "dark.npy"))
    with pytest.raises(InputError, match="data.background=.*is NaN or infinite where .* was measured"):
        read(save(tmp_path, values), convention)
    values[4, 5] = np.nan
    assert np.isnan(read(save(tmp_path, values), replace(convention, mask="nan")).y).sum() == 1


def test_what_the_likelihood_has_of_the_background_stays_in_each_binned_pixel(tmp_path):
    values = rng.integers(10, 60, (24, 20)).astype(float)
    path = save(tmp_path, values)
    plain = read(path, counts(bin=2))
    kept = read(path, counts(bin=2, background=5.0, kept_background=20.0))
    np.testing.assert_allclose(kept.y, plain.y, rtol=1e-6)
    assert kept.background == 20
    less = read(path, counts(bin=2, background=5.0, kept_background=8.0))
    np.testing.assert_allclose(less.y**2, plain.y**2 - 12 / 2, rtol=1e-5)


@pytest.mark.parametrize("center", ["shifted", "corner"])
def test_the_background_is_found_where_the_spectrum_is_darkest(center, tmp_path):
    image = 0.2 + np.outer(np.hanning(32), np.hanning(32))
    frame = rng.poisson(2500 * spectrum(image, 48) + 10).astype(float)
    frame = np.fft.ifftshift(frame) if center == "corner" else frame
    found = read(save(tmp_path, frame), counts(background="auto", center=center))
    assert found.background == pytest.approx(10, abs=1.0)


def test_negative_counts_of_a_dark_that_was_taken_off_are_nothing_where_the_user_says_so(tmp_path):
    values = rng.normal(0, 3, (24, 20))
    values[12, 10] = 500
    path = save(tmp_path, values)
    with pytest.raises(InputError, match="data.background=0 takes them as 0"):
        read(path, counts())
    found = read(path, counts(background=0.0))
    np.testing.assert_allclose(found.y[0], np.sqrt(np.maximum(values, 0) / 2), rtol=1e-6)
