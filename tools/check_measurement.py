"""What the files of a measurement say of themselves, before anything is sampled, and the overrides that follow from it.

    python tools/check_measurement.py FILE_OR_FOLDER [overrides of posterior_sample.py] [--out PAGE.png]
    python tools/check_measurement.py scan.cxi data.quantity=counts data.gain=250 model=demo-scenes

Reads what data=measurement would read, and what that refuses as far as it can be read. Looks again with what it recommends,
until nothing is left to say. Draws one page of the first frame.
Exit status: 0; 1 if a run would be refused; 2 for wrong input.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from utils.command_line import Parser, run, say
from utils.config.check import check
from utils.config.compose import compose, quoted
from utils.config.operators import SPECTRA
from utils.config.settings import Settings
from utils.conventions import Convention, Support
from utils.data import Measurement, measurements
from utils.diagnosis.findings import Finding, Frame, findings_of, negative_marks
from utils.diagnosis.frames import SURE as SURE_CENTER
from utils.diagnosis.frames import by_radius
from utils.diagnosis.support import filled
from utils.errors import InputError, one_line, visible
from utils.formats import read_array
from utils.frames import middle
from utils.hdf5 import arrays_in
from utils.stacks import frames_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_FILES = 8  # that are looked at
ROUNDS = 5
SMALLEST = 8  # pixels a side of a frame
SHARED = 3  # pixels at the highest value by chance
GAP = "#8fa3b3"  # what was not measured, in pictures
KINDS = ("#f2f2f2", "#d9822b", "#26323c", GAP, "#d0021b")  # colours of what pixels are
STYLES = {"refuse": "red", "warning": "yellow", "note": ""}
SURE = ((0.75, "sure"), (0.4, "likely"), (0.04, "perhaps"), (0.0, "unknown"))


def settings_of(path: Path, overrides: Sequence[str]) -> Settings:
    """Of a run on these files. Raises InputError."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    overrides = ["data=measurement", *overrides, quoted("data.root", str(path))]
    settings = check(compose(overrides), overrides)
    if settings.group.operator.target not in SPECTRA:
        raise InputError(f"task_group={settings.task_group}: its measurement is no spectrum, of which alone this tool knows")
    return settings


def examine(item: Measurement, settings: Settings) -> tuple[Frame, list[Finding]]:
    """One file, as a run reads it, or else as it can be read. Raises InputError for one of which nothing can be read."""
    findings, channels, sigma = list[Finding](), item.convention.channels or 3, settings.group.operator.sigma
    try:
        reading = item.read()
        if reading.y.ndim != 3 or len(reading.y) != channels:
            raise ValueError(f"has shape {reading.y.shape}; this task measures {channels} channels")
    except (InputError, ValueError, OSError) as error:
        try:
            item, findings = readable(item)
            reading = item.read()
        except (ValueError, OSError) as worse:
            raise InputError(f"{item.path}: nothing of it can be read ({one_line(worse)})") from None
        findings.insert(0, Finding("reading it", one_line(error), 1.0, severity="refuse"))
        if gain := item.convention.gain:
            sigma = 0.5 * (reading.unit / gain) ** 0.5
    key = f"task.{settings.task_group}.operator.sigma"
    frame = Frame.of(reading, item.convention, settings.data.resolution, sigma, key)
    return frame, [*findings, *findings_of(frame)]


