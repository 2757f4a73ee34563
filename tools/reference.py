"""Write docs/reference: switches.md from the comments of the configs, metrics.md from those of the schema of metrics.json.

    python tools/reference.py            # writes both pages
    python tools/reference.py --check    # changes nothing; exit status 1 where a page is out of date

A key or a field is described by the comment behind it, or by those in lines of their own: below a key, above a field.
"""

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from utils.command_line import Parser, run
from utils.files import write_atomically
from utils.metrics.registry import ON_REQUEST, ORDER
from utils.paths import PROJECT
from utils.records.metrics import Metrics

FOLDER = PROJECT / "docs/reference"
CONFIGS = PROJECT / "configs"
NOTE = "<!-- Written by tools/reference.py. Edit the comments of the {}, and run it again. -->"
METRICS = (
    "Each has a block NAME at the top of the file. `loss`, `r_factor` and `exposure` stand in the block `loss`.\n"
    "`shifted_psnr` is there where the key `metrics` names it."
)
GROUPS = {
    "data": "images or measurements",
    "model": "the prior",
    "task": "the operator, and its hyper-parameters by `task_group`",
    "sampler": "the algorithm, and how the noise is annealed",
    "callbacks": "what is told how the run goes on",
    "experiment": "a named set of overrides",
}
LENGTHS = {  # (in words, nested lists) of what a list of metrics.json has one entry for
    "images": ("per image", 1),
    "particles": ("per image and particle", 2),
    "particles at the start": ("per image and particle of the start", 2),
    "steps": ("per image and annealing step", 2),
}
TYPES = {int: "integer", float: "number", str: "text", bool: "true or false", Any: "anything"}


class Row(NamedTuple):
    name: str  # with dots
    value: str  # default of a key, type of a field; "" of what only holds others
    meaning: str


def main() -> None:
    parser = Parser(prog="reference.py", description="Write docs/reference from the comments of configs and schema.")
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 where a page is out of date")
    check = parser.parse_args().check
    pages = {FOLDER / "switches.md": switches(), FOLDER / "metrics.md": metrics()}
    stale = [path for path, text in pages.items() if not path.is_file() or path.read_text("utf-8") != text]
    for path in stale:
        if check:
            print(f"{path}: out of date; run tools/reference.py", file=sys.stderr)
        else:
            write_atomically(path, pages[path])
            print(f"{path}: written")
    sys.exit(check and bool(stale))


def switches() -> str:
    """The page of all keys that posterior_sample.py takes, and of tools/train_prior.py."""
    parts = [
        "# Switches",
        NOTE.format("configs"),
        "Every key with its default. `python posterior_sample.py seed=43` gives one.",
    ]
    default = (CONFIGS / "default.yaml").read_text("utf-8")
    for title, rows in sections(default):
        parts += [f"## {title[0].upper()}{title[1:]}", table("key", "default", rows)]
    for group, meaning in GROUPS.items():
        paths = sorted((CONFIGS / group).glob("*.yaml"), key=lambda path: (f"{group}: {path.stem}\n" not in default, path.stem))
        texts = {path.stem: path.read_text("utf-8") for path in paths}  # the default choice first
        choices = [Row(f"{group}={name}", "", heading(text)) for name, text in texts.items()]
        parts += [f"## `{group}=`: {meaning}", table("choice", "", choices)]
        if group not in ("callbacks", "experiment"):
            parts += [table("key", "default", united(group, texts.values()))]
    parts += ["## Training a prior", "Its keys, as in `python tools/train_prior.py seed=1 name=another`."]
    of_training = [row for _, rows in sections((CONFIGS / "train_prior.yaml").read_text("utf-8")) for row in rows]
    return "\n\n".join([*parts, table("key", "default", of_training)]) + "\n"


def heading(text: str) -> str:
    """The first sentence of a YAML file's first comments."""
    lines = [line for line in text.splitlines() if not line.startswith("# @package")]
    first = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return re.split(r"(?<=\.) ", " ".join(line.removeprefix("# ") for line in lines[:first]))[0]


def sections(text: str) -> Iterator[tuple[str, list[Row]]]:
    """(heading, keys) of a YAML file; a comment line of no indent before keys is a heading, the first one is the file's."""
    title, rows, above = "", [], []
    for line in text.splitlines():
        body, _, comment = line.partition(" # ")
        if match := re.fullmatch(r"(\s*)([\w.-]+):(?:\s+(.*?))?\s*", body):
            indent, name, value = len(match[1]), match[2], match[3] or ""
            above = [(depth, outer) for depth, outer in above if depth < indent] + [(indent, name)]
            if above[0][1] not in ("defaults", "hydra"):
                rows.append(Row(".".join(outer for _, outer in above), value, comment))
        elif line.startswith("# "):
            if rows:
                yield title, rows
            title, rows, above = line.removeprefix("# "), [], []
        elif rows and comment and not body.strip():
            rows[-1] = rows[-1]._replace(meaning=f"{rows[-1].meaning} {comment}")
    if rows:
        yield title, rows


