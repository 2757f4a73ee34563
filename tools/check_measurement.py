"""What the files of a measurement say of themselves, before anything is sampled, and the overrides that follow from it.

    python tools/check_measurement.py FILE_OR_FOLDER [overrides of posterior_sample.py] [--out PAGE.png]
    python tools/check_measurement.py scan.cxi data.quantity=counts data.gain=250 model=demo-scenes

Reads what data=measurement would read, and what that refuses as far as it can be read. Draws one page of the first frame.
Exit status: 0; 1 if a run would be refused; 2 for wrong input.
"""

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

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
from utils.diagnosis.frames import by_radius
from utils.diagnosis.plausibility import noise_on
from utils.diagnosis.support import estimate_support, filled
from utils.errors import InputError, one_line
from utils.formats import HDF5, NoSuchDataset, read_array
from utils.measurements import Convention, Reading

MOST_FILES = 8
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
        if reading.y.ndim != 3:
            raise ValueError(f"has shape {reading.y.shape}; this task measures (channels, height, width)")
    except (InputError, ValueError, OSError) as error:
        findings.append(Finding("reading it", one_line(error), 1.0, _negative(error), "refuse"))
        reading, convention, more = as_it_is(item, convention)
        findings += more
        if convention.gain:
            sigma = 0.5 / convention.gain**0.5
    frame = Frame.of(reading, convention, settings.data.resolution, sigma, f"task.{settings.task_group}.operator.sigma")
    return frame, [*findings, *findings_of(frame)]


def _negative(error: Exception) -> str:
    return "data.background=0" if "negative values" in str(error) else ""


def as_it_is(item: Measurement, convention: Convention) -> tuple[Reading, Convention, list[Finding]]:
    """A file that no run can read yet: its largest array, the sum of its frames, and what follows. Raises InputError."""
    findings, path = [], item.path
    try:
        array = read_array(path, convention.dataset, convention.folders)
    except NoSuchDataset as error:
        names = sorted(arrays_in(path), reverse=True)
        if not names:
            raise InputError(f"{path}: {error}") from None
        findings.append(Finding("array", f"{names[0][1]} is the largest", 0.6, f"data.dataset={names[0][1]}"))
        array = read_array(path, names[0][1], convention.folders)
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
    return Reading(y, raw, whole, 0), replace(convention, center="shifted", bin=1), findings


def arrays_in(path: Path) -> Iterator[tuple[int, str]]:
    """(numbers, name) of the arrays of frames in an HDF5 file."""
    if path.suffix.lower() not in HDF5:
        return
    import h5py

    found: list[tuple[int, str]] = []

    def add(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset) and len(node.shape or ()) >= 2 and node.dtype.kind in "fiu":
            found.append((node.size, name))

    with h5py.File(path, "r") as file:
        file.visititems(add)
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


