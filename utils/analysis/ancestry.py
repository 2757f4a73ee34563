"""Who gave which channel to whom: the exchanges of a run with recombination, as a table."""

from utils.analysis.columns import Column, Table
from utils.analysis.runs import Run

NOTE = (
    "Every event in which a particle of these images changed; the particles that are not named stayed as they were. "
    "own: the particle's own channel, p1: that of particle 1, turned: by 180 degrees against what it was."
)


def ancestry(run: Run, count: int) -> Table | None:
    """One row per child among the first `count` images; None where nothing was exchanged."""
    found = run.metrics.recombination
    rows = []
    for image, events in zip(run.metrics.metadata.image_ids[:count], found.events[:count] if found else []):
        for event in events:
            for p in event.particles:
                if p.accepted:
                    channels = [channel(p.index, donor, turn) for donor, turn in zip(p.donors, p.turned, strict=True)]
                    rows.append([image, f"{event.timestep:.0f}", f"p{p.index}", *channels])
    if not rows:
        return None
    names = ("red", "green", "blue") if len(rows[0]) == 6 else [f"channel {c}" for c in range(len(rows[0]) - 3)]
    heads = [Column(name, name) for name in ("image", "t", "child", *names)]
    return Table(f"Ancestry: {run.name}", heads, rows, (NOTE,))


def channel(index: int, donor: int, turned: bool) -> str:
    """The cell of one channel of the particle `index`."""
    return ("own" if donor == index else f"p{donor}") + (" turned" if turned else "")
