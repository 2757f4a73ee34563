"""A folder of images that changed after records were made from it: ids never shift without a word."""

import shutil

import numpy as np
import pytest
from PIL import Image

from utils.errors import InputError

pytestmark = pytest.mark.program


@pytest.fixture
def images(tiny_images, tmp_path):
    """A folder with three images, 001.png to 003.png."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in (1, 2, 3):
        shutil.copy(tiny_images / f"{i:05d}.png", folder / f"{i:03d}.png")
    return folder


def add(folder, name):
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(folder / name)


CHANGES = {
    "the last one is gone": (lambda f: (f / "003.png").unlink(), [], "003.png, and now there is no 2"),
    "the first one is gone": (lambda f: (f / "001.png").unlink(), ["data.start_id=1"], "was made from"),
    "one more comes first": (lambda f: add(f, "000.png"), ["data.start_id=3"], "001.png, and now 0 is 000.png"),
    "one more in another format": (lambda f: add(f, "000.bmp"), ["data.start_id=3"], "001.png, and now 0 is 000.bmp"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_image_added_or_removed_since_is_refused(change, run, images):
    alter, overrides, word = CHANGES[change]
    arguments = [f"data.root={images}", "data.end_id=null", "num_samples=1"]
    folder, _ = run(*arguments)
    before = {path: path.read_bytes() for path in (folder / "records").iterdir()}
    alter(images)
    with pytest.raises(InputError, match=word) as caught:
        run(*arguments, *overrides)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in (folder / "records").iterdir()} == before


def test_images_added_after_the_last_one_are_sampled_on(run, images):
    arguments = [f"data.root={images}", "data.end_id=null", "num_samples=1"]
    run(*arguments)
    add(images, "004.png")
    _, metrics = run(*arguments)
    assert metrics["metadata"]["image_ids"] == [0, 1, 2, 3]
