"""What ruff does not know of: how the tests are laid out, and how long examples and sentences may be. `make lint` runs it.

    python tools/lint.py

Tests share what lies in tests/worlds and nothing else, so that each file can be read and moved alone. A sentence of a
document has at most 25 words and two numbers. Code, tables, quotes and frozen protocols are free of that.
"""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from utils.paths import PROJECT

SHARED = "tests.worlds"
EXAMPLE_LINES = range(20, 61)
WORDS, NUMBERS, LINE = 25, 2, 128  # at most: of a sentence, of a sentence, of a line
DOCUMENTS = (
    *("README.md", "PROJECT.md", "CONTRIBUTING.md", "docs/*.md", "docs/guide/*.md", "docs/reference/*.md"),
    *("docs/research/*.md", "docs/research/measured/*.md"),
)
NO_PROSE = re.compile(  # code blocks; what is generated or kept word for word, up to its closing comment; comments
    r"^```.*?^```$|^<!-- (table|notes|verbatim)\b.*?^<!-- (end|/verbatim) -->$|^<!--.*?-->$", re.MULTILINE | re.DOTALL
)
START = re.compile(r"\s*([-*]|\d+\.) |#+ ")  # of a list's entry or a heading: what stands before it has ended
NUMBER = re.compile(r"(?<![\w.-])\d+([.,:/-]\d+)*")


def main() -> None:
    faults = [*of_tests(PROJECT / "tests"), *of_examples(PROJECT / "docs/examples"), *of_documents(PROJECT)]
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


def of_documents(project: Path) -> Iterator[str]:
    for path in sorted({path for pattern in DOCUMENTS for path in project.glob(pattern)}):
        for line, fault in of_prose(path.read_text("utf-8")):
            yield f"{path}:{line}: {fault}"


def of_prose(text: str) -> Iterator[tuple[int, str]]:
    """(number of the line, fault) of each sentence or line of a document in Markdown that is too long."""
    for first, lines in paragraphs(text):
        for i, line in enumerate(lines):
            if len(line) > LINE:
                yield first + i, f"the line has {len(line)} characters; {LINE} at most"
        prose = re.sub(r"`[^`]*`", lambda code: "CODE" + "\n" * code[0].count("\n"), "\n".join(lines))
        prose = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", prose)
        start = 0
        for end in [*(m.end() for m in re.finditer(r"[.!?][)\"*]*(?=\s+[^a-z\s])", prose)), len(prose)]:
            sentence, line = prose[start:end], first + prose[: end - len(prose[start:end].lstrip())].count("\n")
            words = [word for word in sentence.split() if re.search(r"\w", word)]
            numbers = len(NUMBER.findall(START.sub("", sentence, count=1)))
            for count, most, noun in ((len(words), WORDS, "words"), (numbers, NUMBERS, "numbers")):
                if count > most:
                    yield line, f"a sentence of {count} {noun}, {most} at most: {' '.join(words[:8])} ..."
            start = end


def paragraphs(text: str) -> Iterator[tuple[int, list[str]]]:
    """(number of the first line, lines) of each paragraph, list entry and heading."""
    text = NO_PROSE.sub(lambda match: "\n" * match[0].count("\n"), text)
    block: list[str] = []
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        code = line.startswith("    ") and not block  # an indented line right after others goes on with them
        left_out = not line.strip() or line.startswith(("|", ">")) or code
        if block and (left_out or START.match(line) or block[0].startswith("#")):
            yield number - len(block), block
            block = []
        if not left_out:
            block.append(line)


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
