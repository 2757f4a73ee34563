"""The documents read as a newcomer reads them: their code, the commands in it, their links and headings.

A command or file behind which "(commit NAME)" stands has left the project and is there at that commit of git.
"""

import re
import shlex

from utils.paths import PROJECT

FRONT = ("README.md", "PROJECT.md", "CONTRIBUTING.md", "CHANGELOG.md")
DOCUMENTS = [*(PROJECT / name for name in FRONT), *sorted((PROJECT / "docs").rglob("*.md"))]
NAMES = [str(path.relative_to(PROJECT)) for path in DOCUMENTS]

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
_INLINE = re.compile(r"`([^`]+)`")
_OF_A_COMMIT = re.compile(
    r"^((?:    .*\\\n)*    [^#\n]*#.*)\(commit ([\w.-]+)\)$|(`[^`]+`)\s+\(commit ([\w.-]+)\)", re.MULTILINE
)  # a command of a block with the commit at the end of its comment, or inline code


def at(text, commit=None):
    """What a document says of the project as it is, or, as lines of their own, the pieces that are of a commit."""
    if commit is None:
        return _OF_A_COMMIT.sub("", text)
    return "\n".join((m[1] or m[3]) for m in _OF_A_COMMIT.finditer(text) if commit in (m[2], m[4])) + "\n"


def commits(text):
    return sorted({m[2] or m[4] for m in _OF_A_COMMIT.finditer(text)})


def code(text):
    """(lines of the blocks of shell code, inline code) of a document."""
    blocks = [body for language, body in _FENCED.findall(text) if not language]
    rest = _FENCED.sub("", text)
    blocks += [block for block in _INDENTED.findall(rest)]
    inline = [" ".join(span.split()) for span in _INLINE.findall(_INDENTED.sub("", rest))]
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()], inline


def commands(text):
    """Every command of a document as a list of words, without comments and without VARIABLE=value before it."""
    lines, inline = code(text)
    found = []
    for line in lines + inline:
        if re.match(r"(\w+=\S+ |\w+=\"[^\"]*\" )*(python|bash|torchrun|make) ", line):
            for part in line.split(" && "):
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words.pop(0)
                found.append(words)
    return found


def links(text):
    """(target, anchor) of every link that stays inside the project; either may be empty."""
    found = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", _FENCED.sub("", text))
    return [(target, anchor) for target, anchor in found if not target.startswith("http")]


def anchors(text):
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
