"""Who is at work in a run folder: any number of processes of one configuration, and never two configurations at once.

Each process holds a shared lock on one file of the folder. Whoever is the first holds it alone for a moment, looks the folder
over and writes into the file which run it is and what it is made of. The kernel, over NFS the server, drops the lock of a
process or host that died.
"""

import fcntl
import getpass
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from utils.digests import other_content
from utils.errors import InputError
from utils.plain_files import Object, parse_json, shaped

CLAIM = "latentdaps.lock"
MOST = 2**18  # characters of it


def claim_path(folder: str | Path) -> Path:
    return Path(folder) / CLAIM


@contextmanager
def claimed(
    folder: Path, fingerprint: str, look_over: Callable[[], Any] = lambda: None, content: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Inside, `folder` (made if missing) belongs to runs of `fingerprint`. Raises InputError while it belongs to another.

    content: digests of what the run is made of (utils/digests.py) and of its images; None where that is claimed already.
    look_over: called before that, if nobody else is at work there and while nobody can come in; what it raises ends the claim.
    """
    file, alone = _locked(folder)
    with file:
        if alone or (_holder(file).get("fingerprint") != fingerprint and _is_alone(file)):
            look_over()
            file.truncate(0)
            about = {"fingerprint": fingerprint, **_this_process(), "content": content or {}}
            file.write(json.dumps({"program": "LatentDAPS", **about}))
            file.flush()
        fcntl.flock(file, fcntl.LOCK_SH)  # another run may come in before this: the holder is read again
        if (holder := _holder(file)).get("fingerprint") != fingerprint:
            raise InputError(f"name={folder.name}: a run of another configuration is at work in {_where(folder, holder)}")
        theirs = holder.get("content")
        if content and isinstance(theirs, dict) and (other := other_content(theirs, content)):
            raise InputError(f"name={folder.name}: a run with {other} is at work in {_where(folder, holder)}")
        yield


@contextmanager
def unclaimed(folder: Path, what: str = "resume=false") -> Iterator[None]:
    """Inside, nobody is at work in `folder`, and nobody can begin. Raises InputError if somebody is; what: its first word."""
    file, alone = _locked(folder)
    with file:
        if not alone:
            raise InputError(f"{what}: a run is at work in {_where(folder, _holder(file))}")
        yield


def _locked(folder: Path) -> tuple[TextIO, bool]:
    """The open claim file of `folder` under a lock, and whether nobody else has one."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        file = claim_path(folder).open("a+")
        try:
            alone = _is_alone(file)
            if not alone:
                fcntl.flock(file, fcntl.LOCK_SH)  # waits while another looks the folder over
            if _is_at(file, claim_path(folder)):
                return file, alone
        except BaseException:
            file.close()
            raise
        file.close()  # the folder was moved aside before the lock came: the claim is for the one that took its place


def _is_alone(file: TextIO) -> bool:
    """Whether nobody else holds a lock; if so, nobody else gets one from now on.

    If not, this file holds none any more: a lock that cannot be had at once costs the one that was there, flock(2).
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _holder(file: TextIO) -> dict[str, Any]:
    """What the file says; {} where a kill left it half written, or before anything was."""
    file.seek(0)
    try:
        return shaped(parse_json(file.read(MOST)), Object)
    except ValueError:
        return {}


def _this_process() -> dict[str, Any]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    since = datetime.now().isoformat(" ", "seconds")
    return {"user": user, "host": socket.gethostname(), "process": os.getpid(), "since": since}


def _where(folder: Path, holder: dict[str, Any]) -> str:
    described = ", ".join(f"{key} {holder[key]}" for key in ("user", "host", "process", "since") if key in holder)
    return (
        f"{folder}{f' ({described})' if described else ''}; choose another name=, or wait for its end "
        f"(if its host is gone for good, remove {CLAIM} there)"
    )
