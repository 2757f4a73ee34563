"""How often a frame's findings are wrong: alarms of right frames, and faults that are missed or raise others.

    python tools/make_demo_data.py --split val --count 40 --out DIR
    python tools/evidence/frame_findings.py DIR/demo-faces DIR/demo-scenes --start 16 --count 24

Draws measurements of images, without a network, and asks utils/diagnosis/findings.py. Prints the tables of
docs/research/measured/instruments.md, and which cases went wrong.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from utils.command_line import Parser, run, say
from utils.conventions import Convention
from utils.diagnosis.findings import Finding, Frame, findings_of
from utils.errors import InputError
from utils.measurements import reading

SIDE, FRAME = 64, 96  # pixels of an image, and samples of its frame
GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
PEAK = 1e4  # counts


class Measured(NamedTuple):
    """A drawn measurement, and how it is said to be meant."""

    values: np.ndarray  # (C, FRAME, FRAME)
    sigma: float  # the operator's
    keys: dict[str, Any]  # of utils.measurements.Convention

    def findings(self) -> list[Finding]:
        convention = Convention(**self.keys)
        frame = reading(self.values, Path("y.npy"), convention)
        return findings_of(Frame.of(frame, convention, SIDE, self.sigma, "operator.sigma"))


class Fault(NamedTuple):
    """What a frame may be wrong in, and what shall be said of it."""

    measure: Callable[[np.ndarray, np.random.Generator], Measured]  # of an image (3, SIDE, SIDE) in [0, 1]
    fragment: str  # a part of the finding's value or override
    severity: str


def alarm(finding: Finding) -> bool:
    """Whether a right frame must not have it."""
    return finding.severity != "note" or bool(finding.override)


def image(file: Path) -> np.ndarray:
    """(3, SIDE, SIDE) in [0, 1]."""
    return np.asarray(Image.open(file).convert("RGB"), float).transpose(2, 0, 1) / 255


def grey(picture: np.ndarray) -> np.ndarray:
    return np.einsum("c,chw->hw", GREY, picture)[None]


def magnitude(picture: np.ndarray, center: tuple[float, float] = (FRAME // 2, FRAME // 2)) -> np.ndarray:
    """(C, FRAME, FRAME), the zero frequency at `center`."""
    pad = (FRAME - picture.shape[-1]) // 2
    padded = np.pad(picture, ((0, 0), (pad, pad), (pad, pad)))
    rows, columns = (np.exp(2j * np.pi * (place - FRAME // 2) * np.arange(FRAME) / FRAME) for place in center)
    return np.abs(np.fft.fftshift(np.fft.fft2(padded * rows[:, None] * columns, norm="ortho"), axes=(-2, -1)))


def with_noise(m: np.ndarray, rng: np.random.Generator, sigma: float, stated_sigma: float | None = None) -> Measured:
    """stated_sigma: what sigma is said to be."""
    return Measured(np.abs(m + sigma * rng.standard_normal(m.shape)), stated_sigma or sigma, {})


def counted(
    m: np.ndarray, rng: np.random.Generator, gain: float, background: float = 0.0, stated_gain: float = 1.0
) -> Measured:
    """stated_gain: what the gain is said to be, in true gains."""
    keys = {"quantity": "counts", "gain": stated_gain * gain}
    return Measured(rng.poisson(gain * m**2 + background), 0.5 / (stated_gain * gain) ** 0.5, keys)


def stopped(measured: Measured) -> Measured:
    """With a beam stop of 7 x 7 pixels, which is masked."""
    values = measured.values.copy()
    values[..., 45:52, 45:52] = -1
    return measured._replace(values=values, keys={**measured.keys, "mask": [-1]})


def right(picture: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[str, Measured]]:
    """(case, measurement) of an image: colour and grey, noise and counts, with and without a beam stop."""
    for colours, m, keys in (("colour", magnitude(picture), {}), ("grey", magnitude(grey(picture)), {"channels": 1})):
        drawn = {f"noise {sigma}": with_noise(m, rng, sigma) for sigma in (0.05, 0.0125)}
        drawn |= {f"gain {gain:g}": counted(m, rng, gain) for gain in (1e2, 1e4, 1e6)}
        for name, measured in drawn.items():
            measured = measured._replace(keys={**measured.keys, **keys})
            yield f"{name}, {colours}", measured
            yield f"{name}, {colours}, beam stop", stopped(measured)


def gain_of(m: np.ndarray) -> float:
    """That puts the brightest pixel at PEAK counts."""
    return float(PEAK / (m**2).max())


def faults() -> dict[str, Fault]:
    """{name: fault}"""

    def counts(picture: np.ndarray, rng: np.random.Generator, center: Any = (48, 48), **other: float) -> Measured:
        m = magnitude(picture, center)
        return counted(m, rng, gain_of(m), **other)

    def off(center: tuple[float, float], draw: Callable[..., Measured]) -> Callable[..., Measured]:
        return lambda picture, rng: draw(picture, rng, center)

    def quiet(picture: np.ndarray, rng: np.random.Generator, center: tuple[float, float]) -> Measured:
        return with_noise(magnitude(picture, center), rng, 0.0125)

    def saturated(picture: np.ndarray, rng: np.random.Generator) -> Measured:
        measured = counts(picture, rng)
        return measured._replace(values=np.minimum(measured.values, 1000))

    def hot(picture: np.ndarray, rng: np.random.Generator) -> Measured:
        measured = counts(picture, rng)
        measured.values[:, 20, 30] = 5000
        return measured

    def without(part: Any) -> Callable[..., Measured]:
        def dead(picture: np.ndarray, rng: np.random.Generator) -> Measured:
            measured = with_noise(magnitude(picture), rng, 0.05)
            measured.values[part] = 0
            return measured

        return dead

    def as_counts(picture: np.ndarray, rng: np.random.Generator) -> Measured:
        return with_noise(magnitude(picture), rng, 0.05, stated_sigma=0.5)._replace(keys={"quantity": "counts", "gain": 1.0})

    off_centre = {}
    for r, c in ((1, 0), (0, 2), (-3, 1)):
        center, override = (48 + r, 48 + c), f"data.center=[{48 + r},{48 + c}]"
        off_centre[f"magnitudes off by {r}, {c}"] = Fault(off(center, quiet), override, "refuse")
        off_centre[f"counts off by {r}, {c}"] = Fault(off(center, counts), override, "refuse")
    return off_centre | {
        "half a pixel off": Fault(off((48.5, 47.5), counts), "data.center=[48.5,47.5]", "warning"),
        "background of 10": Fault(lambda x, rng: counts(x, rng, background=10.0), "data.background=", "warning"),
        "a tenth of the gain": Fault(lambda x, rng: counts(x, rng, stated_gain=0.1), "data.scale=free", "warning"),
        "a thousand times the gain": Fault(lambda x, rng: counts(x, rng, stated_gain=1e3), "a smaller data.gain", "warning"),
        "counts as magnitudes": Fault(
            lambda x, rng: counts(x, rng)._replace(sigma=0.05, keys={}), "data.quantity=counts", "warning"
        ),
        "magnitudes as counts": Fault(as_counts, "data.quantity=magnitude", "warning"),
        "saturated": Fault(saturated, "data.mask=[1000]", "warning"),
        "hot pixels": Fault(hot, "3 are far brighter", "warning"),
        "a dead quadrant": Fault(without((slice(None), slice(48), slice(48))), "data.mask=[0.0]", "refuse"),
        "a dead channel": Fault(without(1), "channel 1 is 0.0 in every pixel", "refuse"),
        "more noise than told": Fault(
            lambda x, rng: with_noise(magnitude(x), rng, 0.15, stated_sigma=0.05), "operator.sigma=0.", "warning"
        ),
        "an object of 40": Fault(lambda x, rng: counted(magnitude(x[:, 12:52, 12:52]), rng, 100.0), "data.support=[", "note"),
        "an object of 40 behind a beam stop": Fault(
            lambda x, rng: stopped(counted(magnitude(x[:, 12:52, 12:52]), rng, 100.0)), "data.support=[", "note"
        ),
    }


def answers(fault: Fault, findings: list[Finding]) -> tuple[bool, list[Finding]]:
    """Whether the fault was found, and the alarms that have nothing to do with it."""
    fitting = [
        each for each in findings if fault.fragment in f"{each.value} {each.override}" and each.severity == fault.severity
    ]
    return bool(fitting), [each for each in findings if each not in fitting and each.severity != "note"]


def main() -> None:
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER", type=Path, help="of images of 64 pixels, one a set")
    parser.add_argument("--start", type=int, default=0, help="the first image of each")
    parser.add_argument("--count", type=int, default=24, help="images of each")
    args = parser.parse_args()
    chosen = {folder: sorted(folder.glob("*.png"))[args.start : args.start + args.count] for folder in args.folders}
    short = next((folder for folder, files in chosen.items() if len(files) < args.count), None)
    if short is not None:
        raise InputError(f"{short}: has {len(chosen[short])} of {args.count} PNG files from {args.start} on; lower --count")
    alarms: dict[str, list[int]] = {}
    missed: dict[str, list[list[int]]] = {}
    for place, folder in enumerate(args.folders):
        for number, file in enumerate(chosen[folder], start=args.start):
            picture = image(file)
            for case, measured in right(picture, np.random.default_rng(number)):
                wrong = [each for each in measured.findings() if alarm(each)]
                alarms.setdefault(case, [0] * len(args.folders))[place] += bool(wrong)
                for each in wrong:
                    say(f"{folder.name} {number}, {case}: {each.what}: {each.value} {each.override}")
            for case, fault in faults().items():
                noticed, others = answers(fault, fault.measure(picture, np.random.default_rng(number)).findings())
                counts = missed.setdefault(case, [[0, 0] for _ in args.folders])[place]
                counts[0] += not noticed
                counts[1] += bool(others)
                for each in others:
                    say(f"{folder.name} {number}, {case}: {each.what}: {each.value} {each.override}")
                if not noticed:
                    say(f"{folder.name} {number}, {case}: missed")
    folders = [folder.name for folder in args.folders]
    say_table([f"right frames, {args.count} images a set: alarms", *folders], alarms)
    pairs = {case: [f"{unnoticed}, {other}" for unnoticed, other in counts] for case, counts in missed.items()}
    say_table([f"faults, {args.count} images a set: missed, with other alarms", *folders], pairs)


def say_table(heads: Sequence[str], rows: Mapping[str, Sequence[int | str]]) -> None:
    """In Markdown; rows: {name: the cells after it}."""
    say("")
    say(f"| {' | '.join(heads)} |")
    say(f"|---|{'---:|' * (len(heads) - 1)}")
    for name, cells in rows.items():
        say(f"| {name} | {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    run(main)
