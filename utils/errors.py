"""Wrong input, in one line."""

from typing import Any


class InputError(Exception):
    """Wrong input: one line saying what was wrong, with which value, and what to do. The program exits with 2."""


def short(value: Any) -> str:
    """One line of at most 80 characters: of a longer one the middle is left out, since a path is told by its end."""
    text = str(value).encode("unicode_escape").decode() if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:47]}...{text[-30:]}"


def one_line(error: BaseException, length: int = 400) -> str:
    """All lines of an error's text in one, at most `length` characters: the middle is what is left out.

    The reason of a multi-line error may stand in its first line or in its last. An error without a text gives its type.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else f"{text[: length // 2 - 3]} ... {text[len(text) - length // 2 + 2 :]}"
