"""Breaks one formula at a time and shows whether the tests notice.

    python tools/evidence/mutate.py
    python tools/evidence/mutate.py --only clip_after_factor initial_sigma_one_step_down

tools/evidence/mutations.yaml names each mutation: the text of a file, the wrong text in its place, what that breaks, and
the tests that should notice. It works on a copy of the tree in a temporary folder: first the tests as they are, which
must pass, then each mutation alone with its tests, which must fail. Exit status 1 if a mutation survives. The libraries
are imported once, and each mutation is a fork of that process, so one costs little more than its tests.
"""

import importlib
import importlib.util
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from utils.command_line import Parser, run
from utils.device import silence_unused_xla
from utils.errors import InputError
from utils.paths import PROJECT

LIST = Path(__file__).with_name("mutations.yaml")
COPIED = (
    "sampler.py",
    "posterior_sample.py",
    "pyproject.toml",
    "configs",
    "checkpoints/natural-32",
    "latentdaps",
    "operators",
    "utils",
    "tools",
    "tests",
    "docs/examples",
)
OURS = ("latentdaps", "sampler", "posterior_sample", "operators", "utils", "tools", "tests", "docs")
LIBRARIES = ("scipy.stats", "scipy.ndimage", "torch", "torchvision", "piq", "diffusers", "hydra", "pydantic", "PIL.ImageDraw")
TIMEOUT_S = 1800.0  # of one selection of tests as they are, on a machine that may be busy
LONGER = 4  # times what they took as they are, and a minute: longer than that no mutation is waited for
STYLE = {"killed": "green", "survived": "bold red", "broken": "bold yellow"}


class Mutation(NamedTuple):
    """`old` occurs once in `file`; `tests`: the arguments of pytest."""

    name: str
    file: str
    old: str
    new: str
    breaks: str
    tests: tuple[str, ...]


class Outcome(NamedTuple):
    """killed: a test failed; survived: all passed; broken: no test could say, because nothing ran or ended."""

    verdict: str
    noticed_by: str
    seconds: float


def main() -> None:
    parser = Parser(prog="mutate.py", description="Break one formula at a time; the tests should notice.")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these mutations of the list alone")
    args = parser.parse_args()
    chosen = select(load(LIST), args.only)
    silence_unused_xla()  # before diffusers is imported, which looks for it once
    for library in LIBRARIES:
        importlib.import_module(library)
    sys.exit(survey(PROJECT, chosen, Console()))


def load(path: Path) -> list[Mutation]:
    """The mutations of a list: groups of {tests, mutations}."""
    groups = yaml.safe_load(path.read_text())
    return [Mutation(tests=tuple(group["tests"]), **m) for group in groups for m in group["mutations"]]


def select(mutations: Sequence[Mutation], names: Sequence[str] | None) -> list[Mutation]:
    """Those of these names, all without any. Raises InputError for an unknown one."""
    unknown = sorted(set(names or ()) - {m.name for m in mutations})
    if unknown:
        raise InputError(f"--only {unknown[0]}: no such mutation; see {LIST.name}")
    return [m for m in mutations if names is None or m.name in names]


def stale(root: Path, mutations: Sequence[Mutation]) -> list[str]:
    """Names of the mutations whose text does not occur exactly once below `root`."""
    return [m.name for m in mutations if (root / m.file).read_text().count(m.old) != 1]


def survey(root: Path, mutations: Sequence[Mutation], console: Console) -> int:
    """Try the mutations on a copy of the tree at `root` and print the table; 1 if one was not killed, else 0."""
    if rotten := stale(root, mutations):
        raise InputError(f"{rotten[0]}: its text does not occur exactly once; bring {LIST.name} up to date")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutate_") as folder:
        copy = Path(folder) / "tree"
        for name in COPIED:
            _copy(root / name, copy / name)
        selections = list(dict.fromkeys(m.tests for m in mutations))
        seconds: dict[tuple[str, ...], float] = {}
        for number, tests in enumerate(selections, start=1):
            untouched = attempt(copy, tests, TIMEOUT_S, writes_bytecode=True)
            if untouched.verdict != "survived":
                reason = untouched.noticed_by or "nothing ran"
                raise InputError(f"{' '.join(tests)}: does not pass without a mutation ({reason}); mend it first")
            seconds[tests] = untouched.seconds
            if number % 10 == 0:
                console.print(f"{number}/{len(selections)} selections pass without a mutation", highlight=False)
        console.print(f"{len(selections)} selections pass without a mutation, {time.monotonic() - started:.0f} s")
        outcomes = []
        for m in mutations:
            outcomes.append(mutated(copy, m, 60 + LONGER * seconds[m.tests]))
            style = STYLE[outcomes[-1].verdict]
            console.print(f"{len(outcomes)}/{len(mutations)} {m.name}: [{style}]{outcomes[-1].verdict}", highlight=False)
    table = Table("mutation", "file", "verdict", Column("noticed by", overflow="fold"), "s")
    for m, outcome in zip(mutations, outcomes):
        verdict = f"[{STYLE[outcome.verdict]}]{outcome.verdict}"
        table.add_row(m.name, m.file, verdict, escape(outcome.noticed_by.rpartition("::")[2]), f"{outcome.seconds:.1f}")
    console.print(table)
    verdicts = [outcome.verdict for outcome in outcomes]
    counted = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in STYLE)
    console.print(f"{len(mutations)} mutations: {counted}; {time.monotonic() - started:.0f} s")
    return int(verdicts.count("killed") < len(verdicts))


def mutated(copy: Path, m: Mutation, timeout_s: float) -> Outcome:
    """What the tests of `m` say of the copy with its mutation alone."""
    file = copy / m.file
    text = file.read_text()
    # bytecode is compared by whole seconds and size, which a mutation may share with the original
    Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
    file.write_text(text.replace(m.old, m.new))
    try:
        return attempt(copy, m.tests, timeout_s)
    finally:
        file.write_text(text)


def attempt(copy: Path, tests: Sequence[str], timeout_s: float, writes_bytecode: bool = False) -> Outcome:
    """Run `tests` in the tree at `copy` until the first one fails, in a fork of this process."""
    started = time.monotonic()
    fork = multiprocessing.get_context("fork")
    receiving, sending = fork.Pipe(duplex=False)
    process = fork.Process(target=_run_tests, args=(copy, tests, writes_bytecode, sending))
    process.start()
    sending.close()
    code, noticed_by = None, "it died without a word"
    with suppress(EOFError):
        if receiving.poll(timeout_s):
            code, noticed_by = receiving.recv()
        else:
            noticed_by = f"no end within {timeout_s:.0f} s"
    process.kill()
    process.join()
    verdict = {pytest.ExitCode.OK: "survived", pytest.ExitCode.TESTS_FAILED: "killed"}.get(code, "broken")
    return Outcome(verdict, noticed_by, time.monotonic() - started)


class _FirstFailure:
    """A plugin of pytest that remembers what failed first."""

    name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.name:
            self.name = f"{report.nodeid} cannot be collected"


def _run_tests(copy: Path, tests: Sequence[str], writes_bytecode: bool, sending: Connection) -> None:
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)
    sys.dont_write_bytecode = not writes_bytecode
    os.environ.update({} if writes_bytecode else {"PYTHONDONTWRITEBYTECODE": "1"})
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        del sys.modules[name]
    sys.path.insert(0, str(copy))
    importlib.invalidate_caches()
    first = _FirstFailure()
    code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(copy), *tests], plugins=[first])
    sending.send((code, first.name))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    elif source.is_file():
        shutil.copy(source, target)


if __name__ == "__main__":
    run(main)
