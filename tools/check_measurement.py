"""What the files of a measurement say of themselves, before anything is sampled, and the overrides that follow from it.

    python tools/check_measurement.py FILE_OR_FOLDER [overrides of posterior_sample.py] [--out PAGE.png]
    python tools/check_measurement.py scan.cxi data.quantity=counts data.gain=250 model=demo-scenes

Reads what data=measurement would read, and what that refuses as far as it can be read. Draws one page of the first frame.
Exit status: 0; 1 if a run would be refused; 2 for wrong input.
"""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from utils.command_line import Parser, run, say
from utils.config.check import check
from utils.config.compose import compose
from utils.config.operators import SPECTRA
from utils.config.settings import Settings
from utils.data import Measurement, measurements
from utils.diagnosis.findings import Finding, Frame, findings_of, hot_pixels
from utils.diagnosis.frames import SURE as SURE_CENTER
from utils.diagnosis.frames import Radial, by_radius
from utils.diagnosis.support import filled
from utils.errors import InputError, one_line, visible
from utils.formats import HDF5, NoSuchDataset, read_array
from utils.measurements import Convention, Reading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.image import AxesImage

MOST_FILES = 8
SHARED = 3  # pixels at the highest value by chance
GAP = "#8fa3b3"  # what was not measured, in pictures
STYLES = {"refuse": "red", "warning": "yellow", "note": ""}
SURE = ((0.75, "sure"), (0.4, "likely"), (0.04, "perhaps"), (0.0, "unknown"))


