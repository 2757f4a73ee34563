"""tools/check_measurement.py: what it prints of files that a run takes and of those it refuses, and what mends them."""

import shlex
import subprocess
import sys

import h5py
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from tools import check_measurement
from utils.errors import InputError
from utils.figures import style
from utils.paths import PROJECT

FRAME = 96


def intensity(center=(48, 48), side=FRAME, channels=3, number=3):
    """|FFT|^2 (channels, side, side) of a shipped scene, its zero frequency at `center`."""
    path = sorted((PROJECT / "dataset/demo-scenes").glob("*.png"))[number]
    picture = np.asarray(Image.open(path).convert("RGB"), float).transpose(2, 0, 1)[:channels] / 255
    pad = (side - 64) // 2
    rows, columns = (np.exp(2j * np.pi * (place - side // 2) * np.arange(side) / side) for place in center)
    padded = np.pad(picture, ((0, 0), (pad, pad), (pad, pad))) * rows[:, None] * columns
    return np.abs(np.fft.fftshift(np.fft.fft2(padded, norm="ortho"), axes=(-2, -1))) ** 2


@pytest.fixture
def checked(tmp_path, monkeypatch, capsys):
    """checked(path, *overrides) -> (exit status, what is printed); the page lies in the folder."""

    def check(path, *overrides):
        monkeypatch.setattr(sys, "argv", ["check_measurement.py", str(path), *overrides, "--out", str(tmp_path / "page.png")])
        with pytest.raises(SystemExit) as ended:
            check_measurement.main()
        return ended.value.code, capsys.readouterr().out

    return check


def recommended(text):
    (line,) = [line for line in text.splitlines() if line.startswith("recommended: ")]
    return shlex.split(line.removeprefix("recommended: "))


COUNTS = ("data.quantity=counts", "data.gain=250")


def test_a_right_file_needs_no_override_and_has_its_page(checked, tmp_path):
    np.save(tmp_path / "y.npy", np.random.default_rng(0).poisson(250 * intensity()))
    status, text = checked(tmp_path / "y.npy", *COUNTS, "model=demo-scenes")
    assert status == 0 and "recommended: no other override" in text
    assert "not to be known from a file: the exact gain" in text
    with Image.open(tmp_path / "page.png") as page:
        assert page.size == (1250, 1050)
        levels = np.asarray(page.convert("L"))
    assert all(quarter.std() > 20 for half in np.split(levels, 2) for quarter in np.split(half, 2, 1))  # none is empty


def test_no_text_of_the_page_is_a_formula(checked, tmp_path, monkeypatch):
    np.save(tmp_path / "y.npy", np.random.default_rng(0).poisson(250 * intensity()))
    kept = []
    monkeypatch.setattr(style, "save_figure", lambda figure, path, **options: kept.append(figure))
    checked(tmp_path / "y.npy", *COUNTS, "model=demo-scenes")
    kept[0].canvas.draw()
    texts = [text.get_text() for text in kept[0].findobj(Text)]
    style.plt.close(kept[0])
    assert any("magnitude" in text for text in texts) and not any("$" in text for text in texts)


def test_what_is_recommended_mends_what_was_found(checked, tmp_path):
    counts = np.random.default_rng(1).poisson(20 * intensity((50, 47)) + 10)
    np.save(tmp_path / "y.npy", counts)
    status, text = checked(tmp_path / "y.npy", "data.quantity=counts", "data.gain=20")
    assert status == 1
    overrides = recommended(text)
    assert "data.center=[50,47]" in overrides and any(each.startswith("data.background=") for each in overrides)
    assert checked(tmp_path / "y.npy", *overrides)[0] == 0


def test_a_stack_of_another_dataset_is_opened_and_told_how(checked, tmp_path):
    frames = np.random.default_rng(2).poisson(25 * intensity(channels=1), (8, FRAME, FRAME))
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["entry/data/frames"], file["entry/time"] = frames, np.arange(8.0)
    status, text = checked(tmp_path / "scan.h5")
    assert status == 1 and "reading it" in text and "entry/data/frames is the largest" in text
    overrides = recommended(text)
    assert {"data.dataset=entry/data/frames", "data.channels=1", "data.frame=sum", "data.quantity=counts"} < {*overrides}
    assert "the variance over the mean of 8 frames" in text
    status, text = checked(tmp_path / "scan.h5", *overrides)
    assert status == 0 and "recommended: no other override" in text


def test_a_grey_frame_alone_tells_the_whole_line(checked, tmp_path):
    counts = np.random.default_rng(3).poisson(2000 * intensity((50, 47), channels=1)[0] + 10)
    counts[48:53, 45:50] = -1
    np.save(tmp_path / "y.npy", counts)
    status, text = checked(tmp_path / "y.npy", "data.mask=[-2]")
    overrides = dict(each.split("=", 1) for each in recommended(text))
    assert status == 1 and overrides["data.mask"] == "[-2,-1]", "what was masked stays so"
    assert {key: overrides[key] for key in ("data.channels", "data.center", "data.quantity", "data.scale")} == {
        "data.channels": "1",
        "data.center": "[50,47]",
        "data.quantity": "counts",
        "data.scale": "free",
    }
    assert float(overrides["data.background"]) == pytest.approx(10, rel=0.1)
    assert 2000 / 3 < float(overrides["data.gain"]) < 6000
    assert "data.scale" in dict(each.split("=", 1) for each in recommended(checked(tmp_path / "y.npy", COUNTS[0])[1]))


def test_files_of_a_folder_that_say_different_things_are_told_apart(checked, tmp_path):
    for name, center in (("a", (49, 48)), ("b", (48, 46))):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).poisson(250 * intensity(center)))
    status, text = checked(tmp_path, *COUNTS)
    assert status == 1 and "the files differ: data.center=[49,48] (a.npy), data.center=[48,46] (b.npy)" in text


def test_negative_values_after_a_dark_frame_have_a_remedy(checked, tmp_path):
    np.save(tmp_path / "y.npy", np.random.default_rng(0).poisson(250 * intensity() + 3.0) - 3.0)
    status, text = checked(tmp_path / "y.npy", *COUNTS)
    assert status == 1 and "data.background=0" in recommended(text)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda path: path.write_bytes(b"nothing"), "nothing of it can be read"),
        (lambda path: np.save(path, np.zeros((2, 3, 4))), "no frame of real numbers"),
        (lambda path: np.save(path, np.zeros((96, 96), complex)), "no frame of real numbers"),
    ],
)
def test_what_cannot_be_read_at_all_is_one_line(make, said, checked, tmp_path):
    make(tmp_path / "y.npy")
    with pytest.raises(InputError, match=said) as refused:
        checked(tmp_path / "y.npy", "data.channels=1")
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="no such file"):
        checked(tmp_path / "other.npy")


def test_a_task_without_a_spectrum_is_refused(checked, tmp_path):
    np.save(tmp_path / "y.npy", np.zeros((3, 16, 16)))
    with pytest.raises(InputError, match="is no spectrum"):
        checked(tmp_path / "y.npy", "task=down_sampling")


@pytest.mark.program
def test_it_imports_no_torch(tmp_path):
    np.save(tmp_path / "y.npy", np.random.default_rng(0).poisson(250 * intensity()))
    code = (
        f"import sys; sys.argv = ['check', {str(tmp_path / 'y.npy')!r}, '--out', {str(tmp_path / 'page.png')!r}]\n"
        "from tools.check_measurement import main\n"
        "try:\n    main()\nexcept SystemExit:\n    print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=True)
    assert done.stdout.endswith("False\n")
