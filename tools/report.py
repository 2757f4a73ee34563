"""One self-contained HTML page of finished runs: the answer, pictures and figures, and below them all tables and configs.

    python tools/report.py results --baseline results/exp0_baseline/demo_10 --out report.html

The page needs no network and opens from disk: pictures are inside it.
"""

import base64
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml
from markupsafe import Markup, escape
from PIL import Image

from utils.analysis.ancestry import ancestry
from utils.analysis.arguments import add_run_arguments, read_experiments
from utils.analysis.calibrated import spread_sentence
from utils.analysis.columns import FIRST, KINDS, Column, Table
from utils.analysis.comparison import compare
from utils.analysis.experiments import Experiment
from utils.analysis.overview import answer, differing, overview
from utils.analysis.runs import Run
from utils.analysis.tables import Row, build, cells
from utils.command_line import Parser, run, say, write_text
from utils.errors import InputError
from utils.figures import comparison as comparison_figures
from utils.figures.style import DPI, is_turned, measurement_picture

TEMPLATE, SCRIPT = (Path(__file__).with_name(name) for name in ("report.html.j2", "report.js"))
PARTS = ("tables", "pictures", "texts")  # of a section of the details
BROAD = ("mode_map", "pareto", "picks")  # figures as wide as the page
CAPTIONS = {
    "step_time": "Time per annealing step against t, mean over images; vertical lines: events.",
    "pairwise_distance": "Mean pairwise latent distance of an image's particles against t, mean over images.",
    "psnr_distribution": "PSNR of all particles per experiment, with quartiles.",
    "mode_map": "Which orientation each particle of each image found.",
    "pareto": "Quality and success against what an image costs; the dashed line joins what nothing beats for less.",
    "picks": "The same images solved by each experiment: its label-free pick, one that was found turned shown turned back.",
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
    """The HTML text: the answer, pictures and figures, and the details, which are closed at first."""
    rows = compare(experiments, baseline)
    measured = [e for e in experiments if not e.derived]
    heading, settings = differing(experiments, baseline)
    figures, grids = drawings(experiments, images)
    script = SCRIPT.read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["breakable"] = breakable
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        title=title,
        answer=answer(rows),
        overview=html_table(overview(rows)),
        rule=measured[0].runs[0].metrics.selection.rule,
        settings_heading=heading,
        settings=settings,
        gallery=gallery(measured, images),
        figures=figures,
        sections=[section for section in details(measured, rows, grids, images) if any(section[part] for part in PARTS)],
        script=Markup(script),  # our own file
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def breakable(label: object) -> Markup:
    """A name that may be folded after _ and /."""
    return Markup(escape(label).replace("_", Markup("_<wbr>")).replace("/", Markup("/<wbr>")))


def details(measured: Sequence[Experiment], rows: Sequence[Row], grids: list[dict], images: int) -> Iterator[dict[str, Any]]:
    """The closed sections: {id, title, tables, pictures, texts}."""

    def section(name: str, title: str, **parts: list) -> dict[str, Any]:
        return {"id": name, "title": title} | {part: parts.get(part, []) for part in PARTS}

    yield section("particles", "All particles", pictures=grids)
    yield section(
        "tables",
        "All tables",
        tables=[html_table(table) for kind in KINDS if (table := build(kind, rows)) and has_scores(table)],
    )
    exchanges = [table for e in measured for table in ancestry(e.runs[0], images)]
    yield section("origins", "Who came from whom", tables=[html_table(table) for table in exchanges])
    yield section("runs", "Runs", tables=[html_table(run_table([each for e in measured for each in e.runs]), "left")])
    configs = [(e.label, config) for e in measured if (config := e.runs[0].config)]
    texts = [{"title": label, "body": yaml.safe_dump(c, sort_keys=False, allow_unicode=True)} for label, c in configs]
    yield section("configs", "Configs", texts=texts)


def has_scores(table: Table) -> bool:
    """Whether it has more than names and numbers of images, as many tables of a measurement without a truth have not."""
    first = {column.key for column in FIRST}
    return any(v is not None for row in table.rows for c, v in zip(table.columns, row) if c.key not in first)


def html_table(table: Table, kind: str = "numbers sort") -> dict[str, Any]:
    """What the template needs of one table, without columns that no row has; cells are safe HTML."""
    filled = [i for i in range(len(table.columns)) if any(row[i] is not None for row in table.rows)]
    table = table._replace(columns=[table.columns[i] for i in filled], rows=[[row[i] for i in filled] for row in table.rows])
    rows = cells(table, lambda text: Markup("<b>{}</b>").format(text), escape)
    heads = [column.head for column in table.columns]
    return {"title": table.title, "heads": heads, "rows": rows, "notes": table.notes, "kind": kind}


def run_table(runs: Sequence[Run]) -> Table:
    """Where the runs lie, and what made them."""
    rows = []
    for each in runs:
        about = each.metrics.metadata
        machine = about.device
        device = getattr(machine, "name", machine.type)
        versions = ", ".join(f"{name} {version}" for name, version in about.versions.items())
        commit = (about.git_commit or "–")[:10]
        overrides = " ".join(about.overrides) or "–"
        rows.append([each.name, each.folder, about.num_images, about.seed, device, overrides, commit, versions])
    heads = ["run", "folder", "images", "seed", "device", "overrides", "commit", "versions"]
    return Table("Where they lie, and what made them", [Column(head, head) for head in heads], rows)


def gallery(measured: Sequence[Experiment], images: int) -> dict[str, Any]:
    """{heads, rows}: of the first images the truth, the measurement, and what each experiment gives who has no truth."""
    heads = ["truth", "measurement", *(e.label for e in measured)]
    rows: dict[tuple[str | None, int], list[dict[str, Any] | None]] = {}  # {(data, image): a picture for each head}
    for place, e in enumerate(measured, 2):
        first = e.runs[0]
        for record, arrays in first.records(images, wanted=("images", "truth", "y")):
            if "images" not in arrays:
                continue
            row = rows.setdefault((first.data, record["image_id"]), [None] * len(heads))
            if row[1] is None:
                row[0] = thumbnail(arrays["truth"], "truth") if "truth" in arrays else None
                row[1] = thumbnail(255 * measurement_picture(arrays["y"]), "measurement")
            if (position := record["selection"]["picked"]) is not None:
                row[place] = picked_picture(record, arrays, position, e.label)
    sets = {data for data, _ in rows}
    used = [place for place in range(len(heads)) if any(row[place] for row in rows.values())]
    named = [
        {"name": f"{Path(data or '').name} {image}" if len(sets) > 1 else image, "cells": [row[place] for place in used]}
        for (data, image), row in rows.items()
    ]
    return {"heads": ["image", *(heads[place] for place in used)], "rows": named}


def picked_picture(record: dict[str, Any], arrays: Mapping[str, Any], position: int, label: str) -> dict[str, Any]:
    """The thumbnail of the label-free pick, in the better orientation."""
    picture = arrays["images"][record["survivors"].index(record["particles"][position])]
    turned = is_turned(record, position)
    psnr, loss = record["selection"]["psnr_aligned" if record["modes"] else "psnr"], record["loss"][position]
    score = f"loss {loss:.4g}" if psnr is None else f"{psnr:.1f} dB"
    return thumbnail(np.rot90(picture, 2) if turned else picture, f"{label}: pick", f"{score} ⟲" if turned else score, turned)


def thumbnail(picture: np.ndarray, alt: str, text: str = "", turned: bool = False) -> dict[str, Any]:
    """picture: (H, W, 3) in [0, 255]; a small one without loss."""
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(picture).astype(np.uint8))
    image.save(buffer, "webp", lossless=max(image.size) <= 96, quality=85)
    return {"uri": data_uri(buffer.getvalue()), "alt": alt, "text": text, "turned": turned}