def settings_of(path: Path, overrides: Sequence[str]) -> Settings:
    """Of a run on these files. Raises InputError."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    root = str(path).replace("\\", "\\\\").replace('"', '\\"')
    settings = check(compose(["data=measurement", f'data.root="{root}"', *overrides]))
    if settings.group.operator.target not in SPECTRA:
        raise InputError(f"task_group={settings.task_group}: its measurement is no spectrum, of which alone this tool knows")
    return settings


def examine(item: Measurement, settings: Settings) -> tuple[Frame, list[Finding]]:
    """One file, as a run reads it, or else as it is. Raises InputError for one of which nothing can be read."""
    findings: list[Finding] = []
    convention, sigma = item.convention, settings.group.operator.sigma
    try:
        reading = item.read()
        if reading.y.ndim != 3 or len(reading.y) != (convention.channels or 3):
            raise ValueError(f"has shape {reading.y.shape}; this task measures {convention.channels or 3} channels")
    except (InputError, ValueError, OSError) as error:
        findings.append(Finding("reading it", one_line(error), 1.0, _negative(error), "refuse"))
        reading, convention, more = as_it_is(item, convention)
        findings += more
        if convention.gain:
            sigma = 0.5 * (reading.unit / convention.gain) ** 0.5
    frame = Frame.of(reading, convention, settings.data.resolution, sigma, f"task.{settings.task_group}.operator.sigma")
    return frame, [*findings, *findings_of(frame)]


def _negative(error: Exception) -> str:
    return "data.background=0" if "negative values" in str(error) else ""


def as_it_is(item: Measurement, convention: Convention) -> tuple[Reading, Convention, list[Finding]]:
    """A file that no run can read yet: its largest array, the sum of its frames, and what follows. Raises InputError."""
    findings, path = [], item.path
    try:
        try:
            array = read_array(path, convention.dataset, convention.folders)
        except NoSuchDataset:
            name = max(arrays_in(path), default=(0, ""))[1]
            if not name:
                raise
            findings.append(Finding("array", f"{name} is the largest", 0.6, f"data.dataset={name}"))
            array = read_array(path, name, convention.folders)
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: nothing of it can be read ({one_line(error)})") from None
    if array.ndim < 2 or array.dtype.kind not in "fiu" or min(array.shape[-2:]) < 8:
        raise InputError(f"{path}: holds {array.dtype} of shape {array.shape}, which is no frame of real numbers")
    own = 1 if convention.channels == 1 else 3
    frames = array.reshape(-1, *array.shape[-2:]).astype(np.float64)
    if array.ndim == 3 and len(array) == own or own == 3 and array.ndim == 4 and array.shape[1] == 3:
        frames = array.astype(np.float64).reshape(-1, own, *array.shape[-2:])  # (N, C, H, W)
    else:
        frames = frames[:, None]
        if own == 3:
            findings.append(Finding("channels", "one, and the task has three", 0.9, "data.channels=1"))
    count = len(frames)
    if count > 1:
        findings.append(Finding("frames", f"a stack of {count}", 1.0, "data.frame=sum"))
        mean, variance = frames.mean(0), frames.var(0, ddof=1)
        lit = mean > 1
        if lit.any():
            ratio = float(variance[lit].mean() / mean[lit].mean())
            findings.append(Finding("numbers a count", f"{ratio:.3g}, the variance over the mean of {count} frames", 0.7))
    raw = frames.sum(0)
    whole = bool((raw == np.round(raw)).all())
    y = raw if convention.quantity == "magnitude" else np.sqrt(np.maximum(raw, 0) / count / (convention.gain or 1))
    y = y / (y.shape[-1] * y.shape[-2]) ** 0.5 if convention.norm == "none" else y
    if convention.center == "corner":
        y, raw = (np.fft.fftshift(each, axes=(-2, -1)) for each in (y, raw))
    y = np.where(np.isfinite(raw) & (raw >= 0), y, np.nan).astype(np.float32)
    return Reading(y, raw, whole, 0, unit=1 / count), replace(convention, center="shifted", bin=1), findings


def arrays_in(path: Path) -> Iterator[tuple[int, str]]:
    """(numbers, name) of the arrays of frames in an HDF5 file, 0 for a link, which is not followed here."""
    if path.suffix.lower() not in HDF5:
        return
    import h5py

    with h5py.File(path, "r") as file:
        found: list[tuple[int, str]] = []

        def add(name: str, link: object) -> None:
            node = file[name] if isinstance(link, h5py.HardLink) else None
            if isinstance(node, h5py.Dataset) and len(node.shape or ()) >= 2 and node.dtype.kind in "fiu":
                found.append((node.size, name))
            elif not isinstance(link, h5py.HardLink):
                found.append((0, name))

        file.visititems_links(add)
    yield from found


def show(name: str, findings: Sequence[Finding]) -> None:
    """A table of what was found."""
    table = Table(title=name, title_justify="left")
    for heading in ("what", "found", "how sure", "recommended"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        sure = next(word for least, word in SURE if finding.sure >= least)
        table.add_row(*map(Text, (finding.what, finding.value, sure, finding.override)), style=STYLES[finding.severity])
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def recommended(found: dict[str, list[Finding]]) -> tuple[dict[str, str], list[str]]:
    """{key: override} of all files, and a line for each key of which the files say different things."""
    values: dict[str, dict[str, str]] = {}  # {key: {override: the first file that says it}}
    for name, findings in found.items():
        for override in (word for finding in findings for word in finding.override.split()):
            values.setdefault(override.partition("=")[0], {}).setdefault(override, name)
    differing = [
        f"the files differ: {', '.join(f'{override} ({name})' for override, name in of_key.items())}"
        for of_key in values.values()
        if len(of_key) > 1
    ]
    return {key: next(iter(of_key)) for key, of_key in values.items()}, differing


def draw_page(frame: Frame, findings: Sequence[Finding], name: str, out: Path) -> None:
    """Frame, mask, radial means and autocorrelation in one figure. Raises InputError."""
    from utils.figures.style import plt, save_figure

    estimate = frame.estimate()
    sure = estimate.confidence >= SURE_CENTER
    center = (estimate.row, estimate.column) if sure else frame.told
    hot = hot_pixels(replace(frame, told=center)) if sure else np.zeros_like(frame.missing)
    y = np.where(hot, np.nan, frame.reading.y.astype(np.float64))
    figure = plt.figure(figsize=(12.5, 10.5))
    grid = figure.add_gridspec(2, 2, left=0.07, right=0.93, bottom=0.07, top=0.91, wspace=0.28, hspace=0.28)
    axes = [figure.add_subplot(place) for place in grid]
    channels = "one channel" if len(y) == 1 else f"{len(y)} channels"
    figure.suptitle(visible(f"{name}: {y.shape[-2]} x {y.shape[-1]} pixels, {channels}"), fontsize=14)
    _draw_frame(axes[0], frame, center if sure else None)
    _draw_kinds(axes[1], frame, hot)
    _draw_radial(axes[2], by_radius(y, center), frame, sure)
    _draw_lags(axes[3], y, next((each for each in findings if each.what == "support"), None))
    save_figure(figure, out, dpi=100)


def _draw_frame(axis: Axes, frame: Frame, found: tuple[float, float] | None) -> None:
    from matplotlib.colors import LogNorm

    raw = np.where(frame.missing, np.nan, frame.reading.raw.astype(np.float64))
    known = ~np.isnan(raw).all(0)
    picture = np.where(known, np.nansum(raw, 0) / np.maximum((~np.isnan(raw)).sum(0), 1), np.nan)
    lit = picture[picture > 0]
    low, high = (float(np.quantile(lit, 0.02)), float(lit.max())) if lit.size else (1.0, 10.0)
    low = max(low, 1e-7 * high)
    shown = axis.imshow(
        np.where(known, np.maximum(picture, low / 10), np.nan),
        norm=LogNorm(low, max(high, 2 * low)),
        cmap=_colours("magma").with_extremes(bad=GAP, under="black"),
    )
    _colour_bar(axis, shown, "number in the file" + ", mean of the channels" * (len(raw) > 1))
    axis.plot(*frame.told[::-1], "+", color="white", markersize=17, markeredgewidth=1.5, label="centre as told")
    if found is not None:
        axis.plot(*found[::-1], "o", color="#35e0c2", markersize=14, fillstyle="none", markeredgewidth=2, label="centre found")
    axis.legend(loc="upper right", fontsize=8, facecolor="#555555", labelcolor="white")
    axis.set_title("the frame" if known.all() else "the frame, grey where not measured")


def _draw_kinds(axis: Axes, frame: Frame, hot: np.ndarray) -> None:
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    raw, missing = frame.reading.raw, frame.missing
    top = (raw == np.max(raw, initial=0, where=~missing)) & ~missing
    several = top & (np.count_nonzero(top) > SHARED)
    kinds = {
        "at the highest value": several,
        "zero": (raw == 0) & ~missing,
        "not measured": missing,
        "far above its opposite": hot,
    }
    colours = ("#f2f2f2", "#d9822b", "#26323c", GAP, "#d0021b")
    codes = np.zeros(raw.shape[-2:], int)
    for code, where in enumerate(kinds.values(), start=1):
        codes[where.any(0)] = code
    axis.imshow(codes, cmap=ListedColormap(colours), vmin=-0.5, vmax=len(colours) - 0.5, interpolation="nearest")
    texts = ["measured", *(f"{kind}: {np.count_nonzero(where)}" for kind, where in kinds.items())]
    boxes = [Patch(facecolor=colour, edgecolor="black", label=text) for colour, text in zip(colours, texts)]
    axis.legend(handles=boxes, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=3, fontsize=8, frameon=False)
    axis.set_title("what its pixels are, in any channel")


def _draw_radial(axis: Axes, radial: Radial, frame: Frame, sure: bool) -> None:
    axis.plot(radial.mean, color="#1f4e79", linewidth=2, label="mean magnitude of a ring")
    if sure:
        axis.plot(radial.noise, ".", color="#d0021b", markersize=4, label="noise there, from opposite pixels")
    axis.axhline(frame.sigma, color="black", linestyle="--", linewidth=1, label=f"operator.sigma = {frame.sigma:.3g}")
    axis.set_yscale("log")
    lit = radial.mean[radial.mean > 0]
    axis.set_ylim(0.2 * min(frame.sigma or np.inf, float(np.median(lit))) if lit.size else None)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xlabel("pixels from the centre")
    axis.set_ylabel("magnitude, as the operator has it")
    axis.set_title("magnitude and noise by radius" if sure else "magnitude by radius; without a sure centre no noise")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)


def _draw_lags(axis: Axes, y: np.ndarray, support: Finding | None) -> None:
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    lags = np.fft.fftshift(np.abs(np.fft.fft2(filled(y) ** 2)).sum(0))
    rows, columns = (side // 2 for side in lags.shape)
    lags /= max(lags[rows, columns], 1e-300)
    extent = (-columns - 0.5, lags.shape[1] - columns - 0.5, lags.shape[0] - rows - 0.5, -rows - 0.5)
    shown = axis.imshow(lags, norm=LogNorm(max(1e-6, 0.5 * float(np.quantile(lags, 0.02))), 1), cmap="viridis", extent=extent)
    _colour_bar(axis, shown, "of lag 0")
    axis.set_xlabel("lag in pixels of the object")
    axis.set_title("autocorrelation")
    if support is None:
        return
    axis.set_xlabel("\n".join(textwrap.wrap(f"support: {support.value}", 70)), fontsize=8)
    if support.override:
        height, width = (int(side) for side in support.override.partition("[")[2].rstrip("]").split(","))
        corner = (-width + 0.5, -height + 0.5)
        axis.add_patch(Rectangle(corner, 2 * width - 1, 2 * height - 1, fill=False, color="white", linewidth=1.5))
        axis.set_title(f"autocorrelation, box: {support.override}")


def _colours(name: str) -> Colormap:
    from matplotlib import colormaps

    return colormaps[name]


def _colour_bar(axis: Axes, shown: AxesImage, label: str) -> None:
    bar = shown.figure.colorbar(shown, ax=axis, label=label, extend="min", fraction=0.046, pad=0.03)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    bar.ax.yaxis.set_minor_formatter(lambda value, _: "")


def main() -> None:
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("path", metavar="FILE_OR_FOLDER", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as posterior_sample.py takes them")
    parser.add_argument("--out", type=Path, help="the page (default: NAME.check.png in this folder)")
    args = parser.parse_args()
    settings = settings_of(args.path, args.overrides)
    items = measurements(settings)
    if not items:
        raise InputError(f"{args.path}: no measurement in it")
    found: dict[str, list[Finding]] = {}
    for i, item in enumerate(items[:MOST_FILES]):
        frame, found[item.name] = examine(item, settings)
        if i == 0:
            first = frame
        show(item.name, [each for each in found[item.name] if i == 0 or each.severity != "note" or each.override])
    if len(items) > MOST_FILES:
        say(f"the first {MOST_FILES} of {len(items)} were looked at")
    overrides, differing = recommended(found)
    for line in differing:
        say(line)
    given = [each for each in args.overrides if each.partition("=")[0] not in overrides]
    say(f"recommended: {shlex.join([*given, *overrides.values()])}" if overrides else "recommended: no other override")
    say("not to be known from a file: the exact gain, which of two turns by 180 degrees is meant, what a mask hides")
    out = args.out or Path(f"{Path(items[0].name).stem}.check.png")
    draw_page(first, found[items[0].name], items[0].name, out)
    say(f"page: {out}")
    sys.exit(any(each.severity == "refuse" for findings in found.values() for each in findings))


if __name__ == "__main__":
    run(main)
