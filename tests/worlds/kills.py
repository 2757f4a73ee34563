"""A kill before any one change of the disk, within this process: what is left is what a killed process would leave."""

import os
import sys
from pathlib import Path

CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Killed(BaseException):
    """No cleaning up after it: every later change is refused as well."""


class Kill:
    """The `at`-th change below `root` does not happen, nor does any after it; of an open for writing, all that is written."""

    def __init__(self, at, root):
        self.at, self.root, self.seen, self.busy = at, f"{Path(root).resolve()}/", 0, False

    def see(self, event, arguments):
        if not self.is_change(event, arguments):
            return
        self.seen += 1
        if self.seen == self.at and event == "open":
            self.busy = True  # a file in place is empty now, a temporary one is there
            os.close(os.open(arguments[0], arguments[2] & ~os.O_EXCL, 0o600))
            self.busy = False
        if self.seen >= self.at:
            raise Killed

    def is_change(self, event, arguments):
        if event == "open":
            path, _, flags = arguments
            return not isinstance(path, int) and bool(flags & WRITES) and self.is_below(path)
        if event not in CHANGES:
            return False
        within = event in ("os.remove", "os.rmdir") and arguments[-1] != -1  # of a folder that is open: shutil.rmtree
        return within or any(isinstance(a, (str, bytes, os.PathLike)) and self.is_below(a) for a in arguments)

    def is_below(self, path):
        return f"{os.path.abspath(os.fsdecode(path))}/".startswith(self.root)


current: Kill | None = None
_hooked = False


def _hook(event, arguments):
    if current is not None and not current.busy:
        current.see(event, arguments)


def killed(at, root, work):
    """Whether work() was killed at its `at`-th change below `root`; it came to its end if not."""
    global current, _hooked
    if not _hooked:
        sys.addaudithook(_hook)  # stays for the process, and sleeps
        _hooked = True
    current = Kill(at, root)
    try:
        work()
    except Killed:
        return True
    finally:
        count, current = current.seen, None
    assert count < at, "a kill was caught"
    return False


def contents(folder, without=()):
    """{path below folder: bytes} of all files but half-written ones and those of the names `without`."""
    from utils.files import PARTIAL

    files = (file for file in Path(folder).rglob("*") if file.is_file() and PARTIAL not in str(file.relative_to(folder)))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.name not in without}
