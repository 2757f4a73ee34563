"""What a run folder says to a reader: eval.md and the rows of the closing table."""

import statistics
from collections.abc import Iterable
from typing import Any

from utils.records.aggregate import at_best, finite, spread
from utils.records.verdict import WITHIN, remarks, verdicts

LOSS = "loss / noise floor"
FREE = "free loss / its floor"
MEAN_IMAGE = "PSNR of the aligned mean"  # known without the truth, so in the column of the pick
NOT_ITS = "–"

# key in metrics.json, name, digits, which of an image's particles is the best
ROWS = (
    ("psnr", "PSNR", 2, "max"),
    ("ssim", "SSIM", 3, "max"),
    ("lpips", "LPIPS", 3, "min"),
    ("lpips_alex", "LPIPS (AlexNet)", 3, "min"),
)


def mean_and_spread(values: Iterable[float | None], digits: int) -> str:
    known = finite(values)
    if not known:
        return "not available"
    return f"{statistics.fmean(known):.{digits}f} ± {spread(known):.{digits}f}"


def summary_table(metrics: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows (name, best of N by the truth, mean over particles, label-free pick), as text."""
    rows, picks = [], metrics["selection"]["picked"]
    for key, name, digits, best in ROWS:
        if key not in metrics:  # an optional score
            continue
        block = metrics[key]
        values = (block[best], block["mean"], of_picks(block["sample"], picks))
        rows.append((name, *(mean_and_spread(v, digits) for v in values)))
    if metrics["modes"] is not None:
        aligned = metrics["modes"]["psnr_aligned"]
        rows.append(
            (
                "PSNR, better orientation",
                *(
                    mean_and_spread(v, 2)
                    for v in (
                        [max(finite(row), default=None) for row in aligned],
                        means(aligned),
                        metrics["selection"]["psnr_aligned"],
                    )
                ),
            )
        )
    if metrics.get("summary") is not None and finite(metrics["summary"]["psnr"]):
        rows.append((MEAN_IMAGE, NOT_ITS, NOT_ITS, mean_and_spread(metrics["summary"]["psnr"], 2)))
    ratios = metrics["loss"]["ratio"]
    scores = metrics["psnr"]["sample"] if metrics["modes"] is None else metrics["modes"]["psnr_aligned"]
    of_best = [at_best(row, score) for row, score in zip(ratios, scores)]
    rows.append((LOSS, *(mean_and_spread(v, 3) for v in (of_best, means(ratios), of_picks(ratios, picks)))))
    for title, block, key, digits in (
        (FREE, metrics.get("free"), "ratio", 3),
        ("R-factor", metrics["loss"], "r_factor", 4),
        ("R-factor, free", metrics.get("free"), "r_factor", 4),
    ):
        if block is not None and block.get(key):
            found = (
                [at_best(row, score) for row, score in zip(block[key], scores)],
                means(block[key]),
                of_picks(block[key], picks),
            )
            rows.append((title, *(mean_and_spread(v, digits) for v in found)))
    return rows


def means(rows: list[list]) -> list[float | None]:
    """Mean over the particles of each image, None where none is known."""
    return [statistics.fmean(finite(row)) if finite(row) else None for row in rows]


def of_picks(rows: list[list], picks: list[int | None]) -> list:
    """The value of each image's label-free pick, None where there is none."""
    return [None if i is None else row[i] for row, i in zip(rows, picks)]


def loss_lines(metrics: dict[str, Any]) -> list[str]:
    """Markdown rows of the losses, image by image: all that a measurement without a truth says of its result."""
    loss, picks = metrics["loss"], metrics["selection"]["picked"]
    found = zip(metrics["metadata"]["image_ids"], picks, of_picks(loss["sample"], picks), loss["noise_floor"])
    lines = [
        "| image | label-free pick | its loss | noise floor | loss / noise floor | verdict | of each particle |",
        "|---:|---:|---:|---:|---:|---|---|",
    ]
    for i, ((image, pick, value, floor), ratio) in enumerate(zip(found, of_picks(loss["ratio"], picks))):
        shown = ("none", "–") if value is None else (f"p{pick}", f"{value:.5g}")
        lines.append(
            f"| {image} | {' | '.join(shown)} | {floor:.5g} | {'–' if ratio is None else f'{ratio:.3f}'} "
            f"| {verdict_of_pick(metrics, i) or '–'} | {ratios_of_particles(metrics, i)} |"
        )
    return lines


def population(metrics: dict[str, Any]) -> str:
    """How many particles an image has, in words."""
    metadata, rounds = metrics["metadata"], metrics.get("population")
    if rounds is not None:
        return f"up to {metadata['num_samples']} particles, {rounds['mean_started']:.3g} on average"
    children = metadata.get("num_children")
    return f"{metadata['num_samples']} particles" + (f" and {children} children" if children else "")


def certified(metrics: dict[str, Any]) -> str | None:
    """How a sequential population went, in one line; None of a fixed one."""
    found = metrics.get("population")
    if found is None:
        return None
    line = f"certificate: {sum(found['accepted'])} of {len(found['accepted'])} images pass"
    if found["rounds"][0][0].get("stopped") is not None:
        stopped = sum(len(part["stopped"]) for rounds in found["rounds"] for part in rounds)
        line += f", {stopped} of {sum(found['started'])} particles stopped early"
    if found["false_accepts"] is not None:
        line += (
            f"; by the truth the pick is wrong on {sum(finite(found['wrong']))} of these, "
            f"and {sum(finite(found['missed']))} of the others have a success"
        )
    return line


def contenders(metrics: dict[str, Any]) -> int:
    """Among how many particles of an image the best is chosen: those started, with children those at the end."""
    if metrics.get("population") is not None:
        return metrics["population"]["most_started"]
    if not metrics["metadata"].get("num_children"):
        return len(metrics["diverged"][0])
    return max(len(finite(row)) for row in metrics["loss"]["sample"])


def verdict_of_pick(metrics: dict[str, Any], image: int) -> str | None:
    """Whether the label-free pick of an image, given by its position, explains its measurement; None where not known."""
    picked = metrics["selection"]["picked"][image]
    return None if picked is None else verdicts(metrics, image)[picked]


def ratios_of_particles(metrics: dict[str, Any], image: int) -> str:
    """Loss / noise floor of each particle of an image; a star where it is above."""
    row = zip(metrics["loss"]["ratio"][image], verdicts(metrics, image))
    return " ".join("–" if v is None else f"{v:.3f}{'*' * (found or '').startswith('above')}" for v, found in row)


def eval_markdown(metrics: dict[str, Any]) -> str:
    """eval.md: the table that DAPS writes, with the mean and the label-free pick beside the oracle's best."""
    meta, n, best_of = metrics["metadata"], metrics["metadata"]["num_images"], contenders(metrics)
    lines = [
        f"# {meta['name']}",
        "",
        f"{n} images, {population(metrics)}, seed {meta['seed']}; mean ± standard deviation over images.",
        "",
        f"| metric | best of {best_of} (by the truth) | mean over particles | label-free pick |",
        "|---|---|---|---|",
    ]
    lines += ["| " + " | ".join(row) + " |" for row in summary_table(metrics)]
    if metrics["modes"] is not None:
        success, coverage = metrics["modes"]["success"], metrics["modes"]["coverage"]
        lines += [
            "",
            f"Success (a particle at 0 or 180 degrees): {sum(success)} of {n} images. "
            f"Both orientations found: {sum(c == 2 for c in coverage)} of {n}.",
        ]
    if not any(finite(row) for row in metrics["psnr"]["sample"]):
        lines += ["", *loss_lines(metrics)]
    if passed := certified(metrics):
        lines += ["", f"{passed[0].upper()}{passed[1:]}."]
    diverged = sum(sum(row) for row in metrics["diverged"])
    for remark in remarks(metrics):
        lines += ["", f"**{remark[0].upper()}{remark[1:]}.**"]
    lines += [
        "",
        f"{metrics['time']['total_s']:.1f} s in all; diverged particles: {diverged}.",
        f"Label-free pick: {metrics['selection']['rule']}.",
        "Loss: sum of squared residuals of the measurement; noise floor: its expected value at the true image, so that a ratio "
        f"near 1 explains the measurement up to its noise: within, up to {WITHIN:g} standard deviations (sd) of the true "
        "image's loss above it; a star: above.",
        "",
    ]
    return "\n".join(lines)
