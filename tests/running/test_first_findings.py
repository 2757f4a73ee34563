"""What a run says of the first frames of a measurement before it samples, and what it refuses."""

import numpy as np
import pytest
from PIL import Image

from utils.errors import InputError
from utils.paths import PROJECT

pytestmark = pytest.mark.program

GAIN = 400.0


@pytest.fixture
def counts(tmp_path):
    """counts(center, ...) -> the overrides of a run on frames of 24 x 24 pixels with these zero frequencies."""
    folder = tmp_path / "measured"
    folder.mkdir()
    keys = ["data=measurement", f"data.root={folder}", "data.resolution=16", "data.end_id=null"]

    def write(*centers, change=lambda y: y):
        for i, center in enumerate(centers):
            path = sorted((PROJECT / "dataset/demo-scenes").glob("*.png"))[i]
            picture = np.asarray(Image.open(path).convert("RGB").resize((16, 16)), float).transpose(2, 0, 1) / 255
            rows, columns = (np.exp(2j * np.pi * (place - 12) * np.arange(24) / 24) for place in center)
            padded = np.pad(picture, ((0, 0), (4, 4), (4, 4))) * rows[:, None] * columns
            intensity = np.abs(np.fft.fftshift(np.fft.fft2(padded, norm="ortho"), axes=(-2, -1))) ** 2
            np.save(folder / f"{i}.npy", change(np.random.default_rng(i).poisson(GAIN * intensity)))
        return [*keys, "data.quantity=counts", f"data.gain={GAIN}"]

    return write


def test_an_off_centre_frame_is_refused_unless_its_centre_is_told(run, counts, monkeypatch, tmp_path):
    import sampler

    overrides = counts((13, 12), (13, 12))
    with monkeypatch.context() as patch:
        patch.setattr(sampler.LatentDAPS, "sample", lambda *a, **k: pytest.fail("sampled"))
        with pytest.raises(InputError) as refused:
            run(*overrides)
    text = str(refused.value)
    assert "0.npy (and 1 more files): its zero frequency lies at row 13, column 12 of the file, not 12 and 12" in text
    assert "data.center=[13,12] takes it from there, and data.center=[12,12] insists" in text and "\n" not in text
    folder, metrics = run(*overrides, "data.center=[13,12]")
    assert metrics["metadata"]["num_images"] == 2 and "implausible" not in (folder / "run.log").read_text()
    folder, _ = run(*overrides, "data.center=[12,12]", "resume=false")
    assert "data.center=[13,12]?" in (folder / "run.log").read_text()


def test_a_hot_pixel_is_one_warning(run, counts):
    def heat(y):
        y[:, 3, 5] = 30_000
        return y

    folder, _ = run(*counts((12, 12), (12, 12), change=heat))
    warnings = [line for line in (folder / "run.log").read_text().splitlines() if "hot pixels?" in line]
    assert len(warnings) == 1 and "0.npy (and 1 more files)" in warnings[0]
