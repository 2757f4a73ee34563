"""Compute every table of the documents anew from the records under evidence/.

    python tools/evidence/project_tables.py            # replaces the tables in README.md, PROJECT.md and docs/
    python tools/evidence/project_tables.py --check    # changes nothing; exit status 1 where a table is out of date

In a document a table stands between `<!-- table: NAME -->` and `<!-- end -->`, in one document only. What holds for all tables
of a kind stands once in each document, between `<!-- notes -->` and `<!-- end -->`. evidence/tables.yaml says what is in a
table:

    - name: modes_faces                                  # the NAME
      folders: [evidence/exp0_faces, evidence/exp1_faces]  # run folders, from the folder of the project
      kind: modes                                        # quality, robust, perception, modes, tuning, loss, failures,
                                                         # tasks, cost, phases, paired, paired_tests; prior: files of
                                                         # tools/prior_quality.py
      baseline: exp0_faces                               # costs and differences refer to it (default: the first)
      columns: [experiment, success, paired.success]     # instead of the kind's own columns
      common: true                                       # only the images that all of the runs hold
      pool: true                                         # one row for runs that differ only in the seed
      by_name: true                                      # one row for runs of one name, on several data sets
      best_of: 2                                         # rows of what 2 of a run's independent particles would give
"""

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from utils.analysis.arguments import read_experiments
from utils.analysis.columns import KINDS, NEEDS, Table, known_keys
from utils.analysis.comparison import compare
from utils.analysis.tables import build, build_prior, markdown
from utils.command_line import Parser, run
from utils.errors import InputError, one_line
from utils.files import write_atomically
from utils.paths import PROJECT
from utils.plain_files import Object, Unreadable, read_json, shaped

START = re.compile(r"^<!-- table: (\S+) -->$", re.MULTILINE)
NOTES = re.compile(r"^<!-- notes -->$", re.MULTILINE)
BLOCK = re.compile(r"^<!-- (?:table: (\S+)|notes) -->\n((?:(?!<!-- (?:table: |notes )).*\n)*?)<!-- end -->$", re.MULTILINE)


Rows = Annotated[list[Object], Field(min_length=1)]


