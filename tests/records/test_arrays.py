"""Results as floating-point files: what is read again is what was found, with how it was made."""

import datetime

import h5py
import numpy as np
import pytest
import tifffile

from utils.config.check import check
from utils.records.arrays import write_arrays

ABOUT = {"git_commit": "0123abc", "overrides": ["data.mask=[0,max]", "seed=3"], "seed": 3}


def results(channels):
    rng = np.random.default_rng(channels)
    return {name: rng.random((channels, 6, 8), dtype=np.float32) for name in ("pick", "mean", "std")}


@pytest.mark.parametrize("channels", [1, 3])
def test_each_format_holds_the_same_numbers(tmp_path, channels):
    wanted = results(channels)
    write_arrays(tmp_path, 7, wanted, ["npy", "tiff", "cxi"], ABOUT, "checkpoints/own")
    folder = tmp_path / "arrays"
    assert len(list(folder.iterdir())) == 7
    for i, (name, values) in enumerate(wanted.items(), 1):
        assert np.array_equal(np.load(folder / f"00007_{name}.npy"), values)
        pages = tifffile.imread(folder / f"00007_{name}.tiff")
        assert pages.dtype == np.float32 and np.array_equal(pages.reshape(values.shape), values)
        with h5py.File(folder / "00007.cxi") as file:
            image = file[f"entry_1/image_{i}"]
            assert np.array_equal(image["data"][()], values) and image["title"].asstr()[()] == name


def test_cxi_says_how_its_images_were_made(tmp_path):
    write_arrays(tmp_path, 0, results(1), ["cxi"], ABOUT, "checkpoints/own")
    with h5py.File(tmp_path / "arrays/00000.cxi") as file:
        assert file["cxi_version"][()] == 160
        process = {key: text.asstr()[()] for key, text in file["entry_1/image_2/process_1"].items()}
        assert np.array_equal(file["entry_1/data_1/data"], file["entry_1/image_1/data"])
    assert process["program"] == "LatentDAPS particles" and process["version"].endswith("(commit 0123abc)")
    assert process["command"] == "python posterior_sample.py 'data.mask=[0,max]' seed=3"
    assert process["prior"] == "checkpoints/own"
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(process["date"])
    assert abs(age) < datetime.timedelta(hours=1)


def test_only_what_is_asked_for_is_written(tmp_path):
    write_arrays(tmp_path, 0, {"pick": results(1)["pick"]}, ["tiff"], ABOUT, "own")
    assert [path.name for path in (tmp_path / "arrays").iterdir()] == ["00000_pick.tiff"]


def test_the_switch_changes_no_fingerprint(composed, tiny):
    plain, switched = (check(composed(*tiny, *more)) for more in ((), ("save_arrays=[npy,cxi]",)))
    assert switched.save_arrays == ["npy", "cxi"] and plain.save_arrays == []
    assert plain.composition.fingerprint == switched.composition.fingerprint
