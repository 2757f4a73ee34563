"""The results of an image as floating-point arrays, where `save_arrays` asks for them: utils/records/arrays.py writes them."""

from typing import Any

import numpy as np

from operators.base import Operator
from utils.evaluation.aligned import summarise, symmetry
from utils.metrics.pixels import to_unit
from utils.sampling.outcome import SampleResult
from utils.sampling.pictures import enlarged


def results_of(
    record: dict[str, Any], result: SampleResult, operator: Operator, side: int, channels: int
) -> dict[str, np.ndarray]:
    """{"pick", "mean", "std"} of an image's record and its batch's result, each (channels, side, side), 0 black and 1 white.

    The pick alone where no particles agree; nothing where all diverged.
    """
    picked = record["selection"]["picked"]
    if picked is None:
        return {}
    lost = {number for number, gone in zip(record["particles"], record["diverged"]) if gone}
    rows = result.particles.of_image(record["image_id"]).tolist()
    numbers = {n: row for row, n in zip(rows, result.particles.index[rows].tolist()) if n not in lost}
    x = enlarged(result.image[list(numbers.values())].float().cpu(), side)
    unit = to_unit(operator.visible(x))[:, :channels]  # grey stands in all channels alike
    at = list(numbers).index(record["particles"][picked])
    summary = summarise(unit, at, symmetry(operator))
    if summary.std is None:
        return {"pick": unit[at].numpy()}
    return {"pick": unit[at].numpy(), "mean": summary.mean.numpy(), "std": summary.std.numpy()}
