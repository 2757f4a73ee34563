"""Who descends from whom, in the blocks of a record that tell of births, whichever mechanism bore them.

Such a block holds `parent`, {number of the newborn: number of its parent}, and `stay`, whether the parents went on beside them.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple


class Birth(NamedTuple):
    """Of one image by one mechanism."""

    parent: dict[str, int]
    stay: bool

    @property
    def gain(self) -> int:
        """By how many the image's particles became more."""
        return len(self.parent) - (0 if self.stay else len(set(self.parent.values())))


def births(blocks: Iterable[Any]) -> list[Birth]:
    """Of one image, from its blocks of a record or of metrics.json, one a mechanism; None where it did nothing."""
    telling = [block for block in blocks if isinstance(block, dict) and _are_numbers(block.get("parent"))]
    return [Birth(block["parent"], block.get("stay", True)) for block in telling]


def _are_numbers(parent: Any) -> bool:
    """A block of one's own may call anything so."""
    return isinstance(parent, dict) and all(isinstance(number, int) for number in parent.values())
