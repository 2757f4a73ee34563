"""Files are written whole or not at all: what a full disk or a kill leaves is the old file, or the new one.

A temporary file beside the place is filled, is brought to the disk, and takes the place in one step. Everything that the
program and its tools write goes this way, apart from logs, which grow line by line.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from utils.errors import InputError
from utils.paths import unused

PARTIAL = ".latentdaps-partial"  # ending of files that are still being written, and of nobody else's

Content = str | bytes | memoryview | Callable[[BinaryIO], Any]


def write_atomically(path: str | Path, content: Content, keep_other: bool = False, durable: bool = True) -> Path | None:
    """Create or replace the file `path` in one step.

    content: text, which is encoded as UTF-8 before anything is touched; bytes; or write(file), which fills a binary file.
    keep_other: a file of other content that is there is moved aside, once the new one is on the disk; returns where it is.
    durable: False does not wait for the disk, for thousands of files that the same command makes again after a power loss.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
    try:
        with os.fdopen(handle, "wb") as file:
            if callable(data):
                data(file)
            else:
                file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(partial, 0o644)
        aside = None
        if keep_other and path.is_file() and path.read_bytes() != Path(partial).read_bytes():
            aside = path.rename(unused(path))
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    return aside


def write_folder(path: str | Path, fill: Callable[[Path], Any], keep_other: bool = False) -> Path | None:
    """Create or replace the folder `path` in one step: `fill(folder)` writes into a temporary one beside it.

    keep_other: a folder that is there is moved aside and its place returned, unless it holds every file of the new one:
    then it stays as it is. Otherwise it is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL))
    before = None
    try:
        fill(partial)
        files = [file for file in partial.rglob("*") if file.is_file()]
        for file in files:
            with file.open("rb") as written:
                os.fsync(written.fileno())
        partial.chmod(0o755)
        if path.is_dir():
            if keep_other and all(_same(file, path / file.relative_to(partial)) for file in files):
                return None
            before = path.rename(unused(path) if keep_other else partial.with_name(f"{partial.name}-old{PARTIAL}"))
        try:
            partial.rename(path)
        except BaseException:
            if before is not None:
                before.rename(path)
            raise
        if before is not None and not keep_other:
            shutil.rmtree(before)
    finally:
        if partial.exists():
            shutil.rmtree(partial)
    return before if keep_other else None


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()


def picture_format(path: str | Path) -> str:
    """The format that the ending of a picture's name stands for, in capitals. Raises InputError."""
    from PIL import Image

    formats = Image.registered_extensions()
    suffix = Path(path).suffix.lower()
    if formats.get(suffix) not in Image.SAVE:
        raise InputError(f"{path}: its ending is no picture's that can be written; end it in .png or .jpg")
    return formats[suffix]
