"""Where the project lies, and paths that a config names."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def find(path: str | Path) -> Path:
    """A path from the config: as given from the working directory if it is there, else from the project folder."""
    path = Path(path).expanduser()
    return path if path.is_absolute() or path.exists() else PROJECT / path


def unused(path: Path) -> Path:
    """`path`, or with .1, .2, ... appended the first that does not exist."""
    number, place = 0, path
    while place.exists():
        number += 1
        place = path.with_name(f"{path.name}.{number}")
    return place
