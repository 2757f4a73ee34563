"""What ruff does not know of: how the tests are laid out, and how long the example scripts may be. `make lint` runs it.

    python tools/lint.py

Tests share what lies in tests/worlds and nothing else, so that each file can be read and moved alone.
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from utils.paths import PROJECT

SHARED = "tests.worlds"
EXAMPLE_LINES = range(20, 61)


def main() -> None:
    faults = [*of_tests(PROJECT / "tests"), *of_examples(PROJECT / "docs/examples")]
    print("\n".join(faults), file=sys.stderr, end="\n" if faults else "")
    sys.exit(bool(faults))


def of_tests(folder: Path) -> Iterator[str]:
    """One line for each fault of the tests below a folder."""
    files = sorted(folder.rglob("test_*.py"))
    for path in (*files, folder / "conftest.py", *sorted((folder / "worlds").glob("*.py"))):
        for name in from_another_test(path.read_text("utf-8")):
            yield f"{path}: imports {name}; what tests share lies in tests/worlds"
    for path in files:
        text = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        if not text or text.count("\n") > 1:
            yield f"{path}: begins without a docstring of one or two lines that says what it is about"
    for name, count in Counter(path.name for path in files).items():
        if count > 1:
            yield f"{name}: {count} files have this name; reports and -k would mix them up"


def of_examples(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.py")):
        if (lines := len(path.read_text("utf-8").splitlines())) not in EXAMPLE_LINES:
            yield f"{path}: has {lines} lines; an example is short, {EXAMPLE_LINES.start} to {EXAMPLE_LINES.stop - 1}"


def from_another_test(source: str) -> list[str]:
    """The imports of a file of the tests that are neither a world nor outside the tests."""
    return [
        name
        for name in imported(source)
        if name.startswith(".")
        or name.split(".")[0] == "tests"
        and not name.startswith(SHARED)
        or any(part == "conftest" or part.startswith("test_") for part in name.split("."))
    ]


def imported(source: str) -> Iterator[str]:
    """Names of all modules that a file imports anywhere, "a.b" for `from a import b` as well; relative ones with dots."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


if __name__ == "__main__":
    main()
