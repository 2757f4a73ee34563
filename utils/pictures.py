"""Pictures in files: read whatever their mode, depth and colour profile."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from utils.errors import Unfit

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")  # whatever a file's name says: EPS is a program, which Pillow runs
TWELVE_BITS = 4095
MOST_PIXELS = 2**26  # of an image, which takes 30 bytes a pixel while it is made smaller
READ_AS = {
    "twelve bits": (logging.INFO, "16-bit grey that stays below 4096 is read as 12-bit, white at 4095"),
    "profile": (logging.INFO, "colour profiles are converted to sRGB"),
    "no profile": (logging.WARNING, "colour profiles that cannot be applied are left out, and the colours taken for sRGB"),
}
SAME = 2  # levels of 255: profiles of sRGB differ from each other by their rounding


@contextmanager
def opened_picture(path: Path) -> Iterator[Image.Image]:
    """An image file of which nothing but its header has been read. Raises Unfit for one of more than MOST_PIXELS."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # of a limit that is higher than ours
        opened = Image.open(path, formats=FORMATS)
    with opened:
        width, height = opened.size
        if width * height > MOST_PIXELS:
            raise Unfit(f"has {width} x {height} pixels; at most {MOST_PIXELS} are read, so make it smaller")
        yield opened


def white(image: Image.Image) -> float:
    """The value that stands for white in a loaded Pillow image, a number.

    Cameras of 12 bits write files of 16: grey that stays below 4096 has its white at 4095. Raises ValueError for
    values of a range that is not known.
    """
    if image.mode != "F" and not image.mode.startswith("I"):
        return 255
    values = np.asarray(image)
    low, high = values.min(), values.max()
    most = 1 if image.mode == "F" else 65535
    if not (low >= 0 and high <= most):
        raise ValueError(f"holds grey from {low} to {high}; integers from 0 to 65535 and fractions from 0 to 1 are read")
    return TWELVE_BITS if image.mode != "F" and high <= TWELVE_BITS else most


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1] of an image file of any mode.

    Turned as its EXIF says; grey is repeated and keeps its bits (see `white`); transparent parts are laid on white.
    Colours are those of its colour profile, in sRGB.
    """
    with opened_picture(path) as opened:
        image = ImageOps.exif_transpose(opened)
        image.load()
    image, _ = in_srgb(image)
    if image.mode == "F" or image.mode.startswith("I"):  # 16-bit grey is in Pillow "I;16" or, from some files, "I"
        grey = np.asarray(image).astype(np.float32) / white(image)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    rgb = np.asarray(image.convert("RGB"), dtype=np.float32)
    rgb /= 255
    return rgb


def in_srgb(image: Image.Image) -> tuple[Image.Image, str | None]:
    """An image as its colour profile means it, in sRGB, and the key of READ_AS; itself where the profile is that of sRGB."""
    if not (content := image.info.get("icc_profile")):
        return image, None
    if image.mode == "F" or image.mode.startswith("I"):
        return image, "no profile"
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    colours = image if image.mode in ("L", "RGB", "CMYK") else image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        to_srgb = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), colours.mode, "RGB")
        levels = np.linspace(0, 255, 18).astype(np.uint8)
        cube = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(18, -1, 3))
        if colours.mode == "RGB" and np.abs(np.asarray(to_srgb.apply(cube), int) - np.asarray(cube, int)).max() <= SAME:
            return image, None
        converted = to_srgb.apply(colours)
    except (ImageCms.PyCMSError, OSError, ValueError):  # damaged, or of another number of colours than the picture
        return image, "no profile"
    if alpha is not None:
        converted.putalpha(alpha)
    return converted, "profile"
