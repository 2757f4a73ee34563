"""Digests of what a run is made of beside its config: weights, other files it names, and modules of one's own."""

import hashlib
import importlib
import json
import os
import shutil

import pytest

from utils import digests
from utils.digests import of_config, of_file, of_modules, of_prior, other_content
from utils.paths import PROJECT
from utils.population.settings import read_certificate
from utils.weights import cache_folder

PACKAGE = {
    "__init__.py": "raise RuntimeError('imported')",
    "ops.py": "from operators.base import Operator\nimport torch, own_helper\nfrom .deep.fft import transform\n",
    "deep/fft.py": "def transform(x):\n    from own_lazy import also\n",
    "unused.py": "",
}
FOUND = ["own_package", "own_package.ops", "own_package.deep.fft", "own_helper", "own_lazy"]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of one's own on PYTHONPATH that must not be imported, and two modules beside it."""
    files = {f"own_package/{name}": text for name, text in PACKAGE.items()}
    for name, text in {**files, "own_helper.py": "x = 1\n", "own_lazy.py": "import own_helper\n"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return tmp_path


def test_own_modules_count_with_all_of_ones_own_that_they_import(package):
    before = of_modules("own_package.ops.Blur")
    assert sorted(before) == sorted(f"module {name}" for name in FOUND)
    (package / "own_helper.py").write_text("x = 2\n")
    assert other_content(before, of_modules("own_package.ops.Blur")) == "another content of module own_helper"
    (package / "own_helper.py").write_bytes(b"x = 1\r\n")  # as git may write it elsewhere
    assert of_modules("own_package.ops.Blur") == before


@pytest.mark.parametrize(
    "name",
    ["operators.phase_retrieval.PhaseRetrieval", "sampler.LatentDAPS", "torch.nn.Linear", "json.loads", "none.X", "", ".."],
)
def test_neither_shipped_nor_installed_modules_count(name):
    assert of_modules(name) == {}


def test_a_module_of_ones_own_in_a_folder_of_the_project_counts_where_git_does_not_know_it(monkeypatch):
    known = digests._known_to_git()
    assert {"operators/blur.py", "utils/digests.py"} <= known
    monkeypatch.setattr(digests, "_known_to_git", lambda: known - {"operators/blur.py"})
    assert list(of_modules("operators.blur.GaussianBlur")) == ["module operators.blur"]
    monkeypatch.setattr(digests, "_known_to_git", frozenset)  # installed without a repository
    assert of_modules("operators.blur.GaussianBlur") == {}


def test_a_module_that_is_no_python_has_a_digest_too(package):
    (package / "own_helper.py").write_text("def broken(:")
    assert list(of_modules("own_helper.X")) == ["module own_helper"]


def test_every_part_of_a_config_that_names_a_class_or_a_file_counts(package):
    (package / "kernel.npy").write_bytes(b"1")
    config = {
        "task": {"operator": {"_target_": "own_helper.X", "kernel": str(package / "kernel.npy"), "size": 3}},
        "repulsion": {"similarity": "own_lazy.mean"},
        "mechanisms": {
            "mine": {"_target_": "own_package.unused.X", "files": [str(package / "kernel.npy"), "none.npy", "\0.npy"]}
        },
    }
    modules = [f"module {name}" for name in ("own_helper", "own_lazy", "own_package", "own_package.unused")]
    assert sorted(of_config(config)) == ["mechanisms.mine.files[0]", *modules, "task.operator.kernel"]


def test_a_priors_digest_is_of_all_that_its_loader_reads(tmp_path, tiny_prior):
    prior = shutil.copytree(tiny_prior, tmp_path / "prior")
    before = of_prior({"path": str(prior)})
    (prior / "certificate.json").write_text("{}")
    (prior / "notes.txt").write_text("mine")
    assert of_prior({"path": str(prior)}) == before and list(before) == ["model.path"]
    for name in ("unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"):
        (file := prior / name).write_bytes(file.read_bytes() + b" ")
        assert of_prior({"path": str(prior)}) != before
        before = of_prior({"path": str(prior)})
    assert of_prior({"path": str(tmp_path / "none")}) == of_prior({"path": "nobody/nothing"}) == {}


def test_an_original_file_may_be_deleted_once_it_is_converted(tmp_path, tiny_prior):
    (file := tmp_path / "model.ckpt").write_bytes(b"original")
    alone = of_prior({"path": str(file)})
    shutil.copytree(tiny_prior, cache_folder(file))
    both = of_prior({"path": str(file)})
    file.unlink()
    converted = of_prior({"path": str(file)})
    assert [list(each) for each in (alone, converted)] == [["model.path"], ["model.path (converted)"]]
    assert both == alone | converted and other_content(both, converted) is None


def test_a_large_file_is_read_once_and_again_after_any_change(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "REMEMBERED", 4)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    reads, plain = [], hashlib.file_digest
    monkeypatch.setattr(digests.hashlib, "file_digest", lambda *given: reads.append(given) or plain(*given))
    (file := tmp_path / "weights.bin").write_bytes(b"weights")
    first = [of_file(file) for _ in range(3)]
    assert len(set(first)) == 1 and len(reads) == 1
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=times)  # of the same size and time, as unpacking an archive leaves it
    assert of_file(file) != first[0] and len(reads) == 2
    notes = list((tmp_path / "cache").rglob("*"))
    for note in notes:
        if note.is_file():
            note.write_text("half")
    assert of_file(file) == plain(file.open("rb"), "sha256").hexdigest()[: digests.LENGTH] and len(reads) == 3


def test_without_a_place_for_notes_a_large_file_is_read_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "REMEMBERED", 4)
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (file := tmp_path / "weights.bin").write_bytes(b"weights")
    assert of_file(file) == of_file(file) == hashlib.sha256(b"weights").hexdigest()[: digests.LENGTH]


def test_a_user_without_a_home_leaves_no_note(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "REMEMBERED", 4)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as it answers where there is none
    monkeypatch.chdir(tmp_path)
    (file := tmp_path / "weights.bin").write_bytes(b"weights")
    assert of_file(file) == of_file(file) and list(tmp_path.iterdir()) == [file]


def test_what_a_record_of_others_says_is_told_in_a_short_visible_line():
    keys = [f"module \033[2J{'x' * 10_000}{i}" for i in range(100)]
    line = other_content(dict.fromkeys(keys, "1"), dict.fromkeys(keys, "2"))
    assert line.isprintable() and len(line) < 300 and line.endswith("and 97 more")


@pytest.mark.parametrize("name", ["demo-faces", "demo-scenes"])
def test_the_shipped_certificates_are_of_the_shipped_weights(name):
    """After a change of its prior a certificate is calibrated anew."""
    folder = PROJECT / "checkpoints" / name
    assert read_certificate(folder / "certificate.json").prior == of_prior({"path": str(folder)}) != {}
    assert json.loads((folder / "certificate.json").read_text())["prior"]
