"""What a run folder says to a reader: eval.md and the rows of the closing table."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from utils.errors import counted, visible
from utils.metrics.base import BETTER_ORIENTATION, Described, row_name
from utils.metrics.registry import BESIDE_LOSS, SCORES, of_ones_own
from utils.records.aggregate import at_best, finite, spread
from utils.records.verdict import NOT_EXPLAINED, TO_THE_NOISE, TO_THE_PRIOR, WITHIN, remarks, verdicts

NOT_ITS = "–"
BEST_PLACE = "also moved to where it is nearest, since magnitudes do not tell where an object with dark margins lies"


def mean_and_spread(values: Iterable[float | None], digits: int) -> str:
    numbers = finite(values)
    if not numbers:
        return NOT_ITS
    return f"{statistics.fmean(numbers):.{digits}f}" + (f" ± {spread(numbers):.{digits}f}" if len(numbers) > 1 else "")


def summary_table(metrics: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows (name, best of N by the truth, mean over particles, label-free pick), as text; of what is known, or one's own."""
    picks, modes = metrics["selection"]["picked"], metrics["modes"]
    own_metrics = of_ones_own(metrics.get("metrics", {}))
    rows: list[tuple[str, ...]] = []

    def add(title: str, digits: int, *columns: Iterable[float | None]) -> None:
        cells = [mean_and_spread(values, digits) for values in columns]
        rows.append((title, *(cells if set(cells) != {NOT_ITS} else ["not available"] * 3)))

    for metric in (*SCORES, *(m for m in own_metrics if m.of == "image")):
        if row_name(metric) and metric.name in metrics:
            block = metrics[metric.name]
            add(row_name(metric), metric.digits, block[metric.direction], block["mean"], of_picks(block["sample"], picks))
    scores = metrics["psnr"]["sample"] if modes is None else modes["psnr_aligned"]
    if modes is not None:
        best = [max(finite(row), default=None) for row in scores]
        add("PSNR, better orientation", 2, best, means(scores), metrics["selection"]["psnr_aligned"])
    if metrics.get("summary") is not None:  # known without the truth, so in the column of the pick
        add("PSNR of the aligned mean", 2, (), (), metrics["summary"]["psnr"])
    measured: list[tuple[Described, list | None]]
    measured = [(metric, metrics["loss"].get(metric.beside_loss)) for metric in BESIDE_LOSS]
    measured += [(metric, metrics[metric.name]["sample"]) for metric in own_metrics if metric.of == "measurement"]
    for metric, sample in measured:
        if sample:  # the best is that by the truth
            best = [at_best(row, score) for row, score in zip(sample, scores)]
            add(row_name(metric), metric.digits, best, means(sample), of_picks(sample, picks))
    if of_noise := metrics["loss"].get("r_factor_noise"):
        add("R-factor of noise alone", 4, (), (), of_noise)
    asked = {row_name(metric) for metric in own_metrics}
    return [row for row in rows if row[0] in asked or "not available" not in row]


def headed_table(metrics: dict[str, Any]) -> list[tuple[str, ...]]:
    """The same with its heads."""
    heads = ("metric", f"best of {contenders(metrics)} (by the truth)", "mean over particles", "label-free pick")
    return [heads, *summary_table(metrics)]


def means(rows: list[list]) -> list[float | None]:
    """Mean over the particles of each image, None where none is known."""
    return [statistics.fmean(finite(row)) if finite(row) else None for row in rows]


def of_picks(rows: list[list], picks: list[int | None]) -> list:
    """The value of each image's label-free pick, None where there is none."""
    return [None if i is None else row[i] for row, i in zip(rows, picks)]


def loss_lines(metrics: dict[str, Any]) -> list[str]:
    """Markdown rows of the losses, image by image: all that a measurement without a truth says of its result."""
    loss, picks, metadata = metrics["loss"], metrics["selection"]["picked"], metrics["metadata"]
    names = [str(image) for image in metadata["image_ids"]]
    if files := metadata.get("files"):  # of measurements
        names = [f"{image} ({visible(file.replace('|', '&#124;'))})" for image, file in zip(names, files)]
    rows = zip(names, picks, of_picks(loss["sample"], picks), loss["noise_floor"])
    lines = [
        "| image | label-free pick | its loss | noise floor | loss / noise floor | verdict | of each particle |",
        "|---:|---:|---:|---:|---:|---|---|",
    ]
    for i, ((image, pick, value, floor), ratio) in enumerate(zip(rows, of_picks(loss["ratio"], picks))):
        shown = ("none", "–") if value is None else (f"p{pick}", f"{value:.5g}")
        lines.append(
            f"| {image} | {' | '.join(shown)} | {floor:.5g} | {'–' if ratio is None else f'{ratio:.3f}'} "
            f"| {verdict_of_pick(metrics, i) or '–'} | {ratios_of_particles(metrics, i)} |"
        )
    return lines


def population(metrics: dict[str, Any]) -> str:
    """How many particles an image has, in words, and to how many of its pixels it is resolved where that is not all."""
    metadata, rounds, resolved = metrics["metadata"], metrics.get("population"), metrics.get("resolved")
    note = f", {resolution(resolved)}" if resolved else ""
    if rounds is not None:
        return f"up to {metadata['num_samples']} particles, {rounds['mean_started']:.3g} on average{note}"
    newborn = metadata.get("num_children")
    return counted(metadata["num_samples"], "particle") + (f" and {newborn} born later" if newborn else "") + note


