"""The images that a prior is trained on: the split by hash, what is kept of a folder, and which input is refused."""

import numpy as np
import pytest
from PIL import Image

from tools.demo_prior.real_images import Folder
from tools.demo_prior.training_images import ImageFolder, is_held_out
from utils.data import TestImage
from utils.errors import InputError


@pytest.fixture
def pictures(tmp_path):
    """41 images of several sizes, modes and kinds of file, 40 of them of one colour each that no other has."""
    root = tmp_path / "pictures"
    for i in range(40):
        path = root / ("a", "b/c")[i % 2] / f"{i:02d}.{('png', 'jpg', 'JPEG', 'tif', 'webp', 'BMP')[i % 6]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(("RGB", "L")[i % 5 == 0], (20 + i, 50 - i), 6 * i if i % 5 == 0 else (6 * i, 255 - 6 * i, 3 * i)).save(path)
    grey = np.arange(0, 65000, 65, dtype=np.uint16).reshape(25, 40)
    Image.fromarray(grey).save(root / "sixteen_bits.tiff")
    return root


def folder(pictures, tmp_path, share=0.25, resolution=8):
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    return ImageFolder(pictures, resolution, share, work)


def test_the_split_is_by_path_alone_and_has_the_wanted_share():
    paths = [f"folder/{i}.png" for i in range(4000)]
    held_out = {path for path in paths if is_held_out(path, 0.1)}
    assert 0.08 < len(held_out) / len(paths) < 0.12
    assert held_out < {path for path in paths if is_held_out(path, 0.2)}, "a larger share keeps what was held out"
    # pinned: a prior's held_out.txt must be found again by every later version
    assert [i for i in range(40) if is_held_out(f"folder/{i}.png", 0.1)] == [22]


def test_other_images_in_the_folder_do_not_move_the_split(pictures, tmp_path):
    before = folder(pictures, tmp_path)
    for i in range(20):
        Image.new("RGB", (9, 9)).save(pictures / f"new_{i}.png")
    after = folder(pictures, tmp_path)
    assert set(before.held_out) < set(after.held_out) and set(before.trained) < set(after.trained)


def test_held_out_images_are_disjoint_and_never_in_the_training_array(pictures, tmp_path):
    split = folder(pictures, tmp_path)
    split.prepare()
    assert not set(split.held_out) & set(split.trained) and len(split.held_out) + len(split.trained) == 41
    trained = np.load(tmp_path / "work/images_8.npy")
    held_out = split.read(split.held_out)
    assert trained.shape == (len(split.trained), 3, 8, 8) and trained.dtype == np.uint8
    assert not {image.tobytes() for image in trained} & {image.tobytes() for image in held_out}
    assert (tmp_path / "work/held_out.txt").read_text().splitlines() == split.held_out
    linked = Folder(tmp_path / "work/held_out")
    assert [file.relative_to(linked.root).as_posix() for file in linked.files] == split.held_out
    assert all(file.read_bytes() == (pictures / path).read_bytes() for file, path in zip(linked.files, split.held_out))


def test_links_follow_a_folder_that_has_moved(pictures, tmp_path):
    folder(pictures, tmp_path).prepare()
    moved = folder(pictures.rename(tmp_path / "moved"), tmp_path)
    moved.prepare()
    assert len(Folder(tmp_path / "work/held_out").files) == len(moved.held_out) > 0


def test_training_images_are_what_the_sampler_takes_for_truth(pictures, tmp_path):
    split = folder(pictures, tmp_path)
    for kept, path in zip(split.training_images(), split.trained):
        taken = TestImage(0, pictures / path).pixels(8)
        np.testing.assert_allclose(kept / 127.5 - 1, taken, atol=1 / 255 + 1e-6)  # half a grey value of rounding


def test_a_work_folder_of_other_images_is_refused(pictures, tmp_path):
    folder(pictures, tmp_path).prepare()
    folder(pictures, tmp_path).prepare()
    for other in (lambda: folder(pictures, tmp_path, share=0.5), lambda: folder(pictures, tmp_path, resolution=16)):
        with pytest.raises(InputError, match="was started with other images"):
            other().prepare()
    Image.new("RGB", (9, 9)).save(pictures / "new.png")
    with pytest.raises(InputError, match="was started with other images"):
        folder(pictures, tmp_path).prepare()


def test_every_kind_of_file_is_read(pictures, tmp_path):
    split = folder(pictures, tmp_path)
    kinds = {path.rsplit(".")[-1].lower() for path in split.trained + split.held_out}
    assert kinds == {"png", "jpg", "jpeg", "tif", "tiff", "webp", "bmp"}
    ramp = split.read(["sixteen_bits.tiff"])
    assert abs(ramp.mean() - 255 * 32500 / 65535) < 2, "16 bits are scaled, not clipped"


def test_a_file_of_several_pictures_is_refused(pictures, tmp_path):
    pages = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    pages[0].save(pictures / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="pages.tif cannot be read .holds 2 pictures"):
        folder(pictures, tmp_path).read(["pages.tif"])


def test_a_damaged_image_is_named(pictures, tmp_path):
    split = folder(pictures, tmp_path)
    damaged = pictures / split.trained[3]
    damaged.write_bytes(damaged.read_bytes()[:60])
    with pytest.raises(InputError, match=f"{damaged.name} cannot be read"):
        split.prepare()
    assert not (tmp_path / "work/data.json").exists() and not (tmp_path / "work/images_8.npy").exists()


@pytest.mark.parametrize("name", ["data.json", "images_8.npy"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00v\x00{", b"[" * 100_000, "half"])
def test_what_a_power_loss_left_of_a_file_is_one_line(pictures, tmp_path, name, content):
    split = folder(pictures, tmp_path)
    split.prepare()
    path = tmp_path / "work" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content == "half" else content)
    with pytest.raises(InputError, match=f"{name} is damaged .*; remove it, and the same command makes it anew") as refused:
        split.prepare()
    assert "\n" not in str(refused.value)
    path.unlink()
    split.prepare()


def test_an_array_of_another_shape_is_one_line_before_it_is_read(pictures, tmp_path):
    split = folder(pictures, tmp_path)
    split.prepare()
    with open(tmp_path / "work/images_8.npy", "wb") as file:  # terabytes, of which nothing is on the disk
        header = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 3, 1024, 1024)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 3 * 10**6 * 1024**2)
    with pytest.raises(InputError, match="images_8.npy is damaged .is uint8 .1000000, 3, 1024, 1024"):
        split.prepare()


@pytest.mark.parametrize("content, told", [("null", "damaged"), ("[]", "damaged"), ("7", "damaged"), ("{}", "other images")])
def test_a_record_of_another_shape_is_one_line(pictures, tmp_path, content, told):
    split = folder(pictures, tmp_path)
    split.prepare()
    (tmp_path / "work/data.json").write_text(content)
    with pytest.raises(InputError, match=told):
        split.prepare()
