"""Wrong input, in one line."""

from typing import Any


class InputError(Exception):
    """Wrong input: one line saying what was wrong, with which value, and what to do. The program exits with 2."""


def short(value: Any) -> str:
    """One line of at most 80 characters."""
    text = str(value).encode("unicode_escape").decode() if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
