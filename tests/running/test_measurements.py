"""Measurements from elsewhere: all that is wrong with them is known before sampling, and too large ones are diverged."""

import h5py
import numpy as np
import pytest

from utils.errors import InputError
from utils.records.files import read_record

pytestmark = pytest.mark.program

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
    folder, metrics = run(*measurements(spectrum(1e18), spectrum()), "num_samples=2", "pruning_step=700", pictures=True)
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
    wrong = np.zeros((2, 24, 24), np.float32)
    with pytest.raises(
        InputError, match=r"1.npy \(and 1 more files\): has shape \(2, 24, 24\); this task measures \(3, 24, 24\)"
    ) as caught:
        run(*measurements(spectrum(), wrong, spectrum()[None], wrong))
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "results/run/records").iterdir()) == []


def test_a_dead_channel_ends_before_sampling_in_one_line_that_counts_such_files(run, measurements, monkeypatch):
    import sampler

    monkeypatch.setattr(sampler.LatentDAPS, "sample", lambda *a, **k: pytest.fail("sampled"))
    dead = spectrum()
    dead[1] = 0
    with pytest.raises(InputError, match=r"1.npy \(and 1 more files\): channel 1 is 0.0 in every pixel") as caught:
        run(*measurements(spectrum(), dead, dead))
    assert "\n" not in str(caught.value)


def test_the_lost_box_of_an_inpainting_may_hold_zeros(run, measurements):
    y = np.random.default_rng(0).uniform(-1, 1, (3, 16, 16)).astype(np.float32)
    y[:, 3:13, 3:13] = 0
    box = ["mask_len_range=[10,11]", "margin=3", "resolution=16"]
    keys = ["task=inpainting", *(f"task.demo_langevin.operator.{key}" for key in box)]
    folder, metrics = run(*measurements(y), *keys)
    assert metrics["metadata"]["num_images"] == 1 and "implausible" not in (folder / "run.log").read_text()


def test_a_mask_value_that_no_file_has_is_said_with_the_nearest(run, measurements):
    y, other = np.round(spectrum(1000)), np.round(spectrum(1000))
    y[0, 0, :3], other[1, 1, 1] = 4000000.25, 77777
    folder, _ = run(*measurements(y, other), "data.mask=[4e6,4000000.25,77777]", "data.scale=free")
    log = (folder / "run.log").read_text()
    assert "data.mask=[4000000.0]: no pixel of the 2 files has that value; the nearest value in 0.npy is 4.0000002e+06" in log
    assert log.count("no pixel of the") == 1


GAIN = 50.0


def test_a_run_reads_counts_with_their_mask_as_magnitudes_with_gaps(run, measurements, tmp_path):
    overrides = measurements()
    counts = np.random.default_rng(0).poisson(GAIN * spectrum() ** 2).astype(np.int32)
    counts[:, 10:14, 10:14] = -1
    mask = np.zeros(SHAPE[1:], np.uint8)
    mask[0] = 1
    with h5py.File(tmp_path / "measured/scan.cxi", "w") as file:
        file["entry_1/data_1/data"], file["entry_1/data_1/mask"] = np.fft.ifftshift(counts, axes=(-2, -1)), mask
    keys = ("quantity=counts", f"gain={GAIN}", "center=corner", "mask=-1", "mask_dataset=entry_1/data_1/mask")
    folder, metrics = run(*overrides, *(f"data.{key}" for key in keys), pictures=True)
    record, arrays = read_record(folder / "records" / "00000.npz")
    gaps = np.fft.fftshift(np.broadcast_to(mask > 0, SHAPE), axes=(-2, -1)) | (counts < 0)
    np.testing.assert_array_equal(np.isnan(arrays["y"]), gaps)
    np.testing.assert_allclose(arrays["y"][~gaps], np.sqrt(counts[~gaps] / GAIN), rtol=1e-6)
    floor = metrics["loss"]["noise_floor"][0]  # of the likelihood of counts, which their gain says
    assert list(record["loss_terms"]) == ["poisson"] and 0 < floor < 1.2 * (~gaps).sum() / (4 * GAIN)
    assert metrics["loss"]["deviation"][0][0] == pytest.approx((record["loss"][0] - floor) / record["floor_std"])
    assert all(np.isfinite(value) for value in metrics["loss"]["sample"][0])
    log = (folder / "run.log").read_text()
    assert "not measured: 6.25 % of the pixels; most in scan.cxi, 6.25 %" in log
    assert (folder / "grid_results.png").is_file()


def test_a_mask_file_beside_the_measurements_is_none_of_them(run, measurements, tmp_path):
    overrides = measurements(spectrum())
    np.save(tmp_path / "measured/mask.npy", np.eye(24))
    _, metrics = run(*overrides, f"data.mask={tmp_path / 'measured/mask.npy'}")
    assert metrics["metadata"]["num_images"] == 1


def test_a_run_on_one_channel_reconstructs_by_the_luminance(run, measurements):
    folder, metrics = run(*measurements(spectrum()[0]), "data.channels=1")
    record, arrays = read_record(folder / "records" / "00000.npz")
    assert arrays["y"].shape == (1, 24, 24) and arrays["images"].shape[1:] == (16, 16, 3)
    assert metrics["loss"]["noise_floor"][0] == pytest.approx(24 * 24 * 0.05**2)


