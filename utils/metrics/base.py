"""What a metric is: one number of each particle, by the truth or by the measurement, and how it is shown.

Neither this module nor those beside it import torch before a metric is computed: tables are made without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from utils.errors import InputError

if TYPE_CHECKING:
    import torch

BETTER_ORIENTATION = "as found or turned by 180 degrees, whichever is nearer to the truth"  # in which scores are taken
ABOUT = ("title", "unit", "direction", "digits", "of")  # what files say of one's own


class Metric:
    """Subclass it, say what it is, and define __call__.

    of = "image":        __call__(x, truth), images (P, 3, H, W) and the truth (3, H, W), both in [-1, 1], float32 on the CPU;
                         x may leave that range a little. Where there is no truth it is not asked.
    of = "measurement":  __call__(x, y, operator), on the run's device; y (P, ...) is NaN where nothing was measured.
    It returns (P,) floating-point numbers, one of each particle alone.

    name: its key in records and metrics.json; one of your own gets that of the config
    title, unit: in eval.md and in tables; without a title it is the name
    direction: which end is good; digits: shown after the point
    """

    name: str = ""
    of: Literal["image", "measurement"] = "image"
    title: str = ""
    unit: str = ""
    direction: Literal["max", "min"] = "max"
    digits: int = 3

    # only ours say more:
    row: ClassVar[str | None] = None  # what it is called in eval.md instead of title and unit; "": it has no row there
    optional: ClassVar[bool] = False  # records of an older program lack it, or those made where its weights are absent
    compared: ClassVar[bool] = True  # whether experiments are compared by it
    beside_loss: ClassVar[str | None] = None  # its key in the block `loss` of metrics.json, where it has no block of its own
    tables: ClassVar[dict[str, tuple[tuple[str, str], ...]]] = {}  # {table: (which of its numbers, head) of each column}

    def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor | None:
        """None: it cannot be had of such images."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")

    def about(self) -> dict[str, Any]:
        """What tables need to know of one of your own: they are made where its class may not be."""
        return {key: getattr(self, key) for key in ABOUT}


Described = type[Metric] | Metric  # ours are known by their classes, one's own as `described` restores it


def described(name: str, about: dict[str, Any]) -> Metric:
    """A metric without its function, from what a file says of it."""
    metric = Metric()
    vars(metric).update({key: about[key] for key in ABOUT}, name=name)
    return metric


def table_key(metric: Described) -> str:
    """Where its numbers stand among those that tables, CSV and JSON show; one's own get in no other number's way."""
    return metric.name if isinstance(metric, type) else f"metrics.{metric.name}"


def heading(metric: Described) -> str:
    """Its title with its unit."""
    return f"{metric.title or metric.name}{f' ({metric.unit})' if metric.unit else ''}"


def row_name(metric: Described) -> str:
    """What it is called in eval.md; empty where it has no row there."""
    return heading(metric) if metric.row is None else metric.row


def numbers(metric: Metric, x: torch.Tensor, *given: Any) -> list[float] | None:
    """metric(x, *given), one number for each of x; None where it cannot be had. Raises InputError."""
    values = metric(x, *given)
    if values is not None and tuple(values.shape) != (len(x),):
        raise InputError(
            f"metrics.{metric.name}: gives {tuple(values.shape)} for {len(x)} images; return one number for each, (P,)"
        )
    return None if values is None else values.tolist()
