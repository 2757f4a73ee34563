"""Tables of compared experiments as Markdown, LaTeX, CSV and JSON.

A column names its number by the dotted key of utils.analysis.comparison.summarise; the shape of the value decides how it is
written: mean ± std, rate [interval], difference [interval], mean / median / quantile, a test with its p, or a plain number.
"""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from utils.analysis.columns import (
    ALIGNED_MEAN,
    COMPARISONS,
    DISTANCE,
    IN_PASSES,
    KINDS,
    MINUS,
    NOTES,
    PAIRED,
    PRIOR,
    Column,
    Table,
    known_keys,
    own_columns,
)
from utils.analysis.stats import FEW_IMAGES
from utils.errors import visible

Row = Mapping[str, Any]  # of numbers, nested: utils.analysis.comparison.summarise

MISSING = "–"

LEFT = ("experiment", "phase", "file", "family", "entry.setting", "where", "found", "answer")  # columns of words


def lookup(row: Any, key: str) -> Any:
    """The value at a dotted key; keys that hold dots themselves (paired.psnr.best) work too. None where absent."""
    while isinstance(row, dict):
        if key in row:
            return row[key]
        head, dot, key = key.partition(".")
        if not dot or head not in row:
            return None
        row = row[head]
    return None


def build(kind: str, summaries: Sequence[Row], columns: Sequence[str] | None = None) -> Table | None:
    """The Table of one kind, or None where it would be empty (see NEEDS); columns: keys instead of the kind's own."""
    (title, heads), note = KINDS[kind], NOTES.get(kind)
    own_notes: tuple[str, ...] = ()
    by_key = known_keys() | {column.key: column for column in heads}
    rows = summaries
    if kind == "phases":
        rows = [{**s, **numbers, "phase": name} for s in summaries for name, numbers in (s["phases"] or {}).items()]
    if kind == "metrics":
        rows = [s for s in summaries if s.get("metrics")]
        heads = [*heads, *own_columns(rows)]
    if kind == "tasks":
        rows = [s for s in summaries if s["trivial"]["psnr"]]
    if kind == "loss":
        rows = [s for s in summaries if s["loss"]["pick"]]
    if kind in PAIRED:
        rows = [s for s in summaries if s["paired"]]
        title, minus = (text.format(baseline=rows[0]["paired"]["baseline"] if rows else "") for text in (title, MINUS))
        own_notes = (minus,)
    if not rows:
        return None
    if columns is None:
        chosen = [c for c in heads if not c.optional or any(lookup(row, c.key) is not None for row in rows)]
    else:
        chosen = [by_key[key] for key in columns]
    values = [[few_images(lookup(row, column.key), row["images"]) for column in chosen] for row in rows]
    coarse = [f"{row['experiment']}: {row['resolved']}, and scaled up." for row in rows if row.get("resolved")]
    own_notes = tuple(dict.fromkeys(filter(None, (*own_notes, *coarse, comparisons(values)))))
    of_columns = (("pairwise_distance", DISTANCE), ("aligned_mean", ALIGNED_MEAN), ("in_passes", IN_PASSES))
    notes = [*own_notes, note, *(text for end, text in of_columns if any(column.key.endswith(end) for column in chosen))]
    return Table(title, chosen, values, tuple(filter(None, notes)), own_notes)


def few_images(value: Any, images: int) -> Any:
    """A cell less its interval where the images, those in common of a difference, are fewer than FEW_IMAGES."""
    if not (isinstance(value, dict) and "low" in value):
        return value
    of_images = value["n"] if "difference" in value else images
    return {**value, "low": None, "high": None} if of_images < FEW_IMAGES else value


def comparisons(values: Sequence[Sequence[object]]) -> str | None:
    """One line on how many intervals of differences and p-values the cells hold; None where there is none."""
    compared = [cell for row in values for cell in row if isinstance(cell, dict)]
    intervals = sum(cell.get("low") is not None for cell in compared if "difference" in cell)
    tests = sum("p" in cell for cell in compared)
    if not intervals + tests:
        return None
    named = " and ".join(f"{n} {name}" for n, name in ((intervals, "intervals of differences"), (tests, "p-values")) if n)
    return COMPARISONS.format(tests=named, bound=f"{0.05 / (intervals + tests):.2g}")


def build_prior(rows: Sequence[Row]) -> Table:
    """The Table of what tools/prior_quality.py wrote, a dict per prior with `file` added."""
    return Table("Priors", PRIOR, [[lookup(row, column.key) for column in PRIOR] for row in rows], (NOTES["prior"],))


