"""Files of instruments: every format gives the array that was written, and a damaged one ends in one line."""

import os
import subprocess
import sys
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile

from utils.formats import CXI_DATA, NoSuchDataset, TooLarge, linked, read_array

VALUES = np.random.default_rng(0).integers(0, 4000, (3, 24, 20)).astype(np.uint16)


def write(path, values, dataset=CXI_DATA):
    """One array as a user's program would write it."""
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez_compressed(path, **{dataset.rpartition("/")[2]: values})
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {dataset.rpartition("/")[2]: values})
    elif path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, values, photometric="minisblack")
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset(dataset, data=values, compression="gzip")
    return path


NAMES = ("a.npy", "a.npz", "a.h5", "a.hdf5", "a.nxs", "a.cxi", "a.tif", "a.TIFF", "a.mat")


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


def test_a_compression_that_is_not_there_names_the_package_that_reads_it(tmp_path, monkeypatch):
    for package in ("hdf5plugin", "imagecodecs"):
        monkeypatch.setitem(sys.modules, package, None)
    bitshuffle = 32008
    if h5py.h5z.filter_avail(bitshuffle):
        pytest.skip("hdf5plugin is loaded in this process")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk(VALUES.shape)
        properties.set_filter(bitshuffle, h5py.h5z.FLAG_OPTIONAL)
        space, kind = h5py.h5s.create_simple(VALUES.shape), h5py.h5t.py_create(VALUES.dtype)
        dataset = h5py.Dataset(h5py.h5d.create(file.id, b"data", kind, space, dcpl=properties))
        dataset.id.write_direct_chunk((0, 0, 0), VALUES.tobytes())  # says that the filter was applied
    with pytest.raises(ValueError, match="^is compressed by .*32008.*pip install hdf5plugin"):
        read_array(tmp_path / "a.h5", "data")
    tifffile.imwrite(tmp_path / "a.tif", VALUES, photometric="minisblack", compression="zlib")
    tag = (tmp_path / "a.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        places = [page.tags["Compression"].valueoffset for page in file.pages]
    for place in places:
        tag = tag[:place] + (50000).to_bytes(2, "little") + tag[place + 2 :]  # ZSTD
    (tmp_path / "a.tif").write_bytes(tag)
    with pytest.raises(ValueError, match="^is compressed by ZSTD; pip install imagecodecs"):
        read_array(tmp_path / "a.tif", "")


def test_links_are_listed_where_the_dataset_is_not_there(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/data_1"] = h5py.ExternalLink("b.h5", "/data")
        file["entry/first"] = h5py.SoftLink("/entry/data_1")
        file["entry/mask"] = VALUES
    with pytest.raises(NoSuchDataset) as caught:
        read_array(tmp_path / "a.h5", CXI_DATA)
    assert str(caught.value) == "has entry/data_1 (a link to b.h5), entry/first, entry/mask"


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


def raw(path, outside):
    with h5py.File(path, "w") as file:
        file.create_dataset("y", shape=(4,), dtype="u1", external=[(str(outside), 0, 4)])


def link(path, outside):
    with h5py.File(path, "w") as file:
        file["y"] = h5py.ExternalLink(str(outside), "y")


def link_of_a_group(path, outside):
    with h5py.File(path, "w") as file:
        file["group"] = h5py.ExternalLink(str(outside), "/")
        file["y"] = h5py.SoftLink("/group/y")


def virtual(path, outside):
    layout = h5py.VirtualLayout((4,), dtype="u1")
    layout[:] = h5py.VirtualSource(str(outside), "y", shape=(4,))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("y", layout)


@pytest.fixture
def elsewhere(tmp_path):
    """A file beside the data folder, tmp_path/data."""
    (tmp_path / "data" / "inner").mkdir(parents=True)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["y"] = np.arange(4, dtype="u1")
    return tmp_path / "other.h5"


def test_external_raw_storage_is_refused_however_it_is_reached(elsewhere, tmp_path):
    data = tmp_path / "data"
    raw(data / "raw.h5", elsewhere)
    for name, make in {"a": link, "b": link_of_a_group, "c": virtual}.items():
        make(data / f"{name}.h5", "raw.h5")
    for name in ("raw", "a", "b", "c"):
        with pytest.raises(
            ValueError, match=r"^y is external raw storage, in .*other.h5; save the numbers in the file itself$"
        ):
            read_array(data / f"{name}.h5", "y", [tmp_path])


@pytest.mark.parametrize("make", [link, link_of_a_group, virtual])
def test_links_lead_to_files_below_the_data_folder_or_one_that_is_allowed(make, elsewhere, tmp_path):
    data = tmp_path / "data"
    for target in (elsewhere, "../other.h5"):
        make(data / "a.h5", target)
        with pytest.raises(
            ValueError, match="outside the data folder, in .*other.h5; if they are yours, .*data.linked_folders"
        ):
            read_array(data / "a.h5", "y")
        np.testing.assert_array_equal(read_array(data / "a.h5", "y", [tmp_path]), range(4))
    (data / "inner/near.h5").write_bytes(elsewhere.read_bytes())
    make(data / "a.h5", "inner/near.h5")
    np.testing.assert_array_equal(read_array(data / "a.h5", "y"), range(4))
    assert linked(data / "a.h5", "y") == [data / "inner/near.h5"]
    make(data / "inner/up.h5", "../a.h5")  # from a folder within to the data folder itself
    np.testing.assert_array_equal(read_array(data / "inner/up.h5", "y", [data]), range(4))


@pytest.mark.parametrize("make", [link, link_of_a_group, virtual])
def test_a_link_to_a_pipe_or_to_nothing_ends_in_one_line_at_once(make, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for target in ("pipe", "nothing.h5"):
        make(tmp_path / "a.h5", target)
        with pytest.raises(ValueError, match=f"its data lie in .*{target}, which is no file here"):
            read_array(tmp_path / "a.h5", "y")


def test_links_in_a_circle_end(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["y"], file["x"] = h5py.SoftLink("/y/y"), h5py.ExternalLink("a.h5", "/x")
    with pytest.raises(ValueError, match="is a link to links, more than 16 in a row"):
        read_array(tmp_path / "a.h5", "y")
    with pytest.raises(ValueError):
        read_array(tmp_path / "a.h5", "x")


def test_a_pattern_of_sources_is_refused(tmp_path):
    unlimited, part = h5py.h5s.create_simple((4,), (h5py.h5s.UNLIMITED,)), h5py.h5s.create_simple((4,))
    unlimited.select_hyperslab((0,), (h5py.h5s.UNLIMITED,), stride=(4,), block=(4,))
    mapping = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    mapping.set_virtual(unlimited, b"part-%b.h5", b"y", part)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        h5py.h5d.create(file.id, b"y", h5py.h5t.NATIVE_UINT8, unlimited, mapping)
    with pytest.raises(ValueError, match="names its sources by a pattern, part-%b.h5; name each file"):
        read_array(tmp_path / "a.h5", "y")


SIDE = 2**16  # of an array that would take 12 GB and more


def bomb(path):
    """A small file whose array is huge: of zeros that nobody wrote, or that compress to nothing."""
    if path.suffix == ".npy":
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (SIDE, SIDE)})
            file.truncate(4 * SIDE**2)
    elif path.suffix == ".npz":
        with zipfile.ZipFile(path, "w") as archive, archive.open("y.npy", "w") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (SIDE, SIDE)})
    elif path.suffix == ".tif":
        tifffile.memmap(path, shape=(8, 8), dtype=np.uint8).flush()
        content = bytearray(path.read_bytes())
        with tifffile.TiffFile(path) as file:
            for name in ("ImageWidth", "ImageLength"):
                tag = file.pages[0].tags[name]
                content[tag.valueoffset : tag.valueoffset + 4] = SIDE.to_bytes(4, "little")
        path.write_bytes(content)
    else:
        chunk = (2**15, 2**13) if path.stem == "chunk" else (64, 64)
        shape = (8, 8) if path.stem == "chunk" else (SIDE, SIDE)
        with h5py.File(path, "w") as file:
            file.create_dataset(CXI_DATA, shape, np.float32, chunks=chunk, maxshape=(None, None), compression="gzip")
    return path


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5", "chunk.h5", "a.tif"])
def test_an_array_that_would_need_all_memory_is_refused_before_it_is_read(name, tmp_path, monkeypatch):
    path = bomb(tmp_path / name)
    tracemalloc.start()
    with pytest.raises(TooLarge, match=r"has shape \((65536, 65536|32768, 8192)\); at most 134217728 numbers are read"):
        read_array(path, CXI_DATA)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


