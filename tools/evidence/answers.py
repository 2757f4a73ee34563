"""The questions of docs/research/protocols/confirmation.md, answered from the runs of a confirmation, as a table.

    python tools/evidence/answers.py evidence/confirmation             # tools/evidence/confirmation.sh
    python tools/evidence/answers.py evidence/second_confirmation      # tools/evidence/second_confirmation.sh

The folder holds <difficulty>_<set>_<seed>/<run>. Every comparison is on the images and seeds that both runs hold. What is
not there is not asked.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from utils.analysis import runs
from utils.analysis.columns import Column, Table
from utils.analysis.comparison import paired
from utils.analysis.costs import cost
from utils.analysis.experiments import Experiment, gather
from utils.analysis.stats import wilson
from utils.analysis.tables import markdown
from utils.command_line import Parser, run
from utils.errors import InputError

SETS = ("scenes", "faces")
DAPS, FAST = "exp0_langevin", "exp0_fast"
REPULSION, PRUNING, TWO, POLISH = "exp1_repulsion", "exp2_pruning", "exp3_2particle", "exp4_optimization"
EXCHANGE, SEQUENTIAL = "exp6_recombination", "exp7_sequential"
PASSES = 4000 / 30  # a thirtieth of the four of exp0_langevin
DECIBEL, POINTS, ERRORS = -0.3, -0.05, 0.05  # margins of quality and of success; falsely accepted images


COLUMNS = [
    Column("number", "question"),
    Column("where", "set and images"),
    Column("found", "found, with 95 % intervals"),
    Column("answer", "answer"),
]


class Answer(NamedTuple):
    number: int
    where: str
    found: str
    yes: bool
    p: float = 1.0  # of a test


class Runs:
    """Those below a folder, as experiments of one or of several sets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[tuple[str, ...], Experiment | None] = {}

    def of(self, name: str, difficulty: str, *sets: str) -> Experiment | None:
        """All seeds of a run; None where a set has none."""
        key = (name, difficulty, *sets)
        if key not in self.known:
            self.known[key] = self._gathered(*key)
        return self.known[key]

    def _gathered(self, name: str, difficulty: str, *sets: str) -> Experiment | None:
        folders = [sorted(self.folder.glob(f"{difficulty}_{one}_*/{name}")) for one in sets]
        if not all(folders):
            return None
        return gather([runs.load(each) for each in itertools.chain(*folders)], by_name=True)[0]

    def pair(self, name: str, other: str, difficulty: str, *sets: str) -> dict | None:
        """`paired` of two runs on what both hold; None where one is missing."""
        one, reference = self.of(name, difficulty, *sets), self.of(other, difficulty, *sets)
        if one is None or reference is None:
            return None
        return paired(one, reference)