def test_one_channel_for_three_names_the_key(run, measurements):
    with pytest.raises(InputError, match="has shape .24, 24.; this task measures .3, 24, 24.; data.channels=1"):
        run(*measurements(spectrum()[0]))


def test_implausible_files_are_one_warning_in_the_log_and_go_on(run, measurements):
    folder, metrics = run(*measurements(100 * spectrum(), 100 * spectrum()))
    warnings = [line for line in (folder / "run.log").read_text().splitlines() if "implausible" in line]
    assert len(warnings) == 1 and "0.npy (and 1 more files)" in warnings[0]
    assert metrics["metadata"]["num_images"] == 2
    assert "no particle explains the measurement within 3 standard deviations" in (folder / "run.log").read_text()


def test_a_bad_file_ends_the_run_before_the_first_pass_and_keeps_what_is_done(run, measurements, tmp_path, monkeypatch):
    import sampler

    folder, _ = run(*measurements(spectrum(), spectrum()), "data.end_id=1")
    before = {path: path.read_bytes() for path in (folder / "records").iterdir()}
    monkeypatch.setattr(sampler.LatentDAPS, "sample", lambda *a, **k: pytest.fail("sampled"))
    path = tmp_path / "measured/1.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="1.npy cannot be read") as caught:
        run("data=measurement", f"data.root={tmp_path / 'measured'}", "data.resolution=16", "data.end_id=null")
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in (folder / "records").iterdir()} == before


def test_a_stack_in_one_file_is_an_image_each_by_its_gain_alone_with_the_exposure_in_the_record(run, tmp_path):
    m = spectrum()[0]
    counts = np.random.default_rng(1).poisson([4 * GAIN * m**2 + 3, 4 * GAIN * m**2 + 3]).astype(np.uint16)
    with h5py.File(tmp_path / "scan.cxi", "w") as file:
        file["entry_1/instrument_1/data"] = counts
        file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/data")
    keys = ("quantity=counts", f"gain={GAIN}", "channels=1", "frame=all", "background=3", "scale=free", "resolution=16")
    root = f"data.root={tmp_path / 'scan.cxi'}"
    folder, metrics = run("data=measurement", root, "data.end_id=null", *(f"data.{key}" for key in keys))
    assert metrics["metadata"]["files"] == ["scan.cxi[0]", "scan.cxi[1]"]
    record, arrays = read_record(folder / "records" / "00001.npz")
    assert record["file"] == "scan.cxi[1]" and list(record["loss_terms"]) == ["poisson"]
    np.testing.assert_allclose(arrays["y"][0], np.sqrt(counts[1] / GAIN), rtol=1e-6)  # the likelihood has the background
    assert len(record["exposure"]) == len(record["particles"]) and min(record["exposure"]) > 0
    assert "| 1 (scan.cxi[1]) | p" in (folder / "eval.md").read_text()
    log = (folder / "run.log").read_text()
    assert "image 1 (scan.cxi[1]): " in log and "data.background=3.0: 3 for each pixel of y; the likelihood has it" in log
    config = (folder / "config.yaml").read_text()
    assert f"photons: {GAIN}" in config and "background: 3.0" in config and "poisson: 1.0" in config


def test_a_run_on_a_frame_of_another_size_with_its_beam_between_pixels_and_a_support(run, measurements):
    y = np.abs(np.random.default_rng(0).standard_normal((3, 30, 25))).astype(np.float32)
    keys = ["data.center=[16.5,11]", "data.support=[10,16]", "start.bank=2", "start.sigma=3.0", "start.restarts=4"]
    folder, metrics = run(
        *measurements(y), *keys, "start.keep=4", "start.iterations=5", "recombination_step=900", pictures=True
    )
    record, arrays = read_record(folder / "records" / "00000.npz")
    assert arrays["y"].shape == (3, 30, 25)
    lacking = np.zeros(y.shape, bool)
    lacking[:, 28:], lacking[:, :, :1] = True, True  # the centre comes from (17, 11) to (15, 12)
    np.testing.assert_array_equal(np.isnan(arrays["y"]), lacking)
    np.testing.assert_array_equal(arrays["y"][:, :28, 1:], y[:, 2:, :24])
    assert metrics["loss"]["noise_floor"][0] == pytest.approx((~lacking).sum() * 0.05**2)
    assert all(np.isfinite(metrics["loss"]["sample"][0])) and (folder / "grid_results.png").is_file()
    log = (folder / "run.log").read_text()
    assert "frames of 30 x 25 samples: 1.88 x 1.56 for each pixel of the object" in log


def test_files_of_another_size_than_the_first_are_refused(run, measurements):
    with pytest.raises(InputError, match=r"1.npy.*: has shape \(3, 24, 24\); this task measures \(3, 25, 25\)"):
        run(*measurements(np.pad(spectrum(), ((0, 0), (0, 1), (0, 1)), mode="edge"), spectrum()))