def build_per_image(rows: Sequence[Row]) -> Table:
    """The Table of utils.analysis.comparison.per_image."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    heads = [Column(key, key, None, 3) for key in keys]
    return Table("Per image", heads, [[row.get(key) for key in keys] for row in rows])


def number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-0." + "0" * digits, "0." + "0" * digits) if digits else f"{value:.0f}"


def p_text(p: float) -> str:
    """Two significant digits; below 0.001 only that."""
    if p < 0.001:
        return "p < 0.001"
    return "p = 1" if p > 0.995 else f"p = {p:.2g}"


def parts(value: object, digits: int) -> tuple[str, str]:
    """(number that may be bold, rest) of one cell, as text."""
    if value is None:
        return MISSING, ""
    if isinstance(value, dict) and "mean" in value:
        spread = f" ± {number(value['std'], digits)}" if value["n"] > 1 else ""
        return number(value["mean"], digits), spread + (f" (n = {value['n']})" if value["missing"] else "")
    if isinstance(value, dict) and "rate" in value:
        share = f"{100 * value['rate']:.0f} %"
        if value["count"] is None:
            return share, f" [{100 * value['low']:.0f}, {100 * value['high']:.0f}]"
        count = f"{value['count']:.1f}".removesuffix(".0")
        if value["low"] is None:
            return f"{count} of {value['n']}", ""
        span = f"[{100 * value['low']:.0f}, {100 * value['high']:.0f}]"
        return share, f" ({count}/{value['n']}) {span}"
    if isinstance(value, dict) and "median" in value:
        return " / ".join(number(value[key], digits) for key in ("average", "median", "low5")), ""
    if isinstance(value, dict) and "p" in value:
        if "gained" in value:
            return f"{value['gained']} / {value['lost']}", f" ({p_text(value['p'])})"
        shift = number(value["shift"], digits)
        return f"+{shift}" if float(shift) > 0 else shift, f" ({p_text(value['p'])})"
    if isinstance(value, dict) and "difference" in value:
        span = "" if value["low"] is None else f" [{number(value['low'], digits)}, {number(value['high'], digits)}]"
        text = number(value["difference"], digits)
        return f"+{text}" if float(text) > 0 else text, span
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none", ""
    if isinstance(value, float):
        return number(value, digits), ""
    return str(value), ""


def main_value(value: object) -> float | None:
    """The number by which a cell is compared, None if it has none."""
    if isinstance(value, dict):
        value = next((value[key] for key in ("mean", "rate") if key in value), None)
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None


def bold_rows(column: Column, values: Sequence[object]) -> set[int]:
    """Row numbers of a column's best value, ties as written included; none where there is nothing to compare."""
    comparable = [(value, i) for i, v in enumerate(values) if (value := main_value(v)) is not None]
    if column.best is None or len(comparable) < 2:
        return set()
    best = (max if column.best == "max" else min)(v for v, _ in comparable)
    text = next(parts(values[i], column.digits)[0] for v, i in comparable if v == best)
    winners = {i for v, i in comparable if v == best or parts(values[i], column.digits)[0] == text}
    return winners if len(winners) < len(comparable) else set()


def cells(table: Table, bold: Callable[[str], str], escape: Callable[[str], str] = lambda text: text) -> list[list[str]]:
    """The rows as text; `bold(text)` wraps the best number of each column."""
    winners = [bold_rows(column, [row[c] for row in table.rows]) for c, column in enumerate(table.columns)]
    rendered: list[list[str]] = []
    for r, row in enumerate(table.rows):
        rendered.append([])
        for c, column in enumerate(table.columns):
            number, spread = (escape(visible(text)) for text in parts(row[c], column.digits))
            rendered[-1].append((bold(number) if r in winners[c] else number) + spread)
    return rendered


def markdown(table: Table, level: int = 3) -> str:
    """A title, the table, its notes; level 0: the table alone."""

    def escape(text: str) -> str:
        return text.replace("|", "\\|")

    lines = [f"{'#' * level} {visible(table.title)}", ""] if level else []
    lines += [
        "| " + " | ".join(escape(visible(c.head)) for c in table.columns) + " |",
        "|" + "|".join("---" if c.key in LEFT else "---:" for c in table.columns) + "|",
    ]
    lines += ["| " + " | ".join(row) + " |" for row in cells(table, lambda text: f"**{text}**", escape)]
    if level:
        lines += ["", *map(visible, table.notes)] if table.notes else []
    return "\n".join(lines) + "\n"


LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\to$",
    "–": "--",
    "°": r"$^\circ$",
    "<": "$<$",
    ">": "$>$",
}


def latex_escape(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in visible(text))


def latex(table: Table) -> str:
    """A table environment, scaled to the text width; needs the packages booktabs and graphicx."""
    alignment = "".join("l" if c.key in LEFT else "r" for c in table.columns)
    body = [" & ".join(row) + r" \\" for row in cells(table, lambda text: rf"\textbf{{{text}}}", latex_escape)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_escape(' '.join([table.title + '.', *table.notes]))}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{alignment}}}",
            r"\toprule",
            " & ".join(latex_escape(c.head) for c in table.columns) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


def flatten(value: object, prefix: str = "") -> dict[str, object]:
    """{dotted key: leaf} of a nested dict."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, inner in value.items() for k, v in flatten(inner, f"{prefix}.{key}" if prefix else str(key)).items()}


def _plain(value: object) -> object:
    """The cell of a CSV: a list is one text. What a spreadsheet would compute stands after the apostrophe that makes it a
    text there."""
    if isinstance(value, list):
        text = " ".join(map(str, value))
        return text if all(isinstance(each, (int, float)) for each in value) else _plain(text)
    if not isinstance(value, str):
        return value
    return f"'{visible(value)}" if value.startswith(("=", "+", "-", "@")) else visible(value)


def csv_text(rows: Sequence[Row]) -> str:
    """One wide CSV: a row per dict, a column per dotted key, numbers in full precision."""
    flattened = [{key: _plain(value) for key, value in flatten(row).items()} for row in rows]
    columns = list(dict.fromkeys(key for row in flattened for key in row))
    # where one row has no block at all, its key would stand beside the keys of the block
    columns = [key for key in columns if not any(other.startswith(key + ".") for other in columns)]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writerow({column: _plain(column) for column in columns})
    writer.writerows(flattened)
    return out.getvalue()
