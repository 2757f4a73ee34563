"""Wrong input, in one line."""

import re
from collections.abc import Sequence
from typing import Any

# they steer a terminal, end a line, or turn the direction of what follows: control, line and bidirectional characters
STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

# what to do where a part of one's own is not found
TO_BE_FOUND = "put your module's folder on PYTHONPATH or install its package, and name that of your configs by --config-dir"


class InputError(Exception):
    """Wrong input: one line saying what was wrong, with which value, and what to do. The program exits with 2."""

    def __init__(self, line: str) -> None:
        super().__init__(visible(line))


class Unfit(ValueError):
    """A file that is whole and cannot be read as it is: one line saying why, and what to do so that it can."""


def visible(text: str) -> str:
    """A text in one line, its steering characters written as escapes: names of others reach a terminal by it."""
    return STEERING.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def short(value: Any) -> str:
    """One line of at most 80 characters: of a longer one the middle is left out, since a path is told by its end."""
    text = str(value).encode("unicode_escape").decode() if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:47]}...{text[-30:]}"


def few(names: Sequence[str], shown: int = 3) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def counted(number: int, noun: str, ending: str = "s") -> str:
    """1 image, 2 images; ending: of the plural."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{ending}"


def one_line(error: BaseException, length: int = 400) -> str:
    """All lines of an error's text in one, at most `length` characters: the middle is what is left out.

    The reason of a multi-line error may stand in its first line or in its last. An error without a text gives its type.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else f"{text[: length // 2 - 3]} ... {text[len(text) - length // 2 + 2 :]}"
