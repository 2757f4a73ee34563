"""Tables of compared experiments as Markdown, LaTeX, CSV and JSON.

A column names its number by the dotted key of utils.comparison.summarise; the shape of the value decides how it is
written: mean ± std, rate [interval], difference [interval], or a plain number.
"""
import csv
import io
import math
from typing import NamedTuple

from utils.results import to_json
from utils.stats import FEW

MISSING = "–"
LEFT = ("experiment", "phase", "file", "family")  # columns of words


class Column(NamedTuple):
    key: str
    head: str
    best: str | None = None    # max | min: the best value of the column is set in bold
    digits: int = 2


class Table(NamedTuple):
    title: str
    columns: list
    rows: list                 # one list of values per row, as long as columns
    notes: tuple = ()


PICK = Column("pick_psnr", "label-free pick PSNR (dB)", "max")
FAILED = Column("failed", "single particles failed", "min")
FIRST = [Column("experiment", "experiment"), Column("images", "images"), Column("particles", "particles")]
KINDS = {
    "quality": ("PSNR in dB", FIRST + [
        Column("psnr.best", "as is: best", "max"), Column("psnr.mean", "as is: mean", "max"),
        Column("psnr.pick", "as is: pick", "max"), Column("psnr_aligned.best", "better orientation: best", "max"),
        Column("psnr_aligned.mean", "better orientation: mean", "max"),
        Column("psnr_aligned.spread", "std over particles"),
        Column("psnr_aligned.pick", "better orientation: pick", "max")]),
    "perception": ("SSIM and LPIPS as is", FIRST + [
        Column("ssim.best", "SSIM best", "max", 3), Column("ssim.mean", "SSIM mean", "max", 3),
        Column("ssim.pick", "SSIM pick", "max", 3),
        Column("lpips.best", "LPIPS best", "min", 3), Column("lpips.mean", "LPIPS mean", "min", 3),
        Column("lpips.pick", "LPIPS pick", "min", 3), PICK]),
    "modes": ("Success and modes", FIRST + [
        Column("success", "success rate", "max"), FAILED, Column("both_modes", "both orientations", "max"),
        Column("coverage", "orientations found", "max"), Column("pairwise_distance", "pairwise distance, end of phase 1"),
        Column("success_pick", "success of the label-free pick", "max"), PICK]),
    "tuning": ("Settings", FIRST + [
        Column("cost.passes_per_particle", "decoder passes per particle", "min", 0), FAILED,
        Column("success", "success rate", "max"), Column("psnr_aligned.best", "best PSNR, better orientation (dB)", "max"),
        Column("psnr_aligned.mean", "mean PSNR, better orientation (dB)", "max"),
        Column("psnr_aligned.spread", "std over particles (dB)"), Column("both_modes", "both orientations", "max"), PICK]),
    "failures": ("Images in which no particle succeeded", FIRST + [
        Column("failures.count", "images without success", "min", 1), Column("failures.ids", "their ids"),
        Column("success_pick", "success of the label-free pick", "max")]),
    "tasks": ("PSNR in dB against the best trivial reconstruction", FIRST + [
        Column("trivial.name", "trivial reconstruction"), Column("trivial.psnr", "trivial"), Column("psnr.mean", "mean"),
        Column("psnr.best", "best"), Column("pick_psnr", "label-free pick"), Column("trivial.gain", "gain of the mean")]),
    "cost": ("Cost per image", FIRST + [
        Column("cost.seconds", "seconds", "min"), Column("cost.peak_mb", "peak memory (MB)", "min", 1),
        Column("cost.passes", "decoder passes", "min", 0), Column("cost.optimization_calls", "optimisation calls", None, 1),
        Column("cost.optimization_iterations", "iterations", None, 1),
        Column("cost.time_x_memory_mb_s", "time × memory (MB s)", "min", 1),
        Column("cost.relative_time", "time / baseline", "min"), Column("cost.relative_passes", "passes / baseline", "min"),
        Column("cost.relative_time_x_memory", "time × memory / baseline", "min"), PICK]),
    "phases": ("Phases, per image", [
        FIRST[0], Column("phase", "phase"), Column("seconds", "seconds"), Column("peak_mb", "peak memory (MB)", None, 1),
        Column("steps", "steps", None, 0), Column("decoder_forward_backward", "passes per particle", None, 1),
        Column("denoiser_calls", "denoiser calls per particle", None, 1), PICK]),
    "paired": ("Paired differences to {baseline}, 95 % intervals", [
        FIRST[0], Column("paired.images", "common images"),
        Column("paired.psnr.best", "PSNR as is: best (dB)"), Column("paired.psnr_aligned.best", "PSNR: best (dB)"),
        Column("paired.psnr_aligned.mean", "PSNR: mean (dB)"), Column("paired.pick_psnr", "PSNR: label-free pick (dB)"),
        Column("paired.failed", "single particles failed", None, 3), Column("paired.success", "success rate", None, 3),
        Column("paired.success_pick", "success of the pick", None, 3),
        Column("paired.both_modes", "both orientations", None, 3), Column("paired.pairwise_distance", "pairwise distance")]),
}
NEEDS = {"paired": "more than one run", "phases": "a measured run", "tasks": "trivial.json of the runs, by "
         "tools/trivial_reconstruction.py"}  # what a table cannot be made without
