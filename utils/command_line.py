"""What the programs of the command line share: one-line errors with status 2, streams that end, arguments of the tools."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TextIO

from utils.errors import InputError, visible
from utils.files import Content, write_atomically
from utils.paths import PROJECT

STREAMS = {"stdout": "standard output", "stderr": "standard error"}


class Parser(argparse.ArgumentParser):
    """Wrong arguments are one line, as everywhere in this project."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


class Lasting:
    """A standard stream that may end before its program: a closed pipe or terminal, a full disk. From then on it is silent.

    lost: called once, with what writing raised, which is `error` then
    """

    def __init__(self, stream: TextIO, lost: Callable[[OSError], None] = lambda error: None) -> None:
        self.stream, self.lost = stream, lost
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError as error:
            self._silence(error)
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            self._silence(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _silence(self, error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())  # what its buffer still holds goes there too, also when Python ends
        os.close(nowhere)
        if self.error is None:
            self.error = error
            self.lost(error)


@contextmanager
def lasting_streams(lost: Callable[[str, OSError], None] = lambda name, error: None) -> Iterator[None]:
    """Inside, standard output and standard error are `Lasting`. lost: is told of each one that ends, by its name."""
    before = {name: getattr(sys, name) for name in STREAMS}  # None where a user has closed one
    for name, stream in before.items():
        if isinstance(stream, io.TextIOWrapper):  # not what a test or a notebook puts in its place
            stream.reconfigure(errors="backslashreplace")  # for characters that the terminal's encoding has not
        if stream is not None:
            setattr(sys, name, Lasting(stream, partial(lost, STREAMS[name])))
    try:
        yield
    finally:
        for name, stream in before.items():
            if stream is not None:
                getattr(sys, name).flush()
            setattr(sys, name, stream)


def run(main: Callable[[], None]) -> None:
    """Call main(); wrong input ends in one line and status 2, as does output that cannot be written.

    Whoever stops reading, as `head` does, stops no tool: what it computes and writes into files is finished in silence.
    """
    unwritten: list[OSError] = []
    with lasting_streams(lambda name, error: unwritten.append(error) if name == STREAMS["stdout"] else None):
        try:
            check_checkout()
            main()
            if sys.stdout is not None:
                sys.stdout.flush()
            if unwritten and not isinstance(unwritten[0], BrokenPipeError):
                raise InputError(f"standard output cannot be written ({unwritten[0].strerror})")
        except (InputError, OSError) as error:
            print(f"error: {visible(str(error))}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)


def check_checkout() -> None:
    """A tool of one checkout must not compute with the modules of another, which an environment that both share installs."""
    checkout = Path(sys.argv[0]).resolve().parent.parent
    if checkout != PROJECT and (checkout / "utils" / Path(__file__).name).is_file():
        raise InputError(
            f"{sys.argv[0]}: this environment has the modules of {PROJECT}; write PYTHONPATH={checkout} before the command, "
            "or make an environment there"
        )


@contextmanager
def wrong_input_in_one_line() -> Iterator[None]:
    """Within a function of @hydra.main, which would announce and print what the function raises."""
    try:
        yield
    except InputError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        sys.exit(2)


def say(line: object) -> None:
    """Print one line, which may hold names that others have given: of files, folders, metrics."""
    print(visible(str(line)))


def write_text(text: str, out: str | Path | None) -> None:
    """To the file `out`, or to the terminal where it is None."""
    if out is None:
        print(text, end="")
    else:
        write_file(text, out)


def write_file(content: Content, out: str | Path, keep_other: bool = False) -> Path | None:
    """`write_atomically` to a file that a user named with `out`, folders made; a link is followed, a device written to.

    Raises InputError.
    """
    out = Path(out)
    try:
        data = content.encode() if isinstance(content, str) else content
        if out.exists() and not out.is_file():  # /dev/stdout, a pipe: nothing to replace
            with out.open("wb") as file:
                data(file) if callable(data) else file.write(data)
            return None
        out.parent.mkdir(parents=True, exist_ok=True)
        return write_atomically(out.resolve(), data, keep_other)
    except (OSError, UnicodeEncodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"out={out}: cannot be written ({reason}); free some space, or name another place") from None
