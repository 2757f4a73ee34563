"""Does the gradient of the loss arrive at the latent? Takes the overrides of posterior_sample.py, and samples nothing.

    python tools/check_gradients.py                                    # the configured operator and prior
    python tools/check_gradients.py task=hdr experiment=NAME           # and the mechanisms that are on
    python tools/check_gradients.py --config-dir my_parts/configs task=grayscale    # parts of one's own

A table of the stages from the loss to the latent: what goes in and out, and whether the gradient flows, is zero or non-finite,
or is cut, with the line of code that does it. Three columns of relative differences, where it flows: autograd against finite
differences; particle 0 when only particle 1 changes; two particles in one batch against the same two alone.
Exit status: 0; 1 if something is wrong; 2 for wrong input.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import hydra
from rich.console import Console
from rich.table import Table
from rich.text import Text

from utils.command_line import run, say, wrong_input_in_one_line
from utils.config.check import check
from utils.config.compose import call
from utils.paths import PROJECT
from utils.running.console import setup_logging

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from utils.diagnosis.gradient_check import Row


def show(rows: Sequence[Row]) -> None:
    """The table, and below it what is wrong."""
    from utils.diagnosis.gradient_check import BROKEN

    table = Table(title="the gradient, from the loss to the latent")
    for heading in ("stage", "in", "out", "gradient", "finite differences", "other particle", "batch"):
        table.add_column(heading, overflow="fold", justify="left")
    for row in rows:
        numbers = ("-" if value is None else f"{value:.1e}" for value in (row.slope, row.other, row.alone))
        cells = (f"{row.stage} ({row.part})", row.goes_in, row.comes_out, row.gradient, *numbers)
        table.add_row(*map(Text, cells), style="red" if row.findings else None)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    for row in rows:
        for kind, texts in ((row.gradient if row.gradient in BROKEN else "wrong", row.findings), ("note", row.notes)):
            for text in texts:
                say(f"{kind}: {row.stage} ({row.part}): {text}")


@hydra.main(version_base="1.3", config_path=str(PROJECT / "configs"), config_name="default")
def main(cfg: DictConfig) -> None:
    setup_logging()
    with wrong_input_in_one_line():
        settings = check(cfg)  # before torch
        from utils import device as devices
        from utils.diagnosis.gradient_check import check_gradients
        from utils.running.build import build

        with devices.out_of_memory_in_one_line():
            rows = list(check_gradients(build(settings, tried=False), settings))
    show(rows)
    sys.exit(any(row.findings for row in rows))


if __name__ == "__main__":
    run(lambda: call(main))