def readable(item: Measurement) -> tuple[Measurement, list[Finding]]:
    """A file that no run can read yet, with what lets it be read. Raises InputError, ValueError and OSError."""
    findings, path, convention = list[Finding](), item.path, item.convention
    if convention.quantity == "counts" and convention.gain is None:  # none is chosen of what cannot be read
        convention = replace(convention, gain=1.0)

    def take(what: str, value: str, key: str, setting: Any) -> Convention:
        text = str(setting).replace("'", "").replace(" ", "")
        findings.append(Finding(what, value, 0.9, f"data.{key}={text}"))
        return replace(convention, **{key: setting})

    sizes = arrays_in(path)
    if sizes and convention.dataset not in sizes:
        name = max(sizes, key=sizes.__getitem__)
        convention = take("array", f"{name} is the largest", "dataset", name)
    array = read_array(path, convention.dataset, convention.folders)
    if array.ndim < 2 or array.dtype.kind not in "fiu" or min(array.shape[-2:]) < SMALLEST:
        raise InputError(f"{path}: holds {array.dtype} of shape {array.shape}, which is no frame of real numbers")
    if convention.channels is None and array.shape[-3:-2] != (3,):
        convention = take("channels", "one, and the task has three", "channels", 1)
    absent = np.isin(array, [value for value in convention.mask_values if not isinstance(value, str)]) | np.isnan(array)
    if np.isnan(array).any() and "nan" not in convention.mask_values:
        convention = take("marked pixels", "some are NaN", "mask", [*convention.mask_values, "nan"])
    if convention.quantity != "magnitude" and convention.background is None and (array[~absent] < 0).any():
        if negative_marks(array, absent, convention):
            lowest = array[~absent].min().item()
            convention = take("marked pixels", f"{lowest}, the one negative value", "mask", [*convention.mask_values, lowest])
        else:
            convention = take("background", "was taken off already: some counts are negative", "background", 0)
    if (count := frames_in(array.shape, convention)) and convention.frame is None:
        convention = take("frames", f"a stack of {count}", "frame", "sum")
        counts = np.where(absent, 0, array).astype(np.float64)
        if (lit := counts.mean(0) > 1).any():
            ratio = counts.var(0, ddof=1)[lit].mean() / counts.mean(0)[lit].mean()
            findings.append(Finding("numbers a count", f"{ratio:.3g}, the variance over the mean of {count} frames", 0.7))
    return replace(item, convention=convention, own_frame=None, measured_shape=None), findings


