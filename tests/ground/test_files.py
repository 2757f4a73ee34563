"""Files are written whole or not at all, and by one helper."""

import ast
import errno
import os
import sys

import pytest

from tests.worlds.kills import contents, killed
from tools import parse_metrics
from utils.command_line import write_file
from utils.errors import InputError
from utils.files import PARTIAL, write_atomically, write_folder
from utils.paths import PROJECT

# what may change a file otherwise: the helper itself; logs, which grow; a lock; what is filled in a temporary folder
WRITERS = {
    "utils/files.py": {"os.fdopen"},
    "utils/command_line.py": {"out.open"},  # a device or a pipe
    "utils/records/claim.py": {"open"},
    "utils/priors/compvis.py": {"part.save_pretrained", "save_file"},
    "tools/demo_prior/training.py": {"open", "torch.save", "sheet.save"},
    "tools/demo_prior/training_images.py": {"np.save"},
    "tools/demo_prior/train_prior.py": {"pipeline.save_pretrained", "shutil.copyfile"},
    "tools/demo_prior/make_demo_data.py": {"picture.save"},
    "tools/unpack_cifar10.py": {"picture.save"},
    "latentdaps/result.py": {"savefig"},  # into memory, as the next one
    "tools/report.py": {"figure.savefig", "image.save"},  # into memory, as the next one
    "utils/records/folder.py": {"save"},
    "utils/records/arrays.py": {"np.save", "tifffile.imwrite"},  # into memory
    "utils/records/files.py": {"np.savez_compressed"},
    "utils/records/kept.py": {"gzip.GzipFile"},
    "utils/figures/style.py": {"figure.savefig"},
    "tools/evidence/mutate.py": {"file.write_text", "shutil.copytree", "shutil.copy"},  # in a copy that it throws away
}
NAMES = {
    *("write_text", "write_bytes", "savefig", "save", "savez", "savez_compressed", "savetxt", "save_pretrained", "save_file"),
    *("dump", "to_csv", "imsave", "imwrite", "copy2", "copyfile", "copytree", "GzipFile", "fdopen"),
}


def writing_calls(source):
    """Names of the calls in a module that write a file."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, (ast.Name, ast.Attribute)):
            continue
        whole = ast.unparse(node.func)
        name = whole.rpartition(".")[2]
        short = whole if whole.count(".") <= 1 and "(" not in whole else name
        modes = [a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)]
        opened = name == "open" and any(isinstance(mode, str) and set(mode) & set("wax+") and len(mode) < 4 for mode in modes)
        ours = whole in ("write_text", "self.save")  # utils.command_line's, and the training's, which use the helper
        if opened or whole == "shutil.copy" or (name in NAMES and not ours):
            yield short


def test_one_helper_writes_every_file():
    found = {}
    for folder in (*(PROJECT / name for name in ("latentdaps", "utils", "tools", "operators")), PROJECT):
        for file in folder.glob("*.py") if folder == PROJECT else folder.rglob("*.py"):
            if calls := set(writing_calls(file.read_text(encoding="utf-8"))):
                found[file.relative_to(PROJECT).as_posix()] = calls
    assert found == WRITERS, "write with utils/files.py, or say here why not"


def test_what_counts_as_writing():
    source = 'open(p, "w"); p.open("ab"); a.b.write_text(t); open(p); json.load(f); x.copy(); Path(p).write_bytes(b)'
    assert list(writing_calls(source)) == ["open", "p.open", "write_text", "write_bytes"]


def full_disk(handle):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("content", ["new", b"new", lambda file: file.write(b"new")])
def test_on_a_full_disk_the_old_file_stays(tmp_path, monkeypatch, content):
    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, content, keep_other=True)
    assert contents(tmp_path) == {"file": b"old"} and len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_encoded_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(InputError, match=f"out={path}: cannot be written .*surrogates not allowed") as refused:
        write_file("a\udc80", path)
    assert path.read_text() == "old" and "\n" not in str(refused.value)


def test_text_is_utf8_under_any_locale(tmp_path, monkeypatch):
    monkeypatch.setattr("locale.getencoding", lambda: "ascii", raising=False)
    write_atomically(tmp_path / "file", "µ – ü")
    assert (tmp_path / "file").read_bytes() == "µ – ü".encode()


def test_a_link_is_followed_and_a_device_is_written_to(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_file("new", tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "new"
    write_file("new", "/dev/null")
    assert not os.path.isfile("/dev/null")


@pytest.mark.parametrize("keep_other", [False, True])
def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path, keep_other):
    at, was_killed = 0, True
    while was_killed:
        at += 1
        folder = tmp_path / str(at)
        folder.mkdir()
        (folder / "file").write_text("old")
        was_killed = killed(at, folder, lambda: write_atomically(folder / "file", "new", keep_other))
        assert set(contents(folder).values()) <= {b"old", b"new"} and contents(folder)
        write_atomically(folder / "file", "new", keep_other)
        assert contents(folder) == {"file": b"new", **({"file.1": b"old"} if keep_other else {})}
    assert at == 3 + keep_other, "the temporary file, the one kept aside, the new one"


@pytest.mark.parametrize("keep_other", [False, True])
def test_a_folder_comes_whole_or_not_at_all(tmp_path, keep_other):
    def fill(folder):
        for name in ("a", "b"):
            (folder / name).write_text(f"new {name}")

    new = {"place/a": b"new a", "place/b": b"new b"}
    old = {"place/a": b"old", "place/certificate": b"mine"}
    at, was_killed = 0, True
    while was_killed:
        at += 1
        root = tmp_path / str(at)
        (root / "place").mkdir(parents=True)
        for name, content in old.items():
            (root / name).write_bytes(content)
        was_killed = killed(at, root, lambda: write_folder(root / "place", fill, keep_other))
        found = {name: content for name, content in contents(root).items() if name.startswith("place/")}
        assert found in (old, new, {}), "never half of it"
        write_folder(root / "place", fill, keep_other)
        aside = {name.replace("place", "place.1"): content for name, content in old.items()}
        assert contents(root) == {**new, **(aside if keep_other else {})}
    assert at > 4


def test_the_same_folder_stays_with_what_was_added(tmp_path):
    place = tmp_path / "place"
    for _ in range(2):
        assert write_folder(place, lambda folder: (folder / "a").write_text("a"), keep_other=True) is None
        (place / "certificate.json").write_text("mine")
    assert contents(tmp_path) == {"place/a": b"a", "place/certificate.json": b"mine"}
    assert not list(tmp_path.glob(f".*{PARTIAL}"))


def test_a_tool_leaves_the_old_file_on_a_full_disk(tmp_path, monkeypatch):
    out = tmp_path / "table.md"
    out.write_text("old")
    monkeypatch.setattr(sys, "argv", ["parse_metrics.py", str(PROJECT / "evidence/tasks"), "--out", str(out)])
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(InputError, match=f"out={out}: cannot be written .No space left on device"):
        parse_metrics.main()
    assert out.read_text() == "old"
