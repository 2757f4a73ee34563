"""Where the zero frequency of a frame lies: found to half a pixel, and where it cannot be known, that is said."""

import numpy as np
import pytest

from tests.worlds.scenes import image
from utils.diagnosis.frames import SURE, estimate_center

FRAME, GAIN = 96, 100.0
CENTERS = [(48, 48), (49, 46), (45, 51), (48.5, 47.5), (50.25, 45.75)]
QUADRANT = (slice(None), slice(0, FRAME // 2), slice(0, FRAME // 2))
STOP = (slice(None), slice(44, 53), slice(44, 53))


def intensity(picture, center, side=FRAME):
    """|FFT|^2 (C, side, side) whose zero frequency lies at `center`, in pixels and parts of them."""
    pad = (side - picture.shape[-1]) // 2
    padded = np.pad(picture, ((0, 0), (pad, pad), (pad, pad)))
    rows, columns = (np.exp(2j * np.pi * (place - side // 2) * np.arange(side) / side) for place in center)
    spectrum = np.fft.fftshift(np.fft.fft2(padded * rows[:, None] * columns, norm="ortho"), axes=(-2, -1))
    return np.abs(spectrum) ** 2


def counts(seed, center, gain=GAIN, background=0.0):
    rng = np.random.default_rng(seed)
    return rng.poisson(gain * intensity(image(seed), center) + background).astype(float)


def distance(estimate, center):
    return max(abs(estimate.row - center[0]), abs(estimate.column - center[1]))


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("seed", range(2))
def test_a_centre_is_found_to_half_a_pixel_and_surely(center, seed):
    magnitude = np.sqrt(intensity(image(seed), center))
    noise = np.random.default_rng(seed).standard_normal(magnitude.shape)
    frames = [counts(seed, center, gain) for gain in (1.0, 100.0, 1e4)]
    frames += [np.abs(magnitude + 0.0125 * noise), counts(seed, center, background=10.0), counts(seed, center)[0]]
    for frame in frames:
        estimate = estimate_center(frame)
        assert distance(estimate, center) <= 0.3 and estimate.confidence > SURE


@pytest.mark.parametrize("center", CENTERS[:4])
def test_stop_and_missing_values_hide_no_centre(center):
    frame = counts(0, center)
    hidden = np.zeros(frame.shape, bool)
    hidden[STOP] = True
    absent = np.where(hidden, np.nan, frame)
    for estimate in (
        estimate_center(np.where(hidden, 0, frame)),
        estimate_center(absent),
        estimate_center(1e9 * hidden + frame, hidden),
    ):
        assert distance(estimate, center) <= 0.3 and estimate.confidence > SURE
    assert estimate_center(absent) == estimate_center(1e9 * hidden + frame, hidden)


def test_a_mask_of_the_last_axes_belongs_to_every_channel():
    frame, hidden = counts(1, (49, 46)), np.zeros((FRAME, FRAME), bool)
    hidden[44:53, 44:53] = True
    assert estimate_center(frame, hidden) == estimate_center(frame, np.broadcast_to(hidden, frame.shape))


@pytest.mark.parametrize("center", CENTERS[:4])
@pytest.mark.parametrize("seed", range(2))
def test_with_a_dead_quadrant_a_sure_centre_is_a_right_one(center, seed):
    frame, missing = counts(seed, center), np.zeros((3, FRAME, FRAME), bool)
    missing[QUADRANT] = True
    estimate = estimate_center(frame, missing)
    assert distance(estimate, center) <= 0.5 or estimate.confidence < SURE


def test_a_frame_that_was_cut_has_its_centre_elsewhere():
    frame = counts(2, (48, 48))[:, 7:, :-4]
    assert distance(estimate_center(frame), (41, 48)) <= 0.3


def test_few_counts_are_enough_and_none_are_said():
    estimate = estimate_center(counts(0, (50, 47), gain=0.03))
    assert distance(estimate, (50, 47)) <= 0.5
    noise = np.random.default_rng(0).poisson(3.0, (3, FRAME, FRAME))
    for nothing in (noise, np.zeros((FRAME, FRAME)), np.full((2, FRAME, FRAME), np.nan), np.ones((1, 3, 3))):
        assert estimate_center(nothing).confidence < SURE / 2


def test_of_several_centres_that_would_do_none_is_sure():
    rows, columns = np.indices((FRAME, FRAME))
    lattice = 100 * (2 + np.cos(2 * np.pi * rows / 12) + np.cos(2 * np.pi * columns / 12))
    assert estimate_center(lattice).confidence < SURE


def test_a_quarter_that_is_symmetric_by_itself_outweighs_no_whole_frame():
    frame = counts(3, (48, 48), gain=1.0)[0]
    quarter = frame[:49, :49]  # about (24, 24)
    frame[:49, :49] = np.maximum(quarter, quarter[::-1, ::-1])
    assert distance(estimate_center(frame), (48, 48)) <= 0.3
