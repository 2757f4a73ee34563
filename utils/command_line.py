"""What the command-line tools share: one-line errors with status 2, and the arguments that name finished runs."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from utils.errors import InputError


class Parser(argparse.ArgumentParser):
    """Wrong arguments are one line, as everywhere in this project."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def run(main: Callable[[], None]) -> None:
    """Call main(); wrong input ends in one line and status 2, output cut short by a closed pipe in silence."""
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
        Path(out).write_text(text)
    except OSError as error:
        raise InputError(f"out={out}: cannot be written ({error.strerror})") from None
