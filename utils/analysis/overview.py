"""Finished runs in a minute: one table, one sentence, and what differs between their settings."""

import io
import textwrap
from collections.abc import Sequence

from utils.analysis.columns import Column, Table
from utils.analysis.experiments import Experiment, folded
from utils.analysis.stats import FEW_IMAGES
from utils.analysis.tables import Row, cells, few_images, flatten, lookup
from utils.errors import visible

WIDTH = 100  # characters of a terminal
PLACES = ("name", "save_dir", "shard", "gpu", "resume")  # of a config: where a run lies, not what it is
MOST = 5  # settings told of an experiment
BEST = ("psnr_aligned.best", "psnr.best")  # the better orientation where the task has two

COLUMNS = [
    Column("experiment", "experiment"),
    Column("images", "images"),
    Column("success", "success", "max"),
    Column("pick_psnr", "pick (dB)", "max", 1),
    Column("best", "best (dB)", "max", 1),
    Column("loss.pick", "loss / floor", None, 3),  # only where no truth tells more
    Column("failed", "failed particles", "min"),
    Column("cost.passes", "passes", "min", 0),
    Column("cost.seconds", "seconds", "min", 1),
]


def overview(rows: Sequence[Row]) -> Table:
    """At most eight columns, of what the rows of utils.analysis.comparison hold."""
    rows = [{**row, "best": next(filter(None, (lookup(row, key) for key in BEST)), None)} for row in rows]
    without_truth = all(row["pick_psnr"] is None for row in rows)
    chosen = [
        column
        for column in COLUMNS
        if (column.key != "loss.pick" or without_truth) and any(lookup(row, column.key) is not None for row in rows)
    ]
    values = [[_short(few_images(lookup(row, column.key), row["images"])) for column in chosen] for row in rows]
    return Table("Overview", chosen, values)


def _short(value: object) -> object:
    """A rate with an interval goes without its count."""
    return {**value, "count": None} if isinstance(value, dict) and value.get("low") is not None else value


def terminal(table: Table, settings: Sequence[tuple[str, str]], heading: str) -> str:
    """The table, and below it what differs between the settings, as wide as WIDTH; long names are folded."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for column in table.columns:
        words = column.head.replace(" ", "\n") if column.key == "failed" else column.head
        shown.add_column(words, justify="left" if column.key == "experiment" else "right", overflow="fold")
    for label, *numbers in cells(table, str):
        shown.add_row(Text(folded(label, 22)), *map(Text, numbers))
    differences = RichTable.grid(padding=(0, 2, 0, 0))
    for label, differing_settings in settings:
        differences.add_row(Text(folded(visible(label))), Text(visible(differing_settings)))
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, color_system=None, highlight=False, markup=False, emoji=False)
    console.print(shown)
    if settings:
        console.print(Text(f"\n{visible(heading)}"), differences)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def answer(rows: Sequence[Row]) -> str:
    """One sentence or two: which experiment is best for whom has no truth, and what it costs."""
    images = sorted({row["images"] for row in rows})
    counted = " to ".join(str(n) for n in dict.fromkeys((images[0], images[-1])))
    on = f"on {counted} image{'s' if images[-1] > 1 else ''}"
    scored = [row for row in rows if row["pick_psnr"]]
    if not scored:
        told = [f"{row['experiment']} {row['loss']['pick']['mean']:.3g}" for row in rows if row["loss"]["pick"]]
        losses = ", ".join(told) or "unknown"
        return f"{on.capitalize()}, without a truth, the loss of the label-free pick over its noise floor: {losses}."
    best = max(scored, key=lambda row: (lookup(row, "success.rate") or 0.0, row["pick_psnr"]["mean"]))
    success = "" if best["success"] is None else f"{100 * best['success']['rate']:.0f} % of the images solved and "
    text = f"{best['experiment']} has {success}{best['pick_psnr']['mean']:.1f} dB of the label-free pick{_price(best)}."
    text = f"Of {len(scored)} experiments {on}, {text}" if len(scored) > 1 else f"{on.capitalize()}, {text}"
    if len(scored) > 1:
        priced = [row for row in scored if row["cost"]]
        cheapest = min(priced, key=lambda row: row["cost"]["passes"], default=best)
        if cheapest is not best:
            text += f" The cheapest is {cheapest['experiment']}: {cheapest['pick_psnr']['mean']:.1f} dB{_price(cheapest)}."
    few = " So few images show examples and decide nothing." if images[0] < FEW_IMAGES else ""
    return text + few


def _price(row: Row) -> str:
    cost = row["cost"]
    return f", for {cost['passes']:.0f} decoder passes and {cost['seconds']:.1f} s an image" if cost else ""


def sampler(e: Experiment) -> str:
    """Annealing steps x steps and algorithm of a chain, and the name where the command gave one: `fast (25 x 5 hmc)`."""
    config, overrides = e.runs[0].config or {}, e.runs[0].metrics.metadata.overrides
    steps = lookup(config, "sampler.annealing_scheduler_config.num_steps")
    chain = dict(lookup(config, f"task.{config.get('task_group')}.mcmc_sampler_config") or {})
    chain |= {key: value for key, value in (lookup(config, "sampler.chain") or {}).items() if value is not None}
    values = f"{steps} x {chain['num_steps']} {chain.get('mc_algo', '')}".strip() if steps and "num_steps" in chain else ""
    name = next((o.removeprefix("sampler=") for o in reversed(overrides) if o.startswith("sampler=")), "")
    return f"{name} ({values})" if name and values else name or values or "unknown"


def differing(experiments: Sequence[Experiment], baseline: str) -> tuple[str, list[tuple[str, str]]]:
    """(heading, [(label, settings)]) of the measured experiments: the sampler where it differs, then what differs from the
    baseline's config. Empty of one experiment."""
    measured = [e for e in experiments if not e.derived]
    if len(measured) < 2:
        return "", []
    reference = next((e for e in measured if e.label == baseline), measured[0])
    samplers = [sampler(e) for e in measured]
    several = len(set(samplers)) > 1
    heading = f"Settings, as far as they differ from those of {reference.label}"
    heading += "; the samplers differ too, so that passes and seconds compare these as well:" if several else ":"
    before = _settings(reference, several)
    differences = []
    for e, name in zip(measured, samplers):
        settings = _settings(e, several)
        keys = [key for key in dict.fromkeys((*before, *settings)) if settings.get(key) != before.get(key)]
        shown = {key: textwrap.shorten(str(settings.get(key, "–")), 24, placeholder="…") for key in keys[:MOST]}
        parts = [f"sampler {name}"] * several + [f"{key}={value}" for key, value in shown.items()]
        parts += [f"and {len(keys) - MOST} more"] * (len(keys) > MOST)
        differences.append((e.label, ", ".join(parts) or ("the baseline" if e is reference else "the same")))
    return heading, differences


def _settings(e: Experiment, several: bool) -> dict[str, object]:
    """{dotted key: value} of what its run was, less places, notes, callbacks, groups of tasks that it does not use, and where
    there are several samplers, which are told apart by their names, the sampler."""
    config = e.runs[0].config or {}
    own_task = f"task.{config.get('task_group')}."
    left_out = ("callbacks.", "sampler.") if several else ("callbacks.",)
    return {
        key.removeprefix(own_task): value
        for key, value in flatten(config).items()
        if key not in PLACES
        and not key.endswith("source")
        and not key.startswith(left_out)
        and (key.startswith(own_task) or not key.startswith("task."))
    }
