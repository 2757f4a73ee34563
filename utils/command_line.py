"""What the command-line tools share: one-line errors with status 2, and the arguments that name finished runs."""

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from utils.errors import InputError


class Parser(argparse.ArgumentParser):
    """Wrong arguments are one line, as everywhere in this project."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def write_what_the_terminal_lacks_as_escapes() -> None:
    """A character that the encoding of the terminal has not, as of ASCII, ends no program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not what a test or a notebook puts in its place
            stream.reconfigure(errors="backslashreplace")


def run(main: Callable[[], None]) -> None:
    """Call main(); wrong input ends in one line and status 2, output cut short by a closed pipe in silence."""
    write_what_the_terminal_lacks_as_escapes()
    try:
        main()
    except BrokenPipeError:
        sys.stderr.close()
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def write_text(text: str, out: str | Path | None) -> None:
    """To the file `out`, or to the terminal where it is None."""
    if out is None:
        sys.stdout.write(text)
        return
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        Path(out).write_bytes(text.encode())
    except OSError as error:
        raise InputError(f"out={out}: cannot be written ({error.strerror})") from None
