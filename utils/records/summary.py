"""What a run folder says to a reader: eval.md and the rows of the closing table."""

import statistics
from collections.abc import Iterable
from typing import Any

from utils.records.aggregate import finite, spread

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
    rows = []
    for key, name, digits, best in ROWS:
        if key not in metrics:  # an optional score
            continue
        block = metrics[key]
        picked = [row[i] if i is not None else None for row, i in zip(block["sample"], metrics["selection"]["picked"])]
        rows.append((name, *(mean_and_spread(v, digits) for v in (block[best], block["mean"], picked))))
    if metrics["modes"] is not None:
        aligned = metrics["modes"]["psnr_aligned"]
        rows.append(
            (
                "PSNR, better orientation",
                *(
                    mean_and_spread(v, 2)
                    for v in (
                        [max(finite(row), default=None) for row in aligned],
                        [statistics.fmean(finite(row)) if finite(row) else None for row in aligned],
                        metrics["selection"]["psnr_aligned"],
                    )
                ),
            )
        )
    return rows


def eval_markdown(metrics: dict[str, Any]) -> str:
    """eval.md: the table that DAPS writes, with the mean and the label-free pick beside the oracle's best."""
    meta, n = metrics["metadata"], metrics["metadata"]["num_images"]
    lines = [
        f"# {meta['name']}",
        "",
        f"{n} images, {meta['num_samples']} particles, seed {meta['seed']}; mean ± standard deviation over images.",
        "",
        f"| metric | best of {meta['num_samples']} (by the truth) | mean over particles | label-free pick |",
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
    diverged = sum(sum(row) for row in metrics["diverged"])
    lines += [
        "",
        f"{metrics['time']['total_s']:.1f} s in all; diverged particles: {diverged}.",
        f"Label-free pick: {metrics['selection']['rule']}.",
        "",
    ]
    return "\n".join(lines)