PRIOR = [
    Column("file", "measured in"), Column("family", "family"), Column("samples", "samples"),
    Column("distance", "distance of samples"), Column("floor", "floor: images to images"),
    Column("ratio", "ratio"), Column("layout.ratio", "ratio, layout alone"), Column("detail.ratio", "ratio, detail alone"),
    Column("psnr_upright.mean", "autoencoder, upright: mean (dB)"),
    Column("psnr_upright.min", "minimum"), Column("psnr_rotated.mean", "rotated: mean (dB)"),
    Column("psnr_rotated.min", "minimum"), Column("decoder_ms", "decoder forward + backward (ms a latent)")]
RATES = "Success: a particle labelled 0 or 180. Rates with 95 % Wilson intervals, n = number of images."
FAILURES = ("Single particles: n = number of surviving particles, diverged ones count as failed; 95 % intervals by a "
            f"bootstrap over images (Wilson over images where all agree or are fewer than {FEW}).")
DISTANCE = "Pairwise distance: of the latents, in all rows at the t where the first phase 1 ends."
NOTES = {
    "quality": "Mean ± standard deviation over images. As is: in the orientation as found, the official row; best: "
               "per image by the truth; mean: over particles; pick: the particle chosen without the truth, by the lowest "
               "measurement loss.",
    "perception": "Mean ± standard deviation over images, in the orientation as found (the official row).",
    "modes": f"{RATES} {FAILURES}",
    "tuning": f"Mean ± standard deviation over images. {RATES} {FAILURES}",
    "failures": "Success: a particle labelled 0 or 180. Where several seeds are pooled their mean number, and the seeds in "
                "brackets; of a subset of the particles the expected number, and the images that fail with some subset.",
    "tasks": "Mean ± standard deviation over images; mean and best are over an image's particles. Gain: paired on the images, "
             "95 % interval by a bootstrap over images.",
    "prior": "Frechet distance of latent statistics (tools/prior_quality.py): unconditional samples to test images, and as a "
             "floor test images to as many others; ± standard deviation over divisions of the images. Ratio: distance / "
             "floor; layout: the pooled values, detail: the energies of the fine structure. Compare rows of one family and "
             "number of samples. Autoencoder: the shipped test images. Decoder time: the fastest of 30 passes of 4 latents.",
    "paired": "Experiment minus {baseline} on the common images and seeds. 95 % intervals: PSNR, distances and failed "
              f"particles by a bootstrap over images (Student's t below {FEW} images), other rates from Wilson intervals of "
              "the discordant images. PSNR in the better orientation where not said otherwise.",
}


def lookup(row, key):
    """The value at a dotted key; keys that hold dots themselves (paired.psnr.best) work too. None where absent."""
    while isinstance(row, dict):
        if key in row:
            return row[key]
        head, dot, key = key.partition(".")
        if not dot or head not in row:
            return None
        row = row[head]
    return None


def known_keys():
    """All keys that a column list may name, besides those of the phases."""
    return {column.key: column for kind, (_, columns) in KINDS.items() if kind != "phases" for column in columns}


def build(kind, summaries, columns=None):
    """The Table of one kind, or None where it would be empty (see NEEDS); columns: keys instead of the kind's own."""
    (title, own), note = KINDS[kind], NOTES.get(kind)
    known = known_keys() | {column.key: column for column in own}
    chosen = own if columns is None else [known[key] for key in columns]
    rows = summaries
    if kind == "phases":
        rows = [{**s, **numbers, "phase": name} for s in summaries for name, numbers in (s["phases"] or {}).items()]
    if kind == "tasks":
        rows = [s for s in summaries if s["trivial"]["psnr"]]
    if kind == "paired":
        rows = [s for s in summaries if s["paired"]]
        title, note = (text.format(baseline=rows[0]["paired"]["baseline"] if rows else "") for text in (title, note))
    if not rows:
        return None
    notes = [note, DISTANCE if any(column.key.endswith("pairwise_distance") for column in chosen) else None]
    return Table(title, chosen, [[lookup(row, column.key) for column in chosen] for row in rows], tuple(filter(None, notes)))


def build_prior(rows):
    """The Table of what tools/prior_quality.py wrote, a dict per prior with `file` added."""
    return Table("Priors", PRIOR, [[lookup(row, column.key) for column in PRIOR] for row in rows], (NOTES["prior"],))