class Spec(BaseModel):
    """One entry of tables.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str = Field(pattern=r"^\S+$")
    folders: list[str] = Field(min_length=1)
    kind: Literal[*KINDS, "prior"]
    baseline: str | None = None
    columns: list[str] | None = None
    common: bool = False
    pool: bool = False
    by_name: bool = False
    best_of: int | None = None


def main() -> None:
    parser = Parser(prog="project_tables.py", description="Compute the tables of the documents from the records.")
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 where a table is out of date")
    parser.add_argument("--project", default=PROJECT, type=Path, help="folder of README.md, PROJECT.md, docs/ and evidence/")
    args = parser.parse_args()
    old = {path: read(path) for path in documents(args.project)}
    new, changed = replace_tables(old, read_specs(args.project / "evidence" / "tables.yaml"), args.project)
    for path, names in changed.items():
        message = f"{path}: {'out of date:' if args.check else 'replaced'} {', '.join(names)}"
        if args.check:
            print(f"{message}; run tools/evidence/project_tables.py", file=sys.stderr)
        else:
            write_atomically(path, new[path])
            print(message)
    if changed and args.check:
        sys.exit(1)
    if not changed:
        tables = [len(START.findall(text)) for text in old.values()]
        print(f"{args.project}: all {sum(tables)} tables of {sum(map(bool, tables))} documents are up to date")


def documents(project: Path) -> list[Path]:
    """Paths of the documents that may hold tables. Raises InputError where there are none."""
    paths = [project / name for name in ("README.md", "PROJECT.md") if (project / name).is_file()]
    paths += sorted((project / "docs").rglob("*.md"))
    if not paths:
        raise InputError(f"{project}: holds neither README.md nor PROJECT.md nor docs/*.md")
    return paths


def read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'})") from None


def read_specs(path: Path) -> dict[str, Spec]:
    """{name: Spec} of tables.yaml. Raises InputError."""
    try:
        specs = shaped(yaml.safe_load(read(path)), list[Spec])  # with aliases, so no plain YAML
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML ({one_line(error)})") from None
    except Unreadable as error:
        raise InputError(f"{path}: entry {error}") from None
    twice = next((s.name for i, s in enumerate(specs) if s.name in [other.name for other in specs[:i]]), None)
    if twice:
        raise InputError(f"{path}: table {twice} stands there twice")
    return {spec.name: spec for spec in specs}


def replace_tables(
    texts: Mapping[Path, str], specs: Mapping[str, Spec], project: Path
) -> tuple[dict[Path, str], dict[Path, list[str]]]:
    """({path: new text}, {path: names of what changed}) of {path: text}. Raises InputError where markers do not fit."""
    check_markers(texts, specs, project)
    new: dict[Path, str] = {}
    changed: dict[Path, list[str]] = {}
    for path, text in texts.items():
        tables = {name: table_of(specs[name], project) for name in START.findall(text)}
        general = dict.fromkeys(note for table in tables.values() for note in table.notes if note not in table.own_notes)
        if general and not NOTES.search(text):
            raise InputError(f"{path}: has no place for the notes of its tables; add the lines <!-- notes --> and <!-- end -->")
        bodies = {name: "\n" + markdown(table, level=0) + paragraphs(table.own_notes) for name, table in tables.items()}
        bodies[None] = paragraphs(general)

        def replaced(match: re.Match[str], path: Path = path, text: str = text, bodies: dict[str | None, str] = bodies) -> str:
            body = bodies[match[1]]
            if body != match[2]:
                changed.setdefault(path, []).append(match[1] or "notes")
            return text[match.start() : match.start(2)] + body + "<!-- end -->"

        new[path] = BLOCK.sub(replaced, text)
    return new, changed


def check_markers(texts: Mapping[Path, str], specs: Mapping[str, Spec], project: Path) -> None:
    """Every described table stands in one document, and every block is closed. Raises InputError."""
    place: dict[str, Path] = {}
    for path, text in texts.items():
        closed = [match[1] for match in BLOCK.finditer(text)]
        for name in START.findall(text):
            if name not in specs:
                raise InputError(f"{path}: table {name} is not described in tables.yaml")
            if name in place:
                other_document = "" if place[name] == path else f" and in {place[name]}"
                raise InputError(f"{path}: table {name} stands there{other_document or ' twice'}; keep it once")
            if name not in closed:
                raise InputError(f"{path}: table {name} has no closing line <!-- end -->")
            place[name] = path
        if len(NOTES.findall(text)) > 1:
            raise InputError(f"{path}: the notes stand there twice; keep them once")
        if NOTES.search(text) and None not in closed:
            raise InputError(f"{path}: the block of notes has no closing line <!-- end -->")
    missing = next((name for name in specs if name not in place), None)
    if missing:
        raise InputError(
            f"{project}: no document has a place for the table {missing}; "
            f"add the lines <!-- table: {missing} --> and <!-- end --> to one"
        )


def paragraphs(notes: Iterable[str]) -> str:
    """Each note as a paragraph, with an empty line before the first and after the last."""
    return "".join(f"\n{note}\n" for note in notes) + "\n"


def table_of(spec: Spec, root: Path) -> Table:
    """The Table that a Spec describes. Raises InputError."""
    return prior_table(spec, root) if spec.kind == "prior" else run_table(spec, root)


def prior_table(spec: Spec, root: Path) -> Table:
    """The Table of files that tools/prior_quality.py wrote. Raises InputError."""
    rows = []
    for name in spec.folders:
        try:
            rows += [{"file": Path(name).stem, **row} for row in read_json(root / name, Rows)]
        except (OSError, Unreadable) as error:
            raise InputError(f"{root / name}: not written by tools/prior_quality.py ({one_line(error)})") from None
    return build_prior(rows)


def run_table(spec: Spec, root: Path) -> Table:
    """The Table of run folders, from records where they have them. Raises InputError."""
    experiments = read_experiments(
        [root / folder for folder in spec.folders],
        spec.pool,
        spec.best_of,
        from_records=True,
        common=spec.common,
        by_name=spec.by_name,
    )
    unknown = next((key for key in spec.columns or () if key not in known_keys()), None)
    if unknown:
        raise InputError(f"tables.yaml: {spec.name}: column {unknown}: choose from {', '.join(known_keys())}")
    summaries = compare(experiments, spec.baseline or experiments[0].label)
    table = build(spec.kind, summaries, spec.columns)
    if table is None:
        raise InputError(f"tables.yaml: {spec.name}: a table of {spec.kind} needs {NEEDS[spec.kind]}")
    return table


if __name__ == "__main__":
    run(main)