def drawings(experiments: Sequence[Experiment], images: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(figures, all particles of each run), each a list of {uri, caption, broad}; a run whose records hold no pictures shows
    its own grid instead."""
    captions, grids = dict(CAPTIONS), dict[str, Experiment]()
    for e in (e for e in experiments if not e.derived):
        name = comparison_figures.name_of("reconstructions", e)
        grids[name] = e
        recorded = e.runs[0].records(1, wanted=()) if e.runs[0].metrics.summary else []
        spread = f" {spread_sentence(e.runs[0].folder, recorded[0][0]['fingerprint'])}" if recorded else ""
        captions[name] = f"{e.label}: all particles, turned to the better orientation.{spread}"
        captions[comparison_figures.name_of("measured", e)] = f"{e.label}: {MEASURED}"
    drawn: dict[bool, list[dict[str, Any]]] = {True: [], False: []}  # whether it compares
    for name, figure in comparison_figures.every(experiments, images):
        buffer = io.BytesIO()
        of_lines = name in CAPTIONS and name != "picks"  # pictures of images may lose a little
        quality = {"lossless": True} if of_lines else {"quality": 80}
        figure.savefig(buffer, format="webp", dpi=DPI, bbox_inches="tight", pil_kwargs=quality)
        comparison_figures.plt.close(figure)
        picture = {"uri": data_uri(buffer.getvalue()), "caption": captions[name], "broad": name in BROAD}
        drawn[name in CAPTIONS].append(picture)
        grids.pop(name, None)
    for e in grids.values():
        grid = e.runs[0].folder / "grid_results.png"
        if grid.is_file():
            drawn[False].append({"uri": data_uri(grid.read_bytes(), "png"), "caption": f"{e.label}: results."})
    return drawn[True], drawn[False]


def data_uri(picture: bytes, kind: str = "webp") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


if __name__ == "__main__":
    run(main)
