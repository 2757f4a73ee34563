"""Image folders of any kind, measurements without a truth, and whole runs on them from the command line."""

import os
import re
import struct
import subprocess
import sys
import zlib
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile
from torchvision import transforms

from tests.worlds import runs
from utils.conventions import Convention
from utils.data import Measurement, TestImage, read_rgb, select_images
from utils.errors import InputError
from utils.formats import CXI_DATA
from utils.paths import PROJECT
from utils.records.files import read_record

GRADIENT = np.linspace(0, 255, 40 * 30 * 3).reshape(40, 30, 3).astype(np.uint8)


def save(tmp_path, image, name="a.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def settings(root, kind="images", start_id=0, end_id=None, shard=(0, 1), shape=None):
    chosen = {"root": str(root), "kind": kind, "start_id": start_id, "end_id": end_id, "source": "the source"}
    data = SimpleNamespace(**chosen, **asdict(Convention()), linked_folders=[])
    return SimpleNamespace(data=data, shard_of=shard, measured_shape=shape, own_frame=None, kept_background=0.0)


@pytest.mark.parametrize("size", [(30, 40), (300, 200), (64, 64), (65, 64), (1, 7)])
def test_resized_and_cropped_as_the_official_code_does(size, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path = save(tmp_path, Image.fromarray(pixels))
    official = transforms.Compose([transforms.ToTensor(), transforms.Resize(64), transforms.CenterCrop(64)])
    ours = TestImage(0, path).pixels(64)
    assert ours.shape == (3, 64, 64) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, official(Image.fromarray(pixels)).numpy() * 2 - 1, atol=1e-6)


def test_image_of_the_right_size_is_untouched(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    ours = TestImage(0, save(tmp_path, Image.fromarray(pixels))).pixels(16)
    np.testing.assert_array_equal(np.round((ours.transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8), pixels)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "RGB"])
def test_every_mode_becomes_three_channels(mode, tmp_path):
    rgb = read_rgb(save(tmp_path, Image.fromarray(GRADIENT).convert(mode)))
    assert rgb.shape == (40, 30, 3) and rgb.dtype == np.float32 and 0 <= rgb.min() <= rgb.max() <= 1
    if mode in ("L", "LA", "1"):
        assert (rgb == rgb[..., :1]).all()
    elif mode != "P":
        np.testing.assert_allclose(rgb, GRADIENT / 255, atol=1e-6)


def test_sixteen_bit_grey_keeps_its_precision(tmp_path):
    values = np.arange(40 * 30, dtype=np.uint16).reshape(40, 30) + 30000
    rgb = read_rgb(save(tmp_path, Image.fromarray(values)))
    np.testing.assert_allclose(rgb[..., 1], values / 65535, atol=1e-7)
    assert len(np.unique(rgb)) == 1200  # eight bits would leave five


def test_transparent_parts_are_laid_on_white(tmp_path):
    rgba = np.zeros((8, 8, 4), dtype=np.uint8)
    rgba[:4, :, 3] = 255
    rgb = read_rgb(save(tmp_path, Image.fromarray(rgba)))
    assert (rgb[:4] == 0).all() and (rgb[4:] == 1).all()


def test_palette_with_a_transparent_colour(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    assert (read_rgb(save(tmp_path, image, transparency=1)) == 1).all()
    assert (read_rgb(save(tmp_path, image, "b.png"))[0, 0] == [1, 0, 0]).all()


@pytest.mark.parametrize("orientation, turned", [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_rotation_is_applied(orientation, turned, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = read_rgb(save(tmp_path, Image.fromarray(GRADIENT), "a.png"))
    rgb = read_rgb(save(tmp_path, Image.fromarray(GRADIENT), "b.png", exif=exif))
    np.testing.assert_array_equal(rgb, np.rot90(plain, turned))


def test_cmyk_jpeg_is_read(tmp_path):
    assert read_rgb(save(tmp_path, Image.fromarray(GRADIENT).convert("CMYK"), "a.jpg")).shape == (40, 30, 3)


def test_ids_are_positions_in_the_whole_sorted_set(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("b.png", "a.JPEG", "sub/c.jpg", ".hidden/x.png", "._y.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    names = [item.path.name for item in select_images(settings(tmp_path))]
    assert names == ["a.JPEG", "b.png", "c.jpg"]
    assert [(i.id, i.path.name) for i in select_images(settings(tmp_path, start_id=1))] == [(1, "b.png"), (2, "c.jpg")]
    assert [i.id for i in select_images(settings(tmp_path, shard=(1, 2)))] == [1]


@pytest.mark.parametrize(
    "name, content, word",
    [
        ("a.png", b"", "cannot be read"),
        ("a.png", b"\x89PNG\r\n", "cannot be read"),
        ("a.gif", b"x", "no PNG, JPEG, TIFF, WEBP or BMP image in .*left out: a.gif"),
        (None, None, "not found"),
    ],
)
def test_bad_image_folders_are_one_line(name, content, word, tmp_path):
    root = tmp_path / "set"
    if name:
        root.mkdir()
        (root / name).write_bytes(content)
    with pytest.raises(InputError, match=word) as caught:
        select_images(settings(root))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.tif", "a.TIFF", "a.webp", "a.bmp"])
def test_other_lossless_formats_are_the_same_image(name, tmp_path):
    save(tmp_path, Image.fromarray(GRADIENT), name, **({"lossless": True} if "webp" in name else {}))
    (item,) = select_images(settings(tmp_path))
    np.testing.assert_allclose(read_rgb(item.path), GRADIENT / 255, atol=1e-6)


def test_truncated_files_of_every_format_are_one_line(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for suffix in ("png", "jpg", "tif", "webp", "bmp"):
        folder = tmp_path / suffix
        folder.mkdir()
        path = save(folder, noise, f"a.{suffix}")
        whole = path.read_bytes()
        for keep in (0, 4, 20, 200, len(whole) // 2):
            path.write_bytes(whole[:keep])
            with pytest.raises(InputError, match="cannot be read"):
                select_images(settings(folder))


@pytest.mark.parametrize("highest, white", [(0, 4095), (255, 4095), (4095, 4095), (4096, 65535), (65535, 65535)])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_twelve_bits_in_sixteen_have_their_white_at_4095_and_it_is_said(highest, white, name, tmp_path, caplog):
    values = np.zeros((8, 8), np.uint16)
    values[0, 0] = highest
    save(tmp_path, Image.fromarray(values), name)
    with caplog.at_level("INFO", "latentdaps"):
        (item,) = select_images(settings(tmp_path))
    assert read_rgb(item.path)[0, 0, 0] == pytest.approx(highest / white)
    assert (f"read as 12-bit, white at 4095: {name}" in caplog.text) == (white == 4095)


def profile(gamma=None):
    """An ICC profile with the primaries of sRGB and a curve value ** gamma; None: sRGB's own."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    if gamma is not None:
        tags = int.from_bytes(content[128:132], "big")
        for at in range(132, 132 + 12 * tags, 12):
            if content[at : at + 4] in (b"rTRC", b"gTRC", b"bTRC"):
                start = int.from_bytes(content[at + 4 : at + 8], "big")
                content[start : start + 14] = b"curv\0\0\0\0\0\0\0\1" + round(gamma * 256).to_bytes(2, "big")
                content[at + 8 : at + 12] = (14).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_colour_profile_is_converted_to_srgb_and_said(mode, name, tmp_path, caplog):
    level = 64
    image = Image.new("RGBA", (8, 8), (level, level, level, 255)).convert(mode)
    path = save(tmp_path, image, name, icc_profile=profile(1.0))
    linear = level / 255
    expected = 1.055 * linear ** (1 / 2.4) - 0.055  # IEC 61966-2-1
    np.testing.assert_allclose(read_rgb(path), expected, atol=1.5 / 255)
    with caplog.at_level("INFO", "latentdaps"):
        select_images(settings(tmp_path))
    assert f"colour profiles are converted to sRGB: {name}" in caplog.text


def test_a_profile_of_srgb_changes_no_bit(tmp_path, caplog):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    path = save(tmp_path, Image.fromarray(pixels), icc_profile=profile())
    np.testing.assert_array_equal(read_rgb(path), pixels.astype(np.float32) / 255)
    with caplog.at_level("INFO", "latentdaps"):
        select_images(settings(tmp_path))
    assert caplog.text == ""


@pytest.mark.parametrize("image", [Image.new("RGB", (8, 8), "red"), Image.fromarray(np.full((8, 8), 60000, np.uint16))])
def test_a_profile_that_cannot_be_applied_is_a_warning(image, tmp_path, caplog):
    content = b"no profile at all" if image.mode == "RGB" else profile(1.0)
    path = save(tmp_path, image, icc_profile=content)
    np.testing.assert_allclose(read_rgb(path)[0, 0, 0], 1.0 if image.mode == "RGB" else 60000 / 65535)
    with caplog.at_level("INFO", "latentdaps"):
        select_images(settings(tmp_path))
    assert "colour profiles that cannot be applied are left out" in caplog.text and "WARNING" in caplog.text


def test_transparency_beside_a_profile_stays(tmp_path):
    path = save(tmp_path, Image.new("RGBA", (8, 8), (0, 0, 0, 0)), icc_profile=profile(1.0))
    np.testing.assert_array_equal(read_rgb(path), 1.0)


@pytest.mark.parametrize(
    "values, word", [([[0.0, 1.5]], "grey from 0.0 to 1.5"), ([[-1, 2]], "grey from -1 to 2"), ([[0.0, 1.0]], None)]
)
def test_grey_of_an_unknown_range_is_refused(values, word, tmp_path):
    array = np.array(values)
    path = save(tmp_path, Image.fromarray(array.astype(np.float32 if array.dtype.kind == "f" else np.int32)), "a.tif")
    if word is None:
        np.testing.assert_array_equal(read_rgb(path)[0, :, 0], values[0])
        return
    with pytest.raises(InputError, match=word):
        select_images(settings(tmp_path))


def test_a_file_of_several_pictures_is_refused(tmp_path):
    pages = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue")]
    save(tmp_path, pages[0], "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="holds 3 pictures"):
        select_images(settings(tmp_path))


def test_what_is_not_read_is_counted_and_named_in_one_line(tmp_path, caplog):
    for name in ("b.png", "a.jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    for name in ("x.gif", "notes.txt", ".hidden", "y.heic"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with caplog.at_level("INFO", "latentdaps"):
        assert [item.path.name for item in select_images(settings(tmp_path))] == ["a.jpg", "b.png"]
    assert len(caplog.records) == 1
    assert "4 files are no PNG" in caplog.text and "left out: gone.png, notes.txt, x.gif and 1 more" in caplog.text
    for name in ("x.gif", "y.heic", "gone.png"):
        (tmp_path / name).unlink()
    with caplog.at_level("INFO", "latentdaps"):
        select_images(settings(tmp_path))
    assert "1 file is no PNG" in caplog.records[-1].getMessage()


def test_linked_folders_are_followed_and_loops_end(tmp_path):
    root, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    for folder in (root / "sub", elsewhere):
        folder.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / "i.png")
    (root / "linked").symlink_to(elsewhere)
    (root / "sub" / "up").symlink_to(root)
    (elsewhere / "back").symlink_to(root / "sub")
    (root / "self").symlink_to(root / "self")
    names = [str(item.path.relative_to(root)) for item in select_images(settings(root))]
    assert names == ["linked/back/i.png", "linked/i.png", "sub/i.png"]


def png_bomb(path, side):
    """A PNG of `side` x `side` grey pixels, all zero, in a few kB."""
    deflate, row = zlib.compressobj(9), bytes(1 + side // 8)
    lines = b"".join(deflate.compress(row) for _ in range(side)) + deflate.flush()
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)), (b"IDAT", lines), (b"IEND", b"")]
    packed = (struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def test_a_picture_that_would_need_all_memory_is_refused_before_it_is_read(tmp_path, recwarn, monkeypatch):
    png_bomb(tmp_path / "a.png", 13_000)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("it was read"))
    with pytest.raises(
        InputError, match=r"a\.png cannot be read \(has 13000 x 13000 pixels; at most 67108864 are .*smaller\)$"
    ) as caught:
        select_images(settings(tmp_path))
    with pytest.raises(ValueError, match="13000 x 13000"):
        read_rgb(tmp_path / "a.png")
    assert "\n" not in str(caught.value) and not recwarn.list


def test_a_measurement_larger_than_the_task_measures_is_refused_before_it_is_read(tmp_path, monkeypatch):
    np.save(tmp_path / "y.npy", np.zeros((3, 10, 8)))
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(InputError, match=r"y\.npy has shape \(3, 10, 8\); this task measures \(3, 8, 8\)$"):
        select_images(settings(tmp_path, "measurement", shape=(3, 8, 8)))


def test_a_single_number_is_no_measurement(tmp_path):
    np.save(tmp_path / "y.npy", np.float32(3))
    with pytest.raises(InputError, match="holds a single number, and no picture or spectrum"):
        select_images(settings(tmp_path, "measurement"))


def test_links_that_multiply_are_refused(tmp_path):
    folders = [tmp_path / "set" / f"{i:02d}" for i in range(40)]
    for folder in folders:
        folder.mkdir(parents=True)
    for folder, following in zip(folders, folders[1:]):
        (folder / "a").symlink_to(following)
        (folder / "b").symlink_to(following)
    Image.new("RGB", (4, 4)).save(folders[-1] / "i.png")
    with pytest.raises(InputError, match=r"^data\.root: links lead into .* in more than 16 ways") as caught:
        select_images(settings(tmp_path / "set"))
    assert "\n" not in str(caught.value)


def test_a_folder_of_everything_is_no_set(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"^data\.root=/: is the whole machine; name the folder of the set$"):
        select_images(settings(Path("/")))
    monkeypatch.setattr("utils.data.MOST_FILES", 3)
    (tmp_path / "inner").mkdir()
    for name in ("a.png", "inner/b.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert len(select_images(settings(tmp_path))) == 2
    (tmp_path / "inner" / "notes.txt").write_text("")
    with pytest.raises(InputError, match=r"^data\.root=.*: holds more than 3 files and folders; name the folder of the set$"):
        select_images(settings(tmp_path))


def test_what_the_system_shows_of_itself_is_no_data(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "i.png")
    (tmp_path / "processes").symlink_to("/proc")
    assert [item.path.name for item in select_images(settings(tmp_path))] == ["i.png"]
    with pytest.raises(InputError, match="no PNG, JPEG, TIFF, WEBP or BMP image in /proc$"):
        select_images(settings("/proc"))


def test_folders_deeper_than_the_longest_path_are_left_out(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "i.png")
    monkeypatch.chdir(tmp_path)
    for _ in range(30):  # each a step further, since the whole path would be too long for one call
        Path("x" * 200).mkdir()
        os.chdir("x" * 200)
    assert [item.path.name for item in select_images(settings(tmp_path))] == ["i.png"]
    with pytest.raises(InputError, match="not found"):
        select_images(settings(f"{tmp_path}/{'y' * 250}/{'z' * 4000}"))


def test_truncated_image_is_found_before_sampling(tmp_path):
    path = save(tmp_path, Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="a.png cannot be read"):
        select_images(settings(tmp_path))


def test_measurement_is_read_as_float32_without_a_leading_axis(tmp_path):
    y = np.random.default_rng(0).standard_normal((1, 3, 5, 5))
    np.save(tmp_path / "y.npy", y)
    (item,) = select_images(settings(tmp_path, "measurement"))
    assert isinstance(item, Measurement)
    np.testing.assert_array_equal(item.values(), y[0].astype(np.float32))
    assert item.values().dtype == np.float32


def test_a_file_of_another_format_is_not_opened_whatever_its_name_says(tmp_path, monkeypatch):
    """EPS is a program, and Pillow would hand it to Ghostscript."""
    Image.new("RGB", (16, 16)).save(tmp_path / "a.eps")
    path = (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(OSError, match="cannot identify image file"):
        read_rgb(path)
    save(tmp_path, Image.new("RGB", (16, 16)), "b.gif").rename(tmp_path / "b.png")
    with pytest.raises(OSError, match="cannot identify image file"):
        read_rgb(tmp_path / "b.png")


@pytest.mark.parametrize(
    "content, word",
    [
        (np.array([1j]), "complex"),
        (np.array([np.nan]), "finite"),
        (np.array([1e40]), "holds float64 values whose squares are not all finite in float32"),
        (np.array([-2e19]), "holds float64 values whose squares are not all finite in float32"),
        (np.array([{}], dtype=object), "cannot be read"),
        (None, "cannot be read"),
        ({"y": np.ones(2)}, "archive of several arrays"),
    ],
)
def test_bad_measurements_are_one_line(content, word, tmp_path):
    if isinstance(content, dict):
        with open(tmp_path / "y.npy", "wb") as file:
            np.savez(file, **content)
    elif content is None:
        (tmp_path / "y.npy").write_bytes(b"\x93NUMPY")
    else:
        np.save(tmp_path / "y.npy", content, allow_pickle=True)
    with pytest.raises(InputError, match=word) as caught:
        select_images(settings(tmp_path, "measurement"))
    assert "\n" not in str(caught.value) and str(caught.value).endswith("; replace or remove it")


def test_a_whole_file_that_is_refused_says_how_it_would_do_and_not_to_remove_it(tmp_path):
    (tmp_path / "numbers").write_bytes(bytes(4))
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file.create_dataset(CXI_DATA, shape=(4,), dtype="u1", external=[(str(tmp_path / "numbers"), 0, 4)])
    with pytest.raises(
        InputError, match=r"cannot be read \(.* external raw storage, .*; save the numbers in the file itself\)$"
    ):
        select_images(settings(tmp_path, "measurement"))


# whole runs


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_prior):
    """A place for tiny runs with two images of another size than the prior's."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "pixels").mkdir()
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (50, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"pixels/{i}.png")
    return runs.Place(folder, tiny_prior, folder / "pixels")


@pytest.mark.program
def test_run_on_measurements_has_null_scores_a_pick_and_its_loss(place, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    paths = sorted((place.run("truth", "data=folder") / "records").glob("*.npz"))
    (place.folder / "measured").mkdir()
    for i, path in enumerate(paths):
        np.save(place.folder / f"measured/{i}.npy", read_record(path)[1]["y"])
    measured = place.run("measured", "data=measurement", f"data.root={place.folder / 'measured'}")
    printed = capsys.readouterr().out
    metrics = runs.metrics_of(measured)
    assert metrics["psnr"]["sample"] == [[None, None]] * 2 and metrics["psnr"]["max"] == [None, None]
    assert metrics["modes"] is None and metrics["selection"]["psnr"] == [None, None]
    records = [read_record(p) for p in sorted(measured.glob("records/*.npz"))]
    for (record, arrays), path in zip(records, paths):
        with_truth, its_arrays = read_record(path)
        assert record["selection"]["picked"] == with_truth["selection"]["picked"]
        assert record["loss"] == with_truth["loss"] and "truth" not in arrays
        np.testing.assert_array_equal(arrays["z"], its_arrays["z"])  # the same y, the same noise, the same result
        assert record["loss"][record["selection"]["picked"]] == min(record["loss"])
    assert (measured / "grid_results.png").stat().st_size > 1000
    shown, log = (measured / "eval.md").read_text(), (measured / "run.log").read_text()
    for i, (record, _) in enumerate(records):
        loss, floor = min(record["loss"]), record["noise_floor"]
        assert metrics["loss"]["sample"][i] == record["loss"] and metrics["loss"]["noise_floor"][i] == floor
        assert metrics["loss"]["ratio"][i] == [value / floor for value in record["loss"]]
        assert (
            f"| {i} ({record['file']}) | p{record['selection']['picked']} | {loss:.5g} | {floor:.5g} | {loss / floor:.3f} |"
            in shown
        )
        assert f"image {i} ({record['file']}): lowest loss / floor {loss / floor:.3f}, " in log
    assert "loss / noise floor" in printed


@pytest.mark.heavy
def test_measurement_of_the_wrong_shape_is_one_line(place):
    (place.folder / "wrong").mkdir()
    np.save(place.folder / "wrong/y.npy", np.zeros((2, 24, 24)))
    with pytest.raises(InputError, match=re.escape("has shape (2, 24, 24); this task measures (3, 24, 24)")) as caught:
        place.run("wrong", "data=measurement", f"data.root={place.folder / 'wrong'}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides, word",
    [
        (["data=folder"], "data.root"),
        (["data=folder", "data.root=/absent"], "data.root=/absent"),
        (["data=test-ffhq", "data.resolution=16"], "test-ffhq"),
        (
            ["task_group=pixel"],
            "demo_langevin, demo_hmc, demo_low_noise, photographs, demo_hard, demo_budget, ldm_langevin, "
            "ldm_langevin_public, ldm, sd",
        ),
        (["model.path=/absent/model.ckpt"], "/absent/model.ckpt"),
        (["model.weights=best"], "model.weights"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_no_folder(overrides, word, place):
    model = ("model=ffhq256ldm", f"model.path={place.prior}", "model.resolution=16", "task_group=demo_langevin")
    data = () if any(o.startswith("data=") for o in overrides) else ("data=folder", f"data.root={place.images}")
    with pytest.raises(InputError) as caught:
        runs.run("gpu=-1", *model, *data, f"save_dir={place.folder / 'results'}", "name=refused", *overrides)
    assert word in str(caught.value) and "\n" not in str(caught.value)
    assert not place.path("refused").exists()


@pytest.mark.program
def test_group_that_a_task_does_not_have_lists_those_it_has():
    done = subprocess.run(
        [sys.executable, str(PROJECT / "posterior_sample.py"), "task=nonlinear_blur"],
        capture_output=True,
        text=True,
        cwd=PROJECT,
    )
    assert done.returncode == 2 and "task_group=demo_langevin" in done.stderr and "ldm, ldm_langevin, sd" in done.stderr


def test_files_that_measurements_are_read_from_by_links_are_listed(tmp_path, caplog):
    (tmp_path / "data/.raw").mkdir(parents=True)  # hidden: no measurements of their own
    for name in "ab":
        with h5py.File(tmp_path / f"data/.raw/{name}.h5", "w") as file:
            file["y"] = np.ones((3, 8, 8))
        with h5py.File(tmp_path / f"data/{name}.h5", "w") as file:
            file[CXI_DATA] = h5py.ExternalLink(f".raw/{name}.h5", "y")
    with caplog.at_level("INFO", "latentdaps"):
        assert len(select_images(settings(tmp_path / "data", "measurement"))) == 2
    assert f"have their data read from {tmp_path}/data/.raw/a.h5, {tmp_path}/data/.raw/b.h5" in caplog.text


def test_a_digest_is_also_of_the_files_that_a_file_links_to(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file[CXI_DATA] = h5py.ExternalLink(".b.h5", "y")
    digests = set()
    for value in (1.0, 2.0):
        with h5py.File(tmp_path / ".b.h5", "w") as file:
            file["y"] = np.full((3, 8, 8), value)
        digests.add(select_images(settings(tmp_path, "measurement"))[0].digest())
    assert len(digests) == 2


def test_the_root_may_be_one_file_of_the_kind(tmp_path):
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, np.arange(27.0).reshape(3, 3, 3))
    assert [item.name for item in select_images(settings(tmp_path / "b.npy", "measurement"))] == ["b.npy"]
    Image.new("RGB", (4, 4)).save(tmp_path / "i.png")
    assert [item.name for item in select_images(settings(tmp_path / "i.png"))] == ["i.png"]
    with pytest.raises(InputError, match=r"no \.npy, .* file in .*i\.png; left out: i\.png$"):
        select_images(settings(tmp_path / "i.png", "measurement"))


def test_a_file_that_another_has_its_data_read_from_is_no_item_of_its_own(tmp_path):
    with h5py.File(tmp_path / "data_1.h5", "w") as file:
        file["entry_1/data_1/data"] = np.arange(27.0).reshape(3, 3, 3)
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["entry_1/data_1/data"] = h5py.ExternalLink("data_1.h5", "/entry_1/data_1/data")
    assert [item.name for item in select_images(settings(tmp_path, "measurement"))] == ["master.h5"]