def united(group: str, texts: Iterable[str]) -> list[Row]:
    """The keys of all choices of a group, each once; those of a task below its task group."""
    rows: dict[str, Row] = {}
    for row in (row for text in texts for _, rows_of in sections(text) for row in rows_of):
        name = f"task.<task_group>.{row.name.partition('.')[2]}" if group == "task" else f"{group}.{row.name}"
        first = rows.setdefault(name, row._replace(name=name))
        value = first.value if first.value == row.value else "by choice"
        rows[name] = Row(name, value, first.meaning or row.meaning)
    return [row for row in rows.values() if not row.name.endswith(">.")]


def metrics() -> str:
    """The page of all fields of metrics.json."""
    about = [
        Row(m.name or "shifted_psnr", m.direction, f"{m.title}, {m.unit or 'no unit'}. {str(m.__doc__).splitlines()[0]}")
        for m in (*ORDER, *ON_REQUEST)
    ]
    parts = ["# metrics.json", NOTE.format("schema, utils/records/metrics.py, and of the mechanisms' plans")]
    parts += ["Every run folder holds one. How to read it: [results.md](../guide/results.md).", "## Fields"]
    parts += [table("field", "type", fields(Metrics)), "## Metrics", METRICS, table("NAME", "better", about)]
    return "\n\n".join(parts) + "\n"


def fields(block: type[BaseModel], above: str = "") -> Iterator[Row]:
    """A row for each field of a block of metrics.json, and for what lies below it."""
    hints = get_type_hints(block, include_extras=True)
    about = comments(block)
    for name in sorted(block.model_fields, key=lambda name: name not in block.__annotations__):  # inherited ones last
        field = block.model_fields[name]
        words, inner, below = type_of(hints[name])
        key = above + ("NAME" if name == "scores" else f"{field.alias or name}{below}")
        yield Row(key, words, about.get(name) or (vars(inner).get("__doc__") or "" if inner else ""))
        if inner is not None:
            yield from fields(inner, f"{key}.")


def type_of(hint: Any) -> tuple[str, type[BaseModel] | None, str]:
    """(in words, the block that it holds, what stands between its key and those of the block) of an annotation."""
    arguments = get_args(hint)
    if get_origin(hint) is Annotated:
        length, depth = LENGTHS.get(arguments[1], ("", 0))
        hint = arguments[0]
        for _ in range(depth):
            hint = get_args(hint)[0]
        words, inner, below = type_of(hint)
        return f"{words}, {length}" if length else words, inner, below
    if get_origin(hint) is Literal:
        return " / ".join(f"`{value}`" for value in arguments), None, ""
    if NoneType in arguments:
        words, inner, below = type_of(arguments[0] if len(arguments) == 2 else Any)
        return f"{words}{'; or null' if ',' in words else ' or null'}", inner, below
    if get_origin(hint) is list:
        words, inner, below = type_of(arguments[0])
        return f"list of {words}", inner, below
    if get_origin(hint) is dict:
        words, inner, below = type_of(arguments[1])
        return words, inner, f".NAME{below}"
    return ("block", hint, "") if hint not in TYPES and issubclass(hint, BaseModel) else (TYPES[hint], None, "")


def comments(block: type[BaseModel]) -> dict[str, str]:
    """{field: comment} of a class in its source."""
    described: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getsource(block).splitlines():
        if match := re.fullmatch(r"    # (.*)", line):
            above.append(match[1])
        elif match := re.fullmatch(r"    (\w+): .*?(?:  # (.*))?", line):
            described[match[1]] = " ".join([*above, match[2] or ""]).strip()
            above = []
    return described


def table(name: str, value: str, rows: Iterable[Row]) -> str:
    """Rows in Markdown; without a name for the second column there is none."""
    lines = [[name, value, "meaning"], ["---"] * 3]
    for row in (row for row in rows if row.value or row.meaning):
        middle = f"`{row.value}`" if value == "default" and row.value not in ("", "by choice") else row.value
        cells = [f"`{row.name}`", middle, row.meaning.replace("<", "&lt;")]
        lines.append([cell.replace("|", "\\|") for cell in cells])
    return "\n".join("| " + " | ".join(line if value else line[::2]) + " |" for line in lines)


if __name__ == "__main__":
    run(main)