def draw_page(frame: Frame, name: str, out: Path) -> None:
    """Frame, mask, radial means and autocorrelation in one figure. Raises InputError."""
    from matplotlib.colors import ListedColormap, LogNorm
    from matplotlib.patches import Patch, Rectangle

    from utils.figures.style import plt, save_figure

    raw, y = frame.reading.raw.astype(np.float64), frame.reading.y.astype(np.float64)
    missing, estimate = frame.missing, frame.estimate()
    sure = estimate.confidence >= SURE_CENTER
    center = (estimate.row, estimate.column) if sure else frame.told
    figure, axes = plt.subplots(2, 2, figsize=(11, 9.4), layout="constrained")
    figure.suptitle(f"{name}: {raw.shape[-2]} x {raw.shape[-1]} pixels, channels: {len(raw)}", fontsize=13)

    (frame_axis, mask_axis), (radial_axis, lag_axis) = axes
    picture = np.ma.masked_invalid(np.where(missing, np.nan, raw)).mean(0)
    positive = picture[picture > 0]
    low = max(float(np.quantile(positive.compressed(), 0.01)), 1e-6 * float(picture.max())) if positive.size else 1.0
    colours = plt.get_cmap("magma").with_extremes(bad="#6f8fa8", under="black")
    shown = frame_axis.imshow(picture, norm=LogNorm(low, max(float(picture.max()), 2 * low)), cmap=colours)
    figure.colorbar(shown, ax=frame_axis, label="number in the file (mean of the channels)", extend="min")
    frame_axis.plot(*frame.told[::-1], "+", color="white", markersize=16, label="centre as told")
    if sure:
        frame_axis.plot(*center[::-1], "o", color="#35e0c2", markersize=13, fillstyle="none", markeredgewidth=1.8, label="found")
    frame_axis.set_title("the frame; not measured: blue-grey")
    frame_axis.legend(loc="upper right", framealpha=0.8)

    kinds = {"measured": "#e8e8e8", "not measured": "#6f8fa8", "zero": "black", "at the highest value": "#d9822b"}
    kinds |= {"far above its opposite": "#c0392b"}
    top = np.nanmax(np.where(missing, np.nan, raw))
    codes = np.zeros(raw.shape[-2:], int)
    hot = hot_pixels(replace(frame, told=center)) if sure else np.zeros_like(missing)
    highest = (raw == top) & ~missing
    for code, where in enumerate((missing, (raw == 0) & ~missing, highest & (highest.sum() > 3), hot), start=1):
        codes = np.where(where.any(0), code, codes)
    mask_axis.imshow(codes, cmap=ListedColormap(list(kinds.values())), vmin=-0.5, vmax=len(kinds) - 0.5)
    counted = [f"{kind}: {np.count_nonzero(codes == code)}" for code, kind in enumerate(kinds)]
    mask_axis.legend(handles=[Patch(facecolor=c, edgecolor="grey", label=t) for c, t in zip(kinds.values(), counted)])
    mask_axis.set_title("pixels of each kind, in any channel")

    radial = by_radius(y, center)
    radius = np.arange(len(radial.mean))
    radial_axis.semilogy(radius, radial.mean, color="#1f4e79", label="mean magnitude of a ring")
    if sure:
        radial_axis.semilogy(radius, radial.noise, color="#c0392b", label="noise, from opposite pixels")
    radial_axis.axhline(frame.sigma, color="grey", linestyle="--", label=f"{frame.key} = {frame.sigma:.3g}")
    radial_axis.set_xlabel("pixels from the centre")
    radial_axis.set_ylabel("as the operator has it")
    radial_axis.set_title("by radius")
    radial_axis.legend()
    radial_axis.grid(alpha=0.3)

    energy = filled(y) ** 2
    lags = np.fft.fftshift(np.abs(np.fft.fft2(energy - energy.mean((-2, -1), keepdims=True))).sum(0))
    middle = [side // 2 for side in lags.shape]
    lags[middle[0], middle[1]] = np.partition(lags.ravel(), -2)[-2]
    extent = (-middle[1] - 0.5, lags.shape[1] - middle[1] - 0.5, lags.shape[0] - middle[0] - 0.5, -middle[0] - 0.5)
    drawn = lag_axis.imshow(lags / lags.max(), norm=LogNorm(1e-4, 1), cmap="viridis", extent=extent)
    figure.colorbar(drawn, ax=lag_axis, label="of its largest", extend="min")
    sides = estimate_support(y, noise_on(y, frame.convention, frame.sigma))
    box = Rectangle((-sides[1] + 0.5, -sides[0] + 0.5), 2 * sides[1] - 1, 2 * sides[0] - 1, fill=False, color="white")
    lag_axis.add_patch(box)
    lag_axis.set_title(f"autocorrelation; box: of an object of {sides[0]} x {sides[1]} pixels, the field has {frame.side}")
    lag_axis.set_xlim(extent[:2])
    lag_axis.set_ylim(extent[2:])
    lag_axis.set_xlabel("lag in pixels of the object")
    save_figure(figure, out, dpi=110)


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
    draw_page(first, items[0].name, out)
    say(f"page: {out}")
    sys.exit(any(each.severity == "refuse" for findings in found.values() for each in findings))


if __name__ == "__main__":
    run(main)
