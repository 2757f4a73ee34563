"""The jobs of a sweep (-m) that run in this process: their numbers, folders, errors, and one table at the end."""

import hashlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from hydra._internal.utils import get_args_parser  # as utils/config/overrides.py
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from utils.config.overrides import changes_results
from utils.errors import counted, one_line, short, visible
from utils.records.aggregate import finite
from utils.records.summary import aligned_columns, summary_table
from utils.running.console import log

MOST_NAME = 120  # characters of a folder's name that come from overrides


class Sweep:
    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = []
        self.refused = False  # whether a job has ended in a line of its own

    def job(self, cfg: DictConfig, run: Callable[[DictConfig, tuple[int, int] | None], dict[str, Any] | None]) -> None:
        """One job, from its first line to its row of the table. run(cfg, (number from 1, of how many)) gives its metrics."""
        keys, count = swept(sys.argv[1:])
        overrides, number = HydraConfig.get().overrides.task, HydraConfig.get().job.num + 1
        asked = [text for text in overrides if not keys or text.lstrip("+~").partition("=")[0] in keys]
        if not any(text.lstrip("+").startswith("name=") for text in overrides):
            cfg = with_own_name(cfg, asked)
        label = short(" ".join(asked))
        log.info("[%d%s] %s: %s", number, f"/{count}" if count else "", label, f"{cfg.save_dir}/{cfg.name}")
        row, how = ("-",) * 5, "interrupted"
        try:
            metrics = run(cfg, (number, count) if count else None)
            row, how = of_metrics(metrics) if metrics else row, "ok"
        except Exception as error:
            how = f"error: {one_line(error, 60)}"
            raise
        finally:
            self.rows.append((str(number), label, *row, how))

    def refuse(self, error: Exception) -> None:
        """Of a job that has said why: Hydra would print it again, so it is told only where it runs the job elsewhere."""
        self.refused = True
        if not swept(sys.argv[1:])[0]:
            raise error

    def close(self) -> None:
        """The table, of more than one job."""
        if len(self.rows) > 1:
            heads = ("job", "what it is", "images", "score", "best by the truth", "pick", "seconds", "end")
            print("\n".join(map(visible, aligned_columns([heads, *sorted(self.rows, key=lambda row: int(row[0]))]))))


def swept(arguments: Sequence[str]) -> tuple[list[str], int | None]:
    """(keys that have several values, number of jobs or None) of a command line; [] and None where that is not known."""
    keys, count = [], 1
    try:
        overrides = OverridesParser.create().parse_overrides(get_args_parser().parse_known_args(arguments)[0].overrides)
    except HydraException:
        return [], None
    for override in overrides:
        if override.is_sweep_override():
            keys.append(override.key_or_group)
            count *= 0 if override.value_type == ValueType.GLOB_CHOICE_SWEEP else len(list(override.sweep_iterator()))
    return keys, count if keys and count else None


def with_own_name(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The config with a name from those overrides that change results; others' jobs share one folder."""
    parts = [text.lstrip("+~").replace("=", "-", 1) for text in overrides if changes_results(text)]
    if not parts:
        return cfg
    text = re.sub(r"[^\w.,+-]+", "-", "_".join(parts)).strip("-")
    if len(text) > MOST_NAME:
        text = f"{text[:MOST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    cfg = cfg.copy()
    OmegaConf.update(cfg, "name", f"{cfg.name}_{text}")
    return cfg


def of_metrics(metrics: dict[str, Any]) -> tuple[str, ...]:
    """Images, the score, which is PSNR or without a truth the loss, its best and its pick, and seconds."""
    rows = {row[0]: row[1:] for row in summary_table(metrics)}
    score = next((name for name in ("PSNR, better orientation", "PSNR", "loss / noise floor") if name in rows), None)
    best, _, pick = rows[score] if score else ("-",) * 3
    n, modes = metrics["metadata"]["num_images"], metrics["modes"]
    images = f"{sum(modes['success'])} of {n}" if modes else counted(n, "image")
    return images, score or "-", best, pick, f"{sum(finite(metrics['time']['per_image_s'])):.0f}"