def show(name: str, findings: Sequence[Finding]) -> None:
    """A table of what was found."""
    table = Table(title=name, title_justify="left")
    for heading in ("what", "found", "how sure", "recommended"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        sure = next(word for least, word in SURE if finding.sure >= least)
        table.add_row(*map(Text, (finding.what, finding.value, sure, finding.override)), style=STYLES[finding.severity])
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def key_of(override: str) -> str:
    return override.partition("=")[0]


class Look(NamedTuple):
    """What was seen of some files."""

    overrides: dict[str, str]  # {key: override}: the given ones and the recommended ones
    findings: dict[str, list[Finding]]  # {file: what it says}, of the first MOST_FILES
    remarks: list[str]  # a line for each key of which the files say different things, and of what was left out
    refused: bool  # whether a run with the given overrides alone would be
    first: Frame  # of the first file, as the given overrides have it
    last: Frame  # as the recommended ones do


def look(path: Path, given: Sequence[str]) -> Look:
    """At the files of a run, as often as something new is recommended. Raises InputError."""
    overrides = {key_of(each): each for each in given}
    if overrides.get("data.quantity") == "data.quantity=counts" and not {"data.gain", "data.scale"} & overrides.keys():
        overrides["data.scale"] = "data.scale=free"
    names, rounds, by_file = list[str](), list[list[tuple[Frame, list[Finding]]]](), dict[str, list[Finding]]()
    settled = False
    while not settled and len(rounds) < ROUNDS:
        settings = settings_of(path, list(overrides.values()))
        if not (items := measurements(settings)):
            raise InputError(f"{path}: no measurement in it")
        names = names or [item.name for item in items]  # before a frame of each is chosen
        rounds.append([examine(item, settings) for item in items[:MOST_FILES]])
        by_file = {name: together(by_file.get(name, []), after) for name, (_, after) in zip(names, rounds[-1])}
        new, remarks = recommended(by_file, Convention.of(settings.data).mask_values)
        settled = bool(remarks) or new.items() <= overrides.items()
        overrides |= new
    if len(names) > MOST_FILES:
        remarks.append(f"only the first {MOST_FILES} files were looked at")
    refused = any(each.severity == "refuse" for _, findings in rounds[0] for each in findings)
    return Look(overrides, by_file, remarks, refused, rounds[0][0][0], rounds[-1][0][0])


def together(before: Sequence[Finding], after: Sequence[Finding]) -> list[Finding]:
    """What was recommended before stays, unless its key is recommended anew; of other things the latest word counts."""
    topics = {key_of(each.override) or each.what for each in after}
    standing = [each for each in before if each.what == "reading it" or (key_of(each.override) or each.what) not in topics]
    mended = {each.what for each in standing if each.override}
    return [*standing, *(each for each in after if each.override or each.what not in mended)]


def recommended(by_file: dict[str, list[Finding]], masked: Sequence[object]) -> tuple[dict[str, str], list[str]]:
    """{key: override} of all files, and a line for each key of which they differ; masked: values of data.mask, which stay."""
    values: dict[str, dict[str, str]] = {}  # {key: {override: the first file that says it}}
    for name, findings in by_file.items():
        for override in (word for finding in findings for word in finding.override.split()):
            values.setdefault(key_of(override), {}).setdefault(override, name)
    if marks := [each.partition("=")[2].strip("[]") for each in values.pop("data.mask", {})]:
        values["data.mask"] = {f"data.mask=[{','.join(dict.fromkeys([*map(str, masked), *marks]))}]": ""}
    several = [each for each in values.values() if len(each) > 1]
    differing = [", ".join(f"{override} ({name})" for override, name in each.items()) for each in several]
    return {key: next(iter(each)) for key, each in values.items()}, [f"the files differ: {each}" for each in differing]


def draw_page(first: Frame, last: Frame, name: str, out: Path) -> None:
    """The frame as told; its pixels, radial means and autocorrelation with what is recommended. Raises InputError."""
    from utils.figures.style import plt, save_figure

    hot = last.hot_pixels() if last.estimate().confidence >= SURE_CENTER else np.zeros_like(last.missing)
    y = last.without(hot).y
    figure, axes = plt.subplots(2, 2, figsize=(12.5, 10.5), layout="constrained")
    shape = f"{first.missing.shape[-2]} x {first.missing.shape[-1]} pixels, channels: {len(y)}"
    figure.suptitle(visible(f"{name}: {shape}"), fontsize=14)
    _draw_frame(axes[0, 0], first)
    _draw_kinds(axes[0, 1], last, hot)
    _draw_radial(axes[1, 0], y, last)
    _draw_lags(axes[1, 1], y, last.convention.support)
    save_figure(figure, out, dpi=100)


def _draw_frame(axis: Axes, frame: Frame) -> None:
    raw = np.where(frame.missing, np.nan, frame.reading.raw.astype(np.float64))
    _draw_logarithm(axis, np.where(frame.missing.all(0), np.nan, np.nansum(raw, 0)), "the number in the file")
    axis.plot(*frame.told_center[::-1], "+", color="white", markersize=17, markeredgewidth=1.5, label="centre as told")
    estimate = frame.estimate()
    if estimate.confidence >= SURE_CENTER:
        place = (estimate.column, estimate.row)
        axis.plot(*place, "o", color="#35e0c2", markersize=14, fillstyle="none", markeredgewidth=2, label="centre found")
    axis.legend(loc="upper right", fontsize=8, facecolor="#555555", labelcolor="white")
    axis.set_title("the frame, grey where not measured")


def _draw_logarithm(axis: Axes, picture: np.ndarray, label: str) -> None:
    """Of (H, W), grey where NaN; the darkest fiftieth is black."""
    from matplotlib import colormaps

    least = float(np.quantile(picture[picture > 0], 0.02)) if (picture > 0).any() else 1.0
    colours = colormaps["magma"].with_extremes(bad=GAP)
    shown = axis.imshow(np.log10(np.maximum(picture, least)), cmap=colours)
    axis.figure.colorbar(shown, ax=axis, label=f"logarithm (base 10) of {label}")


def _draw_kinds(axis: Axes, frame: Frame, hot: np.ndarray) -> None:
    from matplotlib.colors import ListedColormap

    raw, missing = frame.reading.raw, frame.missing
    top = (raw == np.max(raw, initial=0, where=~missing)) & ~missing
    top &= np.count_nonzero(top) > SHARED
    kinds = {"highest value": top, "zero": (raw == 0) & ~missing, "not measured": missing, "hot": hot}
    codes = np.zeros(raw.shape[-2:], int)
    for code, pixels in enumerate(kinds.values(), start=1):
        codes[pixels.any(0)] = code
    shown = axis.imshow(codes, cmap=ListedColormap(KINDS), vmin=-0.5, vmax=len(KINDS) - 0.5, interpolation="nearest")
    bar = axis.figure.colorbar(shown, ax=axis, ticks=range(len(KINDS)), orientation="horizontal")
    counted = [f"{kind}:\n{np.count_nonzero(pixels)}" for kind, pixels in kinds.items()]
    bar.ax.set_xticklabels(["measured", *counted], fontsize=8)
    axis.set_title("what its pixels are, in any channel, once centred")


def _draw_radial(axis: Axes, y: np.ndarray, frame: Frame) -> None:
    radial = by_radius(y, frame.told_center)
    axis.semilogy(radial.mean, color="#1f4e79", linewidth=2, label="mean magnitude of a ring")
    axis.semilogy(radial.noise, ".", color="#d0021b", markersize=4, label="noise there, if that is the centre")
    axis.axhline(frame.sigma, color="black", linestyle="--", linewidth=1, label=f"operator.sigma = {frame.sigma:.3g}")
    axis.set(xlabel="pixels from the centre", ylabel="magnitude, as the operator has it", title="magnitude and noise by radius")
    axis.yaxis.set_major_formatter("{x:g}")  # the default writes formulas, and text is not read as mathematics
    axis.legend(fontsize=8)


def _draw_lags(axis: Axes, y: np.ndarray, support: Support) -> None:
    from matplotlib.patches import Rectangle

    lags = np.fft.fftshift(np.abs(np.fft.fft2(filled(y) ** 2)).sum(0))
    row, column = middle(lags.shape)
    _draw_logarithm(axis, lags / lags.max(), "the share of lag 0")
    axis.set(title="autocorrelation, lag 0 in the middle", xlabel="pixels of the object")
    if isinstance(support, list):
        corner, width, height = (column - support[1] + 0.5, row - support[0] + 0.5), 2 * support[1] - 1, 2 * support[0] - 1
        axis.add_patch(Rectangle(corner, width, height, fill=False, color="white", linewidth=1.5))
        axis.set_title(f"autocorrelation, box: data.support={support}")


def main() -> None:
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("path", metavar="FILE_OR_FOLDER", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as posterior_sample.py takes them")
    parser.add_argument("--out", type=Path, help="the page (default: NAME.check.png in this folder)")
    args = parser.parse_args()
    seen = look(args.path, args.overrides)
    for i, (name, findings) in enumerate(seen.findings.items()):
        show(name, [each for each in findings if i == 0 or each.severity != "note" or each.override])
    for line in seen.remarks:
        say(line)
    overrides = list(seen.overrides.values())
    say(f"recommended: {'no other override' if overrides == args.overrides else shlex.join(overrides)}")
    say("not to be known from a file: the exact gain, which of two turns by 180 degrees is meant, what a mask hides")
    name = next(iter(seen.findings))
    out = args.out or Path(f"{Path(name).stem}.check.png")
    draw_page(seen.first, seen.last, name, out)
    say(f"page: {out}")
    sys.exit(seen.refused)


if __name__ == "__main__":
    run(main)