def build_per_image(rows):
    """The Table of utils.comparison.per_image."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    heads = [Column(key, key, None, 3) for key in keys]
    return Table("Per image", heads, [[row.get(key) for key in keys] for row in rows])


def number(value, digits):
    return f"{value:.{digits}f}".replace("-0." + "0" * digits, "0." + "0" * digits) if digits else f"{value:.0f}"


def parts(value, digits):
    """(number that may be bold, rest) of one cell, as text."""
    if value is None:
        return MISSING, ""
    if isinstance(value, dict) and "mean" in value:
        spread = f" ± {number(value['std'], digits)}" if value["n"] > 1 else ""
        return number(value["mean"], digits), spread + (f" (n = {value['n']})" if value["missing"] else "")
    if isinstance(value, dict) and "rate" in value:
        count = f"{value['count']:.1f}".removesuffix(".0")
        span = f"[{100 * value['low']:.0f}, {100 * value['high']:.0f}]"
        return f"{100 * value['rate']:.0f} %", f" ({count}/{value['n']}) {span}"
    if isinstance(value, dict) and "difference" in value:
        span = "" if value["low"] is None else f" [{number(value['low'], digits)}, {number(value['high'], digits)}]"
        text = number(value["difference"], digits)
        return f"+{text}" if float(text) > 0 else text, span
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none", ""
    if isinstance(value, float):
        return number(value, digits), ""
    return str(value), ""


def main_value(value):
    """The number by which a cell is compared, None if it has none."""
    if isinstance(value, dict):
        value = next((value[key] for key in ("mean", "rate") if key in value), None)
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None


def bold_rows(column, values):
    """Row numbers of a column's best value, ties as written included; none where there is nothing to compare."""
    known = [(main_value(v), i) for i, v in enumerate(values) if main_value(v) is not None]
    if column.best is None or len(known) < 2:
        return set()
    best = (max if column.best == "max" else min)(v for v, _ in known)
    text = next(parts(values[i], column.digits)[0] for v, i in known if v == best)
    winners = {i for _, i in known if parts(values[i], column.digits)[0] == text}
    return winners if len(winners) < len(known) else set()


def cells(table, bold, escape=lambda text: text):
    """The rows as text; `bold(text)` wraps the best number of each column."""
    winners = [bold_rows(column, [row[c] for row in table.rows]) for c, column in enumerate(table.columns)]
    rendered = []
    for r, row in enumerate(table.rows):
        rendered.append([])
        for c, column in enumerate(table.columns):
            first, rest = (escape(text) for text in parts(row[c], column.digits))
            rendered[-1].append((bold(first) if r in winners[c] else first) + rest)
    return rendered


def markdown(table, level=3):
    """A title, the table, its notes; level 0: the table alone."""
    def escape(text):
        return text.replace("|", "\\|")

    lines = [f"{'#' * level} {table.title}", ""] if level else []
    lines += ["| " + " | ".join(escape(c.head) for c in table.columns) + " |",
              "|" + "|".join("---" if c.key in LEFT else "---:" for c in table.columns) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in cells(table, lambda text: f"**{text}**", escape)]
    if level:
        lines += ["", *table.notes] if table.notes else []
    return "\n".join(lines) + "\n"


LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
         "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "×": r"$\times$", "→": r"$\to$", "–": "--",
         "°": r"$^\circ$", "<": "$<$", ">": "$>$"}


def latex_escape(text):
    return "".join(LATEX.get(character, character) for character in text)


def latex(table):
    """A table environment, scaled to the text width; needs the packages booktabs and graphicx."""
    alignment = "".join("l" if c.key in LEFT else "r" for c in table.columns)
    body = [" & ".join(row) + r" \\" for row in cells(table, lambda text: rf"\textbf{{{text}}}", latex_escape)]
    return "\n".join([
        r"\begin{table}", r"\centering", rf"\caption{{{latex_escape(' '.join([table.title + '.', *table.notes]))}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%", rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule", " & ".join(latex_escape(c.head) for c in table.columns) + r" \\", r"\midrule", *body, r"\bottomrule",
        r"\end{tabular}}", r"\end{table}", ""])


def flat(value, prefix=""):
    """{dotted key: plain value} of a nested dict; lists become one text, None an empty cell."""
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in flat(inner, f"{prefix}.{key}" if prefix else key).items()}
    return {prefix: " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else value}


def csv_text(rows):
    """One wide CSV: a row per dict, a column per dotted key, numbers in full precision."""
    flattened = [flat(row) for row in rows]
    columns = list(dict.fromkeys(key for row in flattened for key in row))
    # where one row has no block at all, its key would stand beside the keys of the block
    columns = [key for key in columns if not any(other.startswith(key + ".") for other in columns)]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flattened)
    return out.getvalue()


def json_text(rows):
    return to_json(rows).decode() + "\n"
