"""What a run is made of beside its config: the content of the weight files and of the modules of one's own that it names.

A digest is the beginning of a SHA-256, under the config key that names the file, or under "module NAME". This project's own
modules, those that its git knows, have none: its commit is recorded. None of them is imported or run here.
"""

import ast
import hashlib
import os
import re
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from utils.errors import InputError, few, short
from utils.files import write_atomically
from utils.paths import PROJECT, find
from utils.weights import ORIGINAL_SUFFIXES, PATTERNS, cache_folder, cached_snapshot, is_hub_id, is_original

Digests = dict[str, str]

LENGTH = 16
REMEMBERED = 2**26  # bytes; a smaller file is read each time, in less than a tenth of a second
TEXTS = (".py", ".json", ".txt")  # git may end their lines in another way elsewhere
WEIGHTS = (*ORIGINAL_SUFFIXES, ".bin", ".npy", ".npz")
SHIPPED = tuple(PROJECT / name for name in ("utils", "operators", "tools", "latentdaps", "sampler.py", "posterior_sample.py"))
INSTALLED = ("site-packages", "dist-packages")  # their versions are another matter
LIBRARY = Path(sysconfig.get_path("stdlib"))


def other_content(before: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """Words for what both know and say otherwise; None where there is nothing.

    So what was made before there were digests, or while a file was not there, agrees.
    """
    changed = [key for key in before if key in now and before[key] != now[key]]
    return f"another content of {few([short(key) for key in changed])}" if changed else None


def of_config(named: Any, key: str = "") -> Digests:
    """Of the prior's weights, and of all files and modules of one's own that the part of a resolved config at `key` names."""
    digests: Digests = {}
    if isinstance(named, Mapping):
        for name, inner in named.items():
            digests |= of_prior(inner) if f"{key}{name}" == "model" else {}
            digests |= of_config(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(named, list):
        for i, inner in enumerate(named):
            digests |= of_config(inner, f"{key}[{i}]")
    elif isinstance(named, str):
        name = key.rpartition(".")[2]
        if name == "_target_" or (name == "similarity" and "." in named):  # one of ours has no dot
            return of_modules(named)
        elif key != "model.path" and Path(named).suffix and (file := _there(named)).is_file():
            digests[key] = of_file(file)
    return digests


def of_prior(model: Mapping[str, Any]) -> Digests:
    """Of the weights that a block `model` names; of an original file also of its conversion. {} while there are none here."""
    key = "model.path"
    path = model["path"]
    if is_hub_id(path):
        snapshot = cached_snapshot(path)
        return _of_folder(snapshot, key) if snapshot else {}
    place = _there(path)
    if place.is_file():  # it may be deleted once it is converted
        conversion = cache_folder(place, model.get("weights", "raw"))
        return {key: of_file(place), **_of_folder(conversion, f"{key} (converted)")}
    if is_original(place):
        return _of_folder(cache_folder(place, model.get("weights", "raw")), f"{key} (converted)")
    return _of_folder(place, key)


def _there(path: str) -> Path:
    try:
        place = find(path)
        place.is_file()
        return place
    except (OSError, ValueError, RuntimeError):  # no path at all
        return Path("/nowhere")


def _of_folder(folder: Path, key: str) -> Digests:
    """Of the files of a diffusers folder, and of the weights that lie in it directly."""
    files = {file for pattern in PATTERNS for file in folder.glob(pattern) if file.suffix in (*WEIGHTS, *TEXTS)}
    files |= {file for file in folder.glob("*") if file.suffix in WEIGHTS}
    lines = [f"{file.relative_to(folder).as_posix()} {of_file(file)}" for file in sorted(files) if file.is_file()]
    return {key: _digest("\n".join(lines).encode())} if lines else {}


def of_file(path: Path) -> str:
    """Of a file's content. Of a large one it is remembered, under all that tells that the file is still the same."""
    try:
        status = path.stat()
        if path.suffix in TEXTS:
            return _digest(path.read_bytes().replace(b"\r\n", b"\n"))
        note = None
        if status.st_size >= REMEMBERED and _notes().is_absolute():
            state = (path.resolve(), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            note = _notes() / _digest(" ".join(map(str, state)).encode(), length=64)
            if note.is_file() and re.fullmatch(f"[0-9a-f]{{{LENGTH}}}", remembered := note.read_text(errors="replace")):
                return remembered
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:LENGTH]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); make it readable") from None
    if note is not None:
        _remember(note, digest)
    return digest


def _digest(content: bytes, length: int = LENGTH) -> str:
    return hashlib.sha256(content).hexdigest()[:length]


def _notes() -> Path:
    """In the user's own folder: a note beside the weights could be another's. No absolute path of a user without a home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "latentdaps" / "digests"


def _remember(note: Path, digest: str) -> None:
    """Without a place to write the file is read again next time."""
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(note, digest, durable=False)
    except OSError:
        pass


def of_modules(target: str) -> Digests:
    """Of the module that a dotted name lies in, the packages above it, and all of one's own that these import."""
    digests: Digests = {}
    waiting = [target]
    while waiting:
        for name, file, is_package in _modules(waiting.pop()):
            if f"module {name}" not in digests and _of_ones_own(file):
                digests[f"module {name}"] = of_file(file)
                waiting += _imported(file, name if is_package else name.rpartition(".")[0])
    return digests


def _modules(target: str) -> Iterator[tuple[str, Path, bool]]:
    """(name, file, whether it is a package) of the modules that a dotted name passes, the outer one first."""
    within: list[str] | None = None  # None: on the path
    name = ""
    for part in target.split("."):
        try:
            # by its last part alone: with a dotted name the packages above would have to be imported
            spec = find_spec(part) if within is None else PathFinder.find_spec(part, within)
        except (ImportError, ValueError):  # of a module that was made by hand, such as __main__
            return
        if spec is None:
            return
        name = f"{name}.{part}" if name else part
        within = list(spec.submodule_search_locations or ())
        yield name, Path(spec.origin or ""), spec.submodule_search_locations is not None


def _of_ones_own(file: Path) -> bool:
    if file.suffix != ".py" or file.is_relative_to(LIBRARY) or set(INSTALLED) & set(file.parts):
        return False
    if not any(file.is_relative_to(place) for place in SHIPPED):
        return True
    files = _known_to_git()
    return bool(files) and file.relative_to(PROJECT).as_posix() not in files


@cache
def _known_to_git() -> frozenset[str]:
    """This project's files in its repository, relative to it; none outside a repository and where there is no git."""
    try:
        answer = subprocess.run(["git", "-C", str(PROJECT), "ls-files", "-z"], capture_output=True, text=True)
    except OSError:
        return frozenset()
    return frozenset(answer.stdout.split("\0")) - {""}


def _imported(path: Path, package: str) -> Iterable[str]:
    """Names of all that a module imports anywhere, "a.b" for `from a import b` too."""
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (OSError, ValueError, SyntaxError, RecursionError):  # the import itself will say so
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                module = resolve_name("." * node.level + (node.module or ""), package) if node.level else str(node.module)
            except ImportError:
                continue
            yield from (f"{module}.{alias.name}" for alias in node.names)
