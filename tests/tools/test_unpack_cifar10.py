"""tools/unpack_cifar10.py: a made-up archive in the published format becomes the pictures that were put in."""

import io
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

from tools import unpack_cifar10
from utils.command_line import run


def pack(path, files, classes=b"cat\nship\n\n"):
    """An archive in the published layout; files: {name: bytes}."""
    with tarfile.open(path, "w:gz") as tar:
        for name, data in {**files, "batches.meta.txt": classes}.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def archive(tmp_path):
    """(path, {file: (n, 1 + 3072) records}) of three photographs in each of the six files."""
    rng, files = np.random.default_rng(0), {}
    for name in [*unpack_cifar10.PARTS["train"], *unpack_cifar10.PARTS["test"]]:
        files[name] = np.concatenate([[[0], [1], [0]], rng.integers(0, 256, (3, 3072))], axis=1).astype(np.uint8)
    return pack(tmp_path / "cifar-10-binary.tar.gz", {name: records.tobytes() for name, records in files.items()}), files


def start(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["unpack_cifar10.py", *map(str, arguments)])
    run(unpack_cifar10.main)


def test_pictures_are_those_of_the_archive(archive, monkeypatch, tmp_path):
    path, files = archive
    start(monkeypatch, path, tmp_path / "out")
    assert len(list((tmp_path / "out/train").rglob("*.png"))) == 15 and len(list((tmp_path / "out/test").rglob("*.png"))) == 3
    third = files["data_batch_2.bin"][2, 1:]  # the fourth cat: each file has two
    with Image.open(tmp_path / "out/train/cat/0003.png") as picture:
        red, green, blue = np.asarray(picture).transpose(2, 0, 1)
    assert (red.ravel() == third[:1024]).all() and (green.ravel() == third[1024:2048]).all()
    assert (blue.ravel() == third[2048:]).all()


def test_another_archive_is_one_line_and_status_2(monkeypatch, tmp_path, capsys):
    with tarfile.open(tmp_path / "empty.tar.gz", "w:gz"):
        pass
    (tmp_path / "torn.tar.gz").write_bytes(b"no archive")
    for name, message in (("empty", "get the binary version"), ("torn", "download it again"), ("missing", "No such file")):
        with pytest.raises(SystemExit) as stop:
            start(monkeypatch, tmp_path / f"{name}.tar.gz", tmp_path / "out")
        error = capsys.readouterr().err
        assert stop.value.code == 2 and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "name", ["../../escaped", "/proc/escaped", "..", "a/b", "a\\b", "\x1b[31mred", "\u202egnp", "-rf", "x" * 300]
)
def test_a_class_whose_name_is_no_plain_word_is_refused_and_nothing_is_written(name, archive, monkeypatch, tmp_path, capsys):
    path = pack(
        tmp_path / "a.tar.gz", {file: records.tobytes() for file, records in archive[1].items()}, f"cat\n{name}".encode()
    )
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit):
        start(monkeypatch, path, tmp_path / "in/side/out")
    error = capsys.readouterr().err
    assert "which is no plain word; download it again" in error and error.count("\n") == 1 and error.rstrip("\n").isprintable()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"\x02" + data[1:]], ids=["cut", "no such class"])
def test_records_that_fit_no_class_are_refused_before_anything_is_written(damage, archive, monkeypatch, tmp_path, capsys):
    files = {file: records.tobytes() for file, records in archive[1].items()}
    path = pack(tmp_path / "a.tar.gz", {**files, "test_batch.bin": damage(files["test_batch.bin"])})
    with pytest.raises(SystemExit):
        start(monkeypatch, path, tmp_path / "out")
    assert "its test records are no photographs of its classes" in capsys.readouterr().err and not (tmp_path / "out").exists()
