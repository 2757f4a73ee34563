"""Files of instruments: every format gives the array that was written, and a damaged one ends in one line."""

import h5py
import numpy as np
import pytest
import tifffile

from utils.formats import CXI_DATA, NoSuchDataset, read_array

VALUES = np.random.default_rng(0).integers(0, 4000, (3, 24, 20)).astype(np.uint16)


def write(path, values, dataset=CXI_DATA):
    """One array as a user's program would write it."""
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez_compressed(path, **{dataset.rpartition("/")[2]: values})
    elif path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, values, photometric="minisblack")
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset(dataset, data=values, compression="gzip")
    return path


NAMES = ("a.npy", "a.npz", "a.h5", "a.hdf5", "a.nxs", "a.cxi", "a.tif", "a.TIFF")


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_every_format_gives_the_array_and_its_type(name, dtype, tmp_path):
    path = write(tmp_path / name.lower(), VALUES.astype(dtype)).rename(tmp_path / name)
    found = read_array(path, CXI_DATA)
    np.testing.assert_array_equal(found, VALUES)
    assert found.dtype == dtype


def test_a_stack_of_compressed_pages_is_one_array(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in VALUES:
            file.write(page, compression="zlib", contiguous=False)
    np.testing.assert_array_equal(read_array(tmp_path / "a.tif", ""), VALUES)


def test_pages_of_different_shapes_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(VALUES[0])
        file.write(VALUES[0, :5])
    with pytest.raises(ValueError, match="pictures of the shapes"):
        read_array(tmp_path / "a.tif", "")


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5", "a.tif", "deflated.tif"])
def test_truncated_and_foreign_files_are_refused_in_one_line(name, tmp_path):
    path = tmp_path / name
    if name == "deflated.tif":
        with tifffile.TiffWriter(path) as file:
            for page in VALUES:
                file.write(page, compression="zlib", contiguous=False)
    else:
        write(path, VALUES)
    whole = path.read_bytes()
    read_array(path, CXI_DATA)
    for content in [whole[: int(len(whole) * part)] for part in (0, 0.01, 0.1, 0.5, 0.9, 0.99)] + [b"no such format" * 40]:
        path.write_bytes(content)
        with pytest.raises(ValueError) as caught:
            read_array(path, CXI_DATA)
        assert str(caught.value).strip() and "\n" not in str(caught.value)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_stack_whose_last_page_is_cut_says_so(compression, tmp_path):
    """The pictures are laid out one after the other, the last one up to the end of the file."""
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for page in VALUES:
            file.write(page, compression=compression, rowsperstrip=8, contiguous=False)
    whole = path.read_bytes()
    np.testing.assert_array_equal(read_array(path, ""), VALUES)
    for missing in (1, 5):
        path.write_bytes(whole[:-missing])
        with pytest.raises(ValueError, match="^ends before its last picture does$"):
            read_array(path, "")


def test_a_dataset_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["scan/frames"], file["scan/mask"] = VALUES, VALUES > 0
    with pytest.raises(NoSuchDataset, match="has scan/frames, scan/mask"):
        read_array(tmp_path / "a.h5", "entry_1/data_1/data")
    with pytest.raises(NoSuchDataset):  # a group is no dataset
        read_array(tmp_path / "a.h5", "scan")
    np.savez(tmp_path / "a.npz", a=VALUES, b=VALUES)
    with pytest.raises(NoSuchDataset, match="has a, b"):
        read_array(tmp_path / "a.npz", "c")
    np.testing.assert_array_equal(read_array(tmp_path / "a.npz", "b"), VALUES)


def test_pickled_objects_are_never_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="pickle"):
        read_array(tmp_path / "a.npy", "")
