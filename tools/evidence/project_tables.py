"""Compute every table of PROJECT.md anew from the records under evidence/.

    python tools/evidence/project_tables.py            # replaces the tables in PROJECT.md
    python tools/evidence/project_tables.py --check    # changes nothing; exit status 1 where a table is out of date

In PROJECT.md a table stands between `<!-- table: NAME -->` and `<!-- end -->`. evidence/tables.yaml says what is in it:

    - name: modes_faces                                  # the NAME
      folders: [evidence/exp0_faces, evidence/exp1_faces]  # run folders, from the folder of PROJECT.md
      kind: modes                                        # quality, perception, modes, tuning, failures, tasks, cost,
                                                         # phases, paired; prior: files of tools/prior_quality.py
      baseline: exp0_faces                               # costs and differences refer to it (default: the first)
      columns: [experiment, success, paired.success]     # instead of the kind's own columns
      common: true                                       # only the images that all of the runs hold
      pool: true                                         # one row for runs that differ only in the seed
      by_name: true                                      # one row for runs of one name, on several data sets
      best_of: 2                                         # rows of what 2 of a run's independent particles would give
"""

import json
import re
import sys
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from utils.analysis.arguments import read_experiments
from utils.analysis.columns import KINDS, NEEDS, known_keys
from utils.analysis.comparison import compare
from utils.analysis.tables import build, build_prior, markdown
from utils.command_line import Parser, run
from utils.errors import InputError
from utils.paths import PROJECT
from utils.records.files import write_atomically

START = re.compile(r"^<!-- table: (\S+) -->$", re.MULTILINE)
BLOCK = re.compile(r"^<!-- table: (\S+) -->\n((?:(?!<!-- table: ).*\n)*?)<!-- end -->$", re.MULTILINE)


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


def main():
    parser = Parser(prog="project_tables.py", description="Compute the tables of PROJECT.md from the records.")
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 where a table is out of date")
    parser.add_argument("--project", default=PROJECT / "PROJECT.md", type=Path, help="the document")
    parser.add_argument("--tables", default=PROJECT / "evidence" / "tables.yaml", type=Path, help="what its tables hold")
    args = parser.parse_args()
    old = read(args.project)
    new, changed = replace_tables(old, read_specs(args.tables), args.project)
    if not changed:
        print(f"{args.project}: all {len(START.findall(old))} tables are up to date")
    elif args.check:
        print(f"{args.project}: out of date: {', '.join(changed)}; run tools/evidence/project_tables.py", file=sys.stderr)
        sys.exit(1)
    else:
        write_atomically(args.project, lambda file: file.write(new.encode()))
        print(f"{args.project}: replaced {', '.join(changed)}")


def read(path):
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'})") from None


def read_specs(path):
    """{name: Spec} of tables.yaml. Raises InputError."""
    try:
        specs = TypeAdapter(list[Spec]).validate_python(yaml.safe_load(read(path)))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{path}: entry {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    twice = next((s.name for i, s in enumerate(specs) if s.name in [other.name for other in specs[:i]]), None)
    if twice:
        raise InputError(f"{path}: table {twice} stands there twice")
    return {spec.name: spec for spec in specs}


def replace_tables(text, specs, project):
    """(new text, names of the tables that changed). Raises InputError where markers and specs do not fit together."""
    opened, closed = START.findall(text), [name for name, _ in BLOCK.findall(text)]
    for name in opened:
        if name not in specs:
            raise InputError(f"{project}: table {name} is not described in tables.yaml")
        if opened.count(name) > 1:
            raise InputError(f"{project}: table {name} stands there twice")
        if name not in closed:
            raise InputError(f"{project}: table {name} has no closing line <!-- end -->")
    missing = next((name for name in specs if name not in opened), None)
    if missing:
        raise InputError(
            f"{project}: has no place for the table {missing}; add the lines <!-- table: {missing} --> and <!-- end -->"
        )
    changed = []

    def replaced(match):
        body = render(specs[match[1]], project.parent)
        if body != match[2]:
            changed.append(match[1])
        return f"<!-- table: {match[1]} -->\n{body}<!-- end -->"

    return BLOCK.sub(replaced, text), changed


def render(spec, root):
    """Markdown of one table with its notes."""
    table = prior_table(spec, root) if spec.kind == "prior" else run_table(spec, root)
    return "\n" + markdown(table, level=0) + "".join(f"\n{note}\n" for note in table.notes) + "\n"


def prior_table(spec, root):
    """The Table of files that tools/prior_quality.py wrote. Raises InputError."""
    rows = []
    for name in spec.folders:
        try:
            rows += [{"file": Path(name).stem, **row} for row in json.loads(read(root / name))]
        except (ValueError, TypeError) as error:
            raise InputError(f"{root / name}: not written by tools/prior_quality.py ({type(error).__name__})") from None
    return build_prior(rows)


def run_table(spec, root):
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
