"""What the command-line tools share: one-line errors with status 2, and the arguments that name finished runs."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from utils.errors import InputError
from utils.files import Content, write_atomically


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
    else:
        write_file(text, out)


def write_file(content: Content, out: str | Path, keep_other: bool = False, key: str = "out") -> Path | None:
    """`write_atomically` to a file that a user named with `key`, folders made; a link is followed, a device written to.

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
        raise InputError(f"{key}={out}: cannot be written ({reason}); free some space, or name another place") from None
