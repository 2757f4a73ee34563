"""Frames of a detector as arrays: cut, padded and binned around the zero frequency. Numbers alone, no files.

A frame is (..., H, W). `center` is the zero frequency's (row, column) in pixels, 0 in the middle of the first pixel; it may lie
between pixels. An FFT of H x W samples has it at (H // 2, W // 2) once it is shifted.
"""

import math

import numpy as np

Center = tuple[float, float]  # (row, column), pixels
BRIGHTNESS = 0.25  # mean square of an image in [0, 1]: 0.06 to 0.6 on the validation images of the shipped sets
BEYOND = 0.06  # of it beyond a frequency of one cycle in the field, falling as its inverse: 0.03 to 0.08 there


def middle(shape: tuple[int, ...]) -> Center:
    """Where a shifted FFT of this shape (..., H, W) has its zero frequency."""
    return shape[-2] // 2, shape[-1] // 2


def crop_around(
    frame: np.ndarray, center: Center, shape: tuple[int, int], missing: float = np.nan
) -> tuple[np.ndarray, Center]:
    """The pixels around `center`, and where it lies in them: (..., *shape), the pixel next to it in their `middle`.

    missing: what stands where the frame has no pixel: not measured. A frame of integers needs one of its own type.
    """
    cropped, moved = frame, []
    for axis, (place, side) in enumerate(zip(center, shape), start=-2):
        first = math.floor(place + 0.5) - side // 2  # of the new frame, in pixels of the old one
        before, after = max(0, -first), max(0, first + side - frame.shape[axis])
        within = [slice(None)] * frame.ndim
        within[axis] = slice(max(0, first), max(0, first + side))
        widths = [(0, 0)] * frame.ndim
        widths[axis] = (min(before, side), min(after, side))
        cropped = np.pad(cropped[tuple(within)], widths, constant_values=missing) if before or after else cropped[tuple(within)]
        moved.append(place - first)
    return cropped, (moved[0], moved[1])


def bin_frame(frame: np.ndarray, n: int, center: Center) -> tuple[np.ndarray, Center]:
    """Sums over n x n pixels, (..., H // n, W // n), and where the zero frequency lies in them; NaN where one of the pixels is.

    The squares lie so that the zero frequency is as near to the middle of one as can be: for an even n and a whole `center`,
    1 / (2 n) of a new pixel off. A square that the border cuts is NaN; without it, the frame would be of another field.
    """
    moved, sides = [], (frame.shape[-2] // n, frame.shape[-1] // n)
    for axis, place in enumerate(center, start=-2):
        before = -math.floor(place - (n - 1) / 2 + 0.5) % n  # pixels that the first square lacks
        widths = [(0, 0)] * frame.ndim
        widths[axis] = (before, -(frame.shape[axis] + before) % n)
        whole = np.moveaxis(np.pad(frame.astype(np.float64), widths, constant_values=np.nan), axis, -1)
        frame = np.moveaxis(whole.reshape(*whole.shape[:-1], -1, n).sum(-1), -1, axis)
        moved.append((place + before - (n - 1) / 2) / n)
    return crop_around(frame, (moved[0], moved[1]), sides)


def corner_level(frame: np.ndarray) -> float:
    """The background of a frame whose zero frequency lies in its middle: mean of the measured pixels in its four corners.

    Of each side an eighth, where an object scatters least. Values beyond 4 standard deviations are left out until none is left:
    a hot pixel counts for nothing, and a background of less than a count is met, which a median would call 0.
    Raises ValueError where no corner was measured.
    """
    import scipy.stats  # as slow to import as all that only looks at files

    rows, columns = (max(1, side // 8) for side in frame.shape[-2:])
    ends = [frame[..., r, c] for r in (slice(rows), slice(-rows, None)) for c in (slice(columns), slice(-columns, None))]
    values = np.concatenate([end.ravel() for end in ends])
    values = values[np.isfinite(values)]
    if not values.size:
        raise ValueError("has no measured pixel in its corners; give data.background a number or a file")
    return float(scipy.stats.sigmaclip(values, 4, 4).clipped.mean())


def usual_energy(measured: np.ndarray, center: Center, side: int) -> float:
    """Mean square of a usual image in [0, 1] as far as it is measured: a beam stop hides most of it.

    measured: (C, H, W) booleans; center: the zero frequency in pixels; side: of the object, pixels.
    """
    places = np.argwhere(measured.any(0)) - center  # (N, 2)
    cycles = float(np.hypot(*(places * side / np.array(measured.shape[1:])).T).min())
    return min(BRIGHTNESS, BEYOND / cycles) if cycles else BRIGHTNESS
