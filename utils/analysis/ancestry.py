"""What mechanisms did to the first images of a run, as tables: who gave which channel to whom."""

from utils.analysis.columns import Column, Table
from utils.analysis.runs import Run
from utils.mechanisms import registry


def ancestry(run: Run, count: int) -> list[Table]:
    """Of the first `count` images; empty where nothing happened that is told as a table."""
    images = run.metrics.metadata.image_ids[:count]
    return [
        Table(f"{title}: {run.name}", [Column(head, head) for head in heads], rows, (note,))
        for plan, block in registry.blocks_of(run.metrics)
        if block is not None
        for title, heads, rows, note in plan.tables(block, images)
    ]