def answers(found: Runs) -> list[Answer]:
    """All that can be answered, in the questions' order."""
    rows: list[Answer] = []

    def quality(
        number: int, name: str, other: str, parts: Sequence[str], difficulty: str = "standard", above: float = DECIBEL
    ) -> None:
        for one in SETS:
            if (p := found.pair(name, other, difficulty, one)) is None:
                continue
            words = [f"{part.split('.')[-1].replace('_psnr', '')} {interval(p[part])} dB" for part in parts]
            yes = all(p[part]["low"] > above for part in parts)
            if above == DECIBEL and other == DAPS:
                words.append(f"success {interval(p['success'], 100)} points")
                yes = yes and p["success"]["low"] > POINTS
            if name == SEQUENTIAL:
                passes, best = cost(found.of(name, difficulty, one))["passes"], interval(p["psnr_aligned.best"])
                words += [f"{passes:.0f} passes", f"(best {best} dB)"]
                yes = yes and passes <= PASSES
            rows.append(Answer(number, f"{one}, {p['images']}", "; ".join(words), yes))

    def share(number: int, name: str, other: str, quantity: str, rises: bool, difficulty: str = "standard") -> None:
        for one in SETS:
            if (p := found.pair(name, other, difficulty, one)) is not None:
                d = p[quantity]
                yes = d["low"] > 0 if rises else d["high"] < 0
                words = f"{quantity.replace('_', ' ')} {interval(d, 100)} points"
                rows.append(Answer(number, f"{one}, {difficulty}, {p['images']}", words, yes))

    def success(number: int, name: str, other: str, difficulty: str, rises: bool, sets: Sequence[str] = SETS) -> Answer | None:
        if (p := found.pair(name, other, difficulty, *sets)) is None:
            return None
        c = p["changed"]["success"]
        right = c["gained"] > c["lost"] if rises else c["lost"] > c["gained"]
        words = f"{name}: {c['gained']} rescued, {c['lost']} lost, p = {c['p']:.2g}"
        return Answer(number, f"{' and '.join(sets)}, {difficulty}, {c['n']}", words, right and c["p"] < 0.05, c["p"])

    quality(1, SEQUENTIAL, DAPS, ["pick_psnr"])
    quality(2, FAST, DAPS, ["psnr_aligned.best", "pick_psnr"])
    for difficulty in ("standard", "hard"):
        share(3, EXCHANGE, FAST, "failed", rises=False, difficulty=difficulty)
    rows.append(success(4, EXCHANGE, FAST, "hard", rises=True))
    share(5, REPULSION, FAST, "both_modes", rises=True)
    rows.append(success(6, REPULSION, FAST, "hard", rises=True))
    quality(7, PRUNING, REPULSION, ["psnr_aligned.best"])
    rows.append(success(8, TWO, PRUNING, "hard", rises=False))
    for number, name in ((9, POLISH), (10, EXCHANGE)):
        if (p := found.pair(name, DAPS, "standard", *SETS)) is not None:
            w, d = p["wilcoxon"]["pick"], p["pick_psnr"]
            words = f"pick {interval(d)} dB, median {w['shift']:+.2f}, Wilcoxon's p = {w['p']:.2g}"
            yes = w["p"] < 0.05 and w["shift"] > 0 if number == 9 else d["low"] > 0
            rows.append(Answer(number, f"both sets, {p['images']}", words, yes))
    quality(11, POLISH, FAST, ["psnr_aligned.best"], "budget", above=0.0)
    four = [success(12, name, FAST, "standard", True, ("photographs",)) for name in (REPULSION, PRUNING, POLISH, EXCHANGE)]
    rows += holm([row for row in four if row])
    if (e := found.of(SEQUENTIAL, "standard", *SETS)) is not None:
        wrong = [w for r in e.runs for w in r.metrics.population.wrong if w is not None]
        rate = wilson(sum(wrong) / len(wrong), len(wrong))
        words = f"{sum(wrong)} of {len(wrong)} accepted falsely, at most {100 * rate.high:.1f} %"
        rows.append(Answer(13, f"both sets, {len(wrong)}", words, rate.high <= ERRORS))
    return [row for row in rows if row]


def holm(rows: list[Answer]) -> list[Answer]:
    """Yes where it is one by Holm's procedure over all of them."""
    order = sorted(rows, key=lambda row: row.p)
    kept = [row.p * (len(order) - i) < 0.05 for i, row in enumerate(order)]
    return [row._replace(yes=row.yes and all(kept[: i + 1])) for i, row in enumerate(order)]


def interval(d: Mapping[str, float], scale: int = 1) -> str:
    """A difference with its interval, in dB, or with scale=100 in points."""
    digits = 2 if scale == 1 else 1
    return f"{scale * d['difference']:+.{digits}f} [{scale * d['low']:.{digits}f}, {scale * d['high']:.{digits}f}]"


def table(folder: Path) -> Table:
    """All answers of the runs below a folder. Raises InputError where it holds none."""
    rows = answers(Runs(folder))
    if not rows:
        raise InputError(f"{folder}: holds no runs named <difficulty>_<set>_<seed>/<run>; name the folder above them")
    return Table("Answers", COLUMNS, [[r.number, r.where, r.found, "**yes**" if r.yes else "not shown"] for r in rows])


def main() -> None:
    parser = Parser(prog="answers.py", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    print(markdown(table(parser.parse_args().folder), level=0), end="")


if __name__ == "__main__":
    run(main)