def seconds(metrics: dict[str, Any]) -> str:
    """What sampling took, in words: of images that processes sampled side by side the time passed is less than their sum."""
    return f"{metrics['time']['total_s']:.1f} s" + " added up over the images" * (metrics["metadata"]["num_images"] > 1)


def resolution(resolved: dict[str, int]) -> str:
    """Of pictures that were solved at fewer pixels than the object has."""
    return f"resolved to {resolved['pixels']} of {resolved['of']} pixels"


def certified(metrics: dict[str, Any]) -> str | None:
    """How a sequential population went, in one line; None of a fixed one."""
    block = metrics.get("population")
    if block is None:
        return None
    line = f"certificate: {sum(block['accepted'])} of {len(block['accepted'])} images pass"
    if block["rounds"][0][0].get("stopped") is not None:
        stopped = sum(len(part["stopped"]) for rounds in block["rounds"] for part in rounds)
        line += f", {stopped} of {sum(block['started'])} particles stopped early"
    if block["false_accepts"] is not None:
        line += (
            f"; by the truth the pick is wrong on {sum(finite(block['wrong']))} of these, "
            f"and {sum(finite(block['missed']))} of the others have a success"
        )
    return line


def contenders(metrics: dict[str, Any]) -> int:
    """Among how many particles of an image the best is chosen: those started, with newborn those at the end."""
    if metrics.get("population") is not None:
        return metrics["population"]["most_started"]
    if not metrics["metadata"].get("num_children"):
        return len(metrics["diverged"][0])
    return max(len(finite(row)) for row in metrics["loss"]["sample"])


def verdict_of_pick(metrics: dict[str, Any], image: int) -> str | None:
    """Whether the label-free pick of an image, given by its position, explains its measurement; None where not known."""
    picked = metrics["selection"]["picked"][image]
    return None if picked is None else verdicts(metrics, image)[picked]


def explained(metrics: dict[str, Any]) -> str | None:
    """On how many images the label-free pick explains its measurement, in one line; None where that is not known."""
    words = [word for i in range(metrics["metadata"]["num_images"]) if (word := verdict_of_pick(metrics, i))]
    if not words:
        return None
    within, drawn = sum(word in ("within", TO_THE_NOISE) for word in words), words.count(TO_THE_PRIOR)
    of_all = "ok" if within == len(words) else f"on {within or 'none'} of {counted(len(words), 'image')}"
    of_all += f", to what this prior can draw on {drawn}" if drawn else ""
    return f"the pick explains the measurement up to its noise: {of_all}"


def ratios_of_particles(metrics: dict[str, Any], image: int) -> str:
    """Loss / noise floor of each particle of an image; a star where it is above."""
    row = zip(metrics["loss"]["ratio"][image], verdicts(metrics, image))
    starred = ("above", NOT_EXPLAINED)
    return " ".join("–" if v is None else f"{v:.3f}{'*' * (verdict or '').startswith(starred)}" for v, verdict in row)


def aligned_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines in which cells of a column stand below each other."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def eval_markdown(metrics: dict[str, Any]) -> str:
    """eval.md: the table that DAPS writes, with the mean and the label-free pick beside the oracle's best."""
    meta, n = metrics["metadata"], metrics["metadata"]["num_images"]
    heads, *rows = headed_table(metrics)
    spreads = "; mean ± standard deviation over images" if n > 1 else ""
    lines = [
        f"# {meta['name']}",
        "",
        f"{counted(n, 'image')}, {population(metrics)}, seed {meta['seed']}{spreads}.",
        "",
        f"| {' | '.join(heads)} |",
        "|---|---|---|---|",
    ]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    if metrics["modes"] is not None:
        place = f" Place: {BEST_PLACE}." if any("place" in row[0] for row in rows) else ""
        lines += ["", f"Better orientation: {BETTER_ORIENTATION}; PSNR, SSIM and LPIPS alone: as found.{place}"]
        success, coverage = metrics["modes"]["success"], metrics["modes"]["coverage"]
        lines += [
            "",
            f"Success (a particle at 0 or 180 degrees): {sum(success)} of {counted(n, 'image')}. "
            f"Both orientations found: {sum(c == 2 for c in coverage)} of {n}.",
        ]
    if not any(finite(row) for row in metrics["psnr"]["sample"]):
        lines += ["", *loss_lines(metrics)]
    for line in filter(None, (explained(metrics), certified(metrics))):
        lines += ["", f"{line[0].upper()}{line[1:]}."]
    diverged = sum(sum(row) for row in metrics["diverged"])
    for remark in remarks(metrics):
        lines += ["", f"**{remark[0].upper()}{remark[1:]}.**"]
    lines += [
        "",
        f"Time: {seconds(metrics)}; diverged particles: {diverged}.",
        f"Label-free pick: {metrics['selection']['rule']}.",
        "Loss: sum of squared residuals of the measurement; noise floor: its expected value at the true image, so that a ratio "
        f"near 1 explains the measurement up to its noise: within, up to {WITHIN:g} standard deviations (sd) of the true "
        "image's loss above it; in a table of measurements a star marks a particle that lies higher.",
    ]
    if metrics["loss"].get("decoder_deviation"):
        lines.append(
            f"{TO_THE_PRIOR[0].upper()}{TO_THE_PRIOR[1:]}: above it by no more than the prior's decoder errs on images."
        )
    lines.append("")
    return "\n".join(lines)
