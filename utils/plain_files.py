"""Files that others may have written, JSON and YAML: read in bounded time and memory, and of the shape that is asked for."""

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from pydantic import TypeAdapter, ValidationError

from utils.errors import InputError, one_line, short, visible

DEEPEST = 64  # brackets within brackets; our own files have ten
MOST_JSON = 2**20  # bytes; metrics.json grows with its images, all others have a few kilobytes
MOST_YAML = 2**18
Object = dict[str, Any]  # named values


class Unreadable(ValueError):
    """A file's content that is not what it should be, in one line without the file's name."""


def read_regular(path: str | Path, most: int) -> bytes:
    """The content of a file of at most `most` bytes. Raises as `open_regular`."""
    with open_regular(path, most) as (file, size):
        return file.read(size)  # no more than that: below /proc a file may go on for ever


@contextmanager
def open_regular(path: str | Path, most: int) -> Iterator[tuple[BinaryIO, int]]:
    """(the open file, its bytes) of a file of at most `most` bytes.

    Raises Unreadable for a larger one and for what is no file: a device or a pipe has no end. OSError for one that cannot be
    opened or read.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:  # a pipe is not waited for
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("is no file, but a folder, pipe or device")
        if status.st_size > most:
            raise Unreadable(f"has {status.st_size} bytes, and at most {most} are read")
        yield file, status.st_size


def read_json(path: str | Path, shape: Any = Object, most: int = MOST_JSON) -> Any:
    """The JSON of a file as `shape`, a type that pydantic knows, such as a BaseModel. Raises Unreadable, OSError."""
    return shaped(parse_json(read_regular(path, most)), shape)


def read_yaml(path: str | Path, shape: Any = Object) -> Any:
    """The YAML of a file as `shape`, as `read_json`."""
    return shaped(parse_yaml(read_regular(path, MOST_YAML)), shape)


def parse_json(content: str | bytes) -> Any:
    """Raises Unreadable for what is no JSON, and for nesting too deep for those who walk through it."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not JSON ({type(error).__name__}: {one_line(error, 120)})") from None
    if _is_deep(value):
        raise Unreadable(f"is nested more than {DEEPEST} deep")
    return value


def parse_yaml(content: bytes) -> Any:
    """Plain YAML without aliases. Raises Unreadable for anything else, and for nesting as `parse_json`."""
    try:
        return yaml.load(content, PlainLoader)
    except Unreadable:
        raise
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:  # also of tags with a wrong value
        raise Unreadable(f"not YAML ({type(error).__name__}: {one_line(error, 120)})") from None


def shaped(value: Any, shape: Any) -> Any:
    """`value` as pydantic makes `shape` of it. Raises Unreadable naming the first place that is otherwise."""
    try:
        return TypeAdapter(shape).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(visible(short(str(part))) for part in first["loc"])
        message = f"{first['msg'][0].lower()}{first['msg'][1:]}"
        raise Unreadable(f"{f'{place}: ' if place else ''}{message}") from None


def refuse_deep(text: str) -> None:
    """Raises InputError for an argument of the command line that is nested so deep that its readers, which recurse, fail."""
    depth = 0
    for bracket in re.findall(r"[\[\](){}]", text):
        depth += 1 if bracket in "[({" else -1
        if depth > DEEPEST:
            raise InputError(f"{short(text)}: is nested more than {DEEPEST} deep; write it flatter")
    if text.partition("=")[0].count(".") > DEEPEST:
        raise InputError(f"{short(text)}: its key has more than {DEEPEST} parts; write it flatter")


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST + 1):
        groups = [each for each in level if isinstance(each, (dict, list))]
        level = [inner for group in groups for inner in (group.values() if isinstance(group, dict) else group)]
    return any(isinstance(each, (dict, list)) for each in level)


class PlainLoader(yaml.SafeLoader):
    """Refuses aliases, by which a kilobyte stands for any number of values, and deep nesting.

    No tag is followed: a written !!binary or !!set is no part of our files, and !!python never was.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise Unreadable(f"not plain YAML: has an alias (*{visible(short(self.peek_event().anchor))})")
        if (tag := getattr(self.peek_event(), "tag", None)) is not None:
            raise Unreadable(f"not plain YAML: has a tag ({visible(short(tag))})")
        if self.depth > DEEPEST:
            raise Unreadable(f"is nested more than {DEEPEST} deep")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1
