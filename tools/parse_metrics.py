"""Compare finished runs: the tables of a paper, from their metrics.json.

    python tools/parse_metrics.py results                                            # one table that fits a terminal
    python tools/parse_metrics.py results --full --baseline results/exp0_baseline/demo_10
    python tools/parse_metrics.py results/exp0_baseline results/exp3_2particle --tables quality,modes,paired
    python tools/parse_metrics.py results --format latex --out tables.tex --figures figures

Formats: md and latex (tables; best value of a column in bold), csv (one wide table) and json (everything, nested).
"""

import argparse
import sys
from collections.abc import Sequence

from utils.analysis.arguments import add_run_arguments, read_experiments
from utils.analysis.columns import KINDS, NEEDS
from utils.analysis.comparison import compare, per_image
from utils.analysis.experiments import Experiment, find_label
from utils.analysis.overview import differing, overview, terminal
from utils.analysis.tables import build, build_per_image, csv_text, latex, markdown
from utils.command_line import Parser, run, write_text
from utils.errors import InputError, visible
from utils.records.files import to_json

MORE = "pick: without the truth, by the lowest loss; best: by the truth; costs of an image. More: --full"


def arguments() -> argparse.Namespace:
    parser = Parser(prog="parse_metrics.py", description="Compare finished runs.")
    add_run_arguments(parser)
    parser.add_argument("--format", choices=("md", "csv", "latex", "json"), help="of all tables")
    parser.add_argument("--full", action="store_true", help="all tables in Markdown; default: one that fits the terminal")
    parser.add_argument("--tables", help=f"of {', '.join(KINDS)} (md and latex)")
    parser.add_argument("--per-image", action="store_true", help="one row per image instead of per experiment")
    parser.add_argument("--out", metavar="FILE", help="write to a file instead of the terminal")
    parser.add_argument("--figures", metavar="FOLDER", help="also draw the comparison figures there, PNG and PDF")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    kinds = (args.tables or ",".join(KINDS)).split(",")
    unknown = next((kind for kind in kinds if kind not in KINDS), None)
    if unknown is not None:
        raise InputError(f"tables={unknown}: choose from {', '.join(KINDS)}")
    if args.tables and (args.per_image or args.format in ("csv", "json")):
        way = "--per-image" if args.per_image else f"--format {args.format}"
        raise InputError(f"tables={args.tables}: {way} has all values; leave one of the two out")
    experiments = read_experiments(args.results, args.pool, args.best_of, args.from_records, args.common, args.by_name)
    write_text(text(experiments, args, kinds), args.out)
    if args.figures:
        from utils.figures import comparison as comparison_figures

        for path in comparison_figures.draw_all(experiments, args.figures):
            print(visible(str(path)), file=sys.stderr)


def text(experiments: Sequence[Experiment], args: argparse.Namespace, kinds: Sequence[str]) -> str:
    """The output in the chosen format."""
    baseline = args.baseline or experiments[0].label
    find_label(experiments, baseline)
    if not (args.full or args.format or args.tables or args.per_image or args.out):
        heading, settings = differing(experiments, baseline)
        return f"{terminal(overview(compare(experiments, baseline)), settings, heading)}\n{MORE}\n"
    if args.per_image:
        rows = per_image(experiments)
        tables = [build_per_image(rows)]
    else:
        rows = compare(experiments, baseline)
        tables = [table for table in (build(kind, rows) for kind in kinds) if table]
        if not tables:
            raise InputError(f"tables={','.join(kinds)}: needs {'; '.join(NEEDS[kind] for kind in kinds)}")
    form = args.format or "md"
    if form == "csv":
        return csv_text(rows)
    if form == "json":
        return to_json(rows).decode() + "\n"
    written = markdown if form == "md" else latex
    return "\n".join(written(table) for table in tables)


if __name__ == "__main__":
    run(main)
