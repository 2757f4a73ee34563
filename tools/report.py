"""One self-contained HTML page of finished runs: tables, figures, pictures, merged configs and their differences.

    python tools/report.py results --baseline results/exp0_baseline/demo_10 --out report.html

The page needs no network and opens from disk: pictures are inside it.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup, escape

from utils.analysis.ancestry import ancestry
from utils.analysis.arguments import add_run_arguments, read_experiments
from utils.analysis.calibrated import spread_sentence
from utils.analysis.columns import FIRST, KINDS, Table
from utils.analysis.comparison import compare
from utils.analysis.experiments import Experiment
from utils.analysis.runs import Run
from utils.analysis.tables import build, cells
from utils.command_line import Parser, run, say, write_text
from utils.errors import InputError
from utils.figures import comparison as comparison_figures

TEMPLATE = Path(__file__).with_name("report.html.j2")
PLACES = ("name", "save_dir", "shard", "gpu", "resume")  # of a config: where a run lies, not what it is
CAPTIONS = {
    "step_time": "Time per annealing step, mean over images; vertical lines: events.",
    "pairwise_distance": "Mean pairwise latent distance of an image's particles per annealing step, mean over images.",
    "psnr_distribution": "PSNR of all particles per experiment, with quartiles.",
    "mode_map": "Which orientation each particle of each image found.",
    "quality_cost": "Quality against time × peak memory per image.",
    "pareto": "Quality and success against decoder passes per image; the dashed line joins what nothing beats for less.",
    "prtf": "Phase retrieval transfer function of the particles that agree with the label-free pick, per frequency shell, mean "
    "over images; above 1/e a detail counts as resolved. It says how far the particles agree, not how far they are right.",
}

MEASURED = (
    "what was measured and what the label-free pick would give, over all channels (root mean square), on one scale; "
    "grey: not measured. R: sum of absolute differences over that of the measured values. Then the pick, the mean of the "
    "particles that agree with it and their spread, and the picks of other runs for the same file."
)


def main() -> None:
    parser = Parser(prog="report.py", description="Write one HTML page of finished runs.")
    add_run_arguments(parser)
    parser.add_argument("--out", metavar="FILE", default="report.html")
    parser.add_argument("--title", default="LatentDAPS with particles")
    parser.add_argument("--images", type=int, default=4, help="images per run in the pictures")
    args = parser.parse_args()
    if args.images < 1:
        raise InputError(f"images={args.images}: must be at least 1")
    experiments = read_experiments(args.results, args.pool, args.best_of, args.from_records, args.common, args.by_name)
    write_text(page(experiments, args.baseline or experiments[0].label, args.title, args.images), args.out)
    say(args.out)


def page(experiments: Sequence[Experiment], baseline: str, title: str, images: int) -> str:
    """The HTML text."""
    summaries = compare(experiments, baseline)
    measured = [e for e in experiments if not e.derived]
    figures, pictures = drawings(experiments, images)
    configured = [
        {
            "label": e.label,
            "config": e.runs[0].config,
            "yaml": yaml.safe_dump(e.runs[0].config, sort_keys=False, allow_unicode=True),
        }
        for e in measured
        if e.runs[0].config
    ]
    exchanges = [table for e in measured for table in ancestry(e.runs[0], images)]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        title=title,
        runs=[r for e in measured for r in e.runs],
        tables=[
            html_table(table) for table in (*(build(kind, summaries) for kind in KINDS), *exchanges) if table and says(table)
        ],
        rule=measured[0].runs[0].metrics.selection.rule,
        figures=figures,
        pictures=pictures,
        configured=configured,
        differences=config_differences([c["config"] for c in configured]),
    )


def says(table: Table) -> bool:
    """Whether it has more than names and numbers of images, as many tables of a measurement without a truth have not."""
    first = {column.key for column in FIRST}
    return any(v is not None for row in table.rows for c, v in zip(table.columns, row) if c.key not in first)


def html_table(table: Table) -> dict[str, Any]:
    """What the template needs of one table, without columns that no row has; cells are safe HTML."""
    filled = [i for i in range(len(table.columns)) if any(row[i] is not None for row in table.rows)]
    table = table._replace(columns=[table.columns[i] for i in filled], rows=[[row[i] for i in filled] for row in table.rows])
    rows = cells(table, lambda text: Markup("<b>{}</b>").format(text), escape)
    return {"title": table.title, "heads": [column.head for column in table.columns], "rows": rows, "notes": table.notes}


def drawings(experiments: Sequence[Experiment], images: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """(figures, pictures), each a list of {uri, caption}; a run whose records hold no pictures shows its grid instead."""
    figures, pictures, drawn = [], [], set()
    measured = {comparison_figures.measured_name(e): e.label for e in experiments if not e.derived}
    spreads = {comparison_figures.summary_name(e): e for e in experiments if not e.derived}
    for name, figure in comparison_figures.every(experiments, images):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
        comparison_figures.plt.close(figure)
        if name in CAPTIONS:
            figures.append({"uri": data_uri(buffer.getvalue()), "caption": CAPTIONS[name]})
        elif name in measured:
            pictures.append({"uri": data_uri(buffer.getvalue()), "caption": f"{measured[name]}: {MEASURED}"})
        elif name in spreads:
            caption = (
                f"{spreads[name].label}: the label-free pick, the mean of the particles that agree with it, and their spread."
            )
            pictures.append({"uri": data_uri(buffer.getvalue()), "caption": f"{caption} {sentence(spreads[name].runs[0])}"})
        else:
            drawn.add(name)
            label = name.removeprefix("reconstructions_")
            pictures.append(
                {"uri": data_uri(buffer.getvalue()), "caption": f"{label}: as found, and in the better orientation."}
            )
    for e in experiments:
        grid = e.runs[0].folder / "grid_results.png"
        if not e.derived and comparison_figures.picture_name(e) not in drawn and grid.is_file():
            pictures.append({"uri": data_uri(grid.read_bytes()), "caption": f"{e.label}: results."})
    return figures, pictures


def sentence(run: Run) -> str:
    """What may be said of the spread of a run that has records."""
    return spread_sentence(run.folder, run.records(1)[0][0]["fingerprint"])


def data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def config_differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """{dotted key: [value per config]} of the keys in which they differ, less where a run lies."""
    flattened = [flatten(config) for config in configs]
    keys = list(dict.fromkeys(key for config in flattened for key in config if key not in PLACES))
    rows = {key: [str(config.get(key, "–")) for config in flattened] for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def flatten(value: object, prefix: str = "") -> dict[str, object]:
    """{dotted key: leaf} of a nested dict."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, inner in value.items() for k, v in flatten(inner, f"{prefix}.{key}" if prefix else str(key)).items()}


if __name__ == "__main__":
    run(main)
