"""Measurements from elsewhere: all that is wrong with them is known before sampling, and too large ones are diverged."""

import numpy as np
import pytest

from utils.errors import InputError
from utils.records.files import read_record

SHAPE = (3, 24, 24)  # of a 16-pixel image's padded spectrum


@pytest.fixture
def measurements(tmp_path):
    """measurements(array, ...) -> the overrides of a run on these files, in their order."""
    folder = tmp_path / "measured"
    folder.mkdir()

    def write(*arrays):
        for i, y in enumerate(arrays):
            np.save(folder / f"{i}.npy", y)
        return ["data=measurement", f"data.root={folder}", "data.resolution=16", "data.end_id=null"]

    return write


def spectrum(scale=1.0):
    return scale * np.abs(np.random.default_rng(0).standard_normal(SHAPE)).astype(np.float32)


def test_loss_beyond_float32_is_diverged_and_drawn(run, measurements):
    folder, metrics = run(*measurements(spectrum(1e30), spectrum()), "num_samples=2", "pruning_step=700", pictures=True)
    assert metrics["diverged"][0] == [True, True] and metrics["diverged"][1] == [False, False]
    assert metrics["selection"]["picked"][0] is None and metrics["selection"]["picked"][1] is not None
    record, arrays = read_record(folder / "records" / "00000.npz")
    assert record["loss"] == [None, None] and np.isfinite(arrays["z"]).all()
    assert "image 0: particle 0 became non-finite" in (folder / "run.log").read_text()
    assert (folder / "grid_results.png").is_file() and (folder / "trace.png").is_file()


def test_old_records_whose_loss_alone_is_null_are_drawn():
    from utils.figures.style import measurement_picture, particle_title

    record = {
        "particles": [0],
        "survivors": [0],
        "diverged": [False],
        "scores": {"psnr": [None]},
        "loss": [None],
        "modes": None,
    }
    assert particle_title(record, 0) == "p0\nno finite loss"
    assert np.isfinite(measurement_picture(np.full((3, 4, 4, 2), 1e30, np.float32))).all()


def test_wrong_shapes_are_found_before_the_first_image_is_sampled(run, measurements, tmp_path, monkeypatch):
    import sampler

    monkeypatch.setattr(sampler.LatentDAPS, "sample", lambda *a, **k: pytest.fail("sampled"))
    wrong = np.zeros((3, 7, 7), np.float32)
    with pytest.raises(
        InputError, match=r"1.npy has shape \(3, 7, 7\); this task measures \(3, 24, 24\), and 1 more"
    ) as caught:
        run(*measurements(spectrum(), wrong, spectrum()[None], wrong))
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "results/run/records").iterdir()) == []