@pytest.mark.parametrize("name", NAMES)
def test_no_more_numbers_are_read_than_the_task_measures(name, tmp_path):
    path = write(tmp_path / name, VALUES) if name != "a.TIFF" else write(tmp_path / "a.tiff", VALUES)
    np.testing.assert_array_equal(read_array(path, CXI_DATA, most=VALUES.size), VALUES)
    with pytest.raises(TooLarge, match=r"has shape \(3, 24, 20\)"):
        read_array(path, CXI_DATA, most=VALUES.size - 1)


@pytest.mark.parametrize("dtype", ["<U100000", "S1000000", [("a", "f8", 1000)]])
def test_values_that_are_wide_count_by_their_bytes(dtype, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(4, dtype))
    with pytest.raises(TooLarge):
        read_array(tmp_path / "a.npy", "", most=400)


def test_texts_and_nothing_are_no_numbers(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["text"], file["nothing"] = ["a" * 1000] * 3, h5py.Empty("f4")
    with pytest.raises(ValueError, match="not real numbers"):
        read_array(tmp_path / "a.h5", "text")
    with pytest.raises(ValueError, match="nothing holds nothing"):
        read_array(tmp_path / "a.h5", "nothing")


@pytest.mark.parametrize("make", [link, link_of_a_group, virtual])
def test_a_source_without_the_dataset_is_named_and_no_zeros_are_read(make, tmp_path):
    with h5py.File(tmp_path / "source.h5", "w") as file:
        file["other"] = np.arange(4, dtype="u1")
    make(tmp_path / "a.h5", "source.h5")
    with pytest.raises(ValueError, match=r"its data lie in .*source\.h5, which has no dataset y$"):
        read_array(tmp_path / "a.h5", "y")


LOCK = "import h5py, sys; file = h5py.File(sys.argv[1], 'a'); print('open', flush=True); sys.stdin.read()"


@pytest.mark.parametrize("name", ["a.h5", "source.h5"])
def test_a_file_that_a_program_is_writing_is_said_to_be_locked(name, tmp_path):
    with h5py.File(tmp_path / "source.h5", "w") as file:
        file["y"] = np.arange(4, dtype="u1")
    link(tmp_path / "a.h5", "source.h5")
    writer = subprocess.Popen(
        [sys.executable, "-c", LOCK, tmp_path / name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout.readline() == "open\n"
    with pytest.raises(ValueError, match=rf"{name} is locked by a program that writes it; wait until") as caught:
        read_array(tmp_path / "a.h5", "y")
    assert "\n" not in str(caught.value)
    writer.communicate()
    np.testing.assert_array_equal(read_array(tmp_path / "a.h5", "y"), range(4))
