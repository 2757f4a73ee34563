"""The images that a prior is trained on: the split by hash, what is kept of a folder, and which input is refused."""

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from tools.demo_prior.real_images import Folder
from tools.demo_prior.training_images import ImageFolder, check_data, is_held_out
from utils.data import TestImage
from utils.errors import InputError
from utils.paths import PROJECT


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


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["data.flip=true"], "data.flip=True: the drawn families have False"),
        (["data.resolution=32"], "data.resolution=32: the drawn families have 64"),
        (["data.root=x", "data.held_out=1"], "data.held_out=1: is a share"),
        (["data.root=x", "data.resolution=40"], "data.resolution=40: autoencoder and UNet halve it 4 times"),
        (["data.root=x", "data.resolution=8"], "use a multiple of 16"),
        (["data.root=x", "unet.channels=[32,40]"], "unet.channels=[32, 40]: the last one has attention"),
        (["data.root=x", "autoencoder.channels=[16,18]"], "autoencoder.channels=[16, 18]: use multiples of 4"),
    ],
)
def test_what_cannot_be_trained_is_refused(overrides, message):
    cfg = OmegaConf.merge(OmegaConf.load(PROJECT / "configs/train_prior.yaml"), OmegaConf.from_dotlist(overrides))
    with pytest.raises(InputError) as refused:
        check_data(cfg)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_the_shipped_configuration_passes():
    check_data(OmegaConf.load(PROJECT / "configs/train_prior.yaml"))
