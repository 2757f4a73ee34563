"""The shipped photographs: of one size, each with its source and licence, and chosen with data=demo-photos."""

import re

from PIL import Image

from tools import check_setup
from utils.data import files_in
from utils.paths import PROJECT

FOLDER = PROJECT / "dataset" / "demo-photos"
PHOTOS = files_in(FOLDER, "images")
HEADER = ["File", "Name", "Author", "Source", "Licence", "Licence as the package states it", "Crop box"]


def table():
    """The rows of SOURCES.md, header apart, as lists of cells."""
    lines = [line for line in (FOLDER / "SOURCES.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert header == HEADER
    return rows


def test_each_is_256_pixels_wide_and_high_and_in_colour():
    assert [photo.name for photo in PHOTOS] == [f"{i:04d}.png" for i in range(len(PHOTOS))] and len(PHOTOS) >= 4
    for photo in PHOTOS:
        with Image.open(photo) as image:
            image.load()
            assert (image.format, image.size, image.mode) == ("PNG", (256, 256), "RGB"), photo.name
            assert not {"icc_profile", "exif", "gamma"} & set(image.info), photo.name  # read_rgb heeds no profile
            channels = image.split()
            assert all(low < high for low, high in image.getextrema()) and len({c.tobytes() for c in channels}) == 3
    assert sum(photo.stat().st_size for photo in PHOTOS) <= 600_000


def test_each_has_a_row_of_the_sources_and_each_row_a_photograph():
    assert [row[0].strip("`") for row in table()] == [photo.name for photo in PHOTOS]


def test_each_row_is_complete():
    for row in table():
        assert len(row) == len(HEADER) and all(row), row
        *_, licence, quoted, box = row
        assert re.match(r"public domain$|CC0( 1\.0)?$", licence) and re.match(r'".+"', quoted), row
        assert ("CC0" if "CC0" in licence else "public domain") in quoted, row
        left, upper, right, lower = map(int, re.fullmatch(r"\((\d+), (\d+), (\d+), (\d+)\)", box).groups())
        assert right - left == lower - upper >= 256, row


def test_the_config_composes_and_means_all_of_them(composed):
    data = composed("data=demo-photos").data
    assert (data.root, data.kind, data.resolution) == ("dataset/demo-photos", "images", 256)
    assert (data.start_id, data.end_id) == (0, None)


def test_the_setup_finds_them():
    state = {setting: state for setting, _, state, _ in check_setup.data_rows()}
    assert state["data=demo-photos"] == f"{len(PHOTOS)} files"
