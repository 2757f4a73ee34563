"""What mechanisms did to the first images of a run, as tables: who began where, and who gave which channel to whom."""

from utils.analysis.columns import Column, Table
from utils.analysis.runs import Run
from utils.mechanisms import registry


def ancestry(run: Run, count: int) -> list[Table]:
    """Of the first `count` images; empty where nothing happened that is told as a table. Coarser levels come last."""
    at_the_end = (("", plan, block) for plan, block in registry.blocks_of(run.metrics) if block is not None)
    tables = []
    for level, plan, block in (*at_the_end, *registry.blocks_of_levels(run.metrics)):
        for title, heads, rows, note in plan.tables(block, run.metrics.metadata.image_ids[:count]):
            place = f" at {level}" if level else ""
            tables.append(Table(f"{title}{place}: {run.name}", [Column(head, head) for head in heads], rows, (note,)))
    return tables
