"""The metrics that every run has, in the order in which they stand in records and tables.

A new one is a file beside this one and its class in ORDER. One of your own needs neither: the key `metrics` of the config
names its class (docs/extending.md), and what reads a run learns from its files how to show it.
"""

from typing import Any

from utils.metrics.base import Described, Metric, described
from utils.metrics.gradient_error import GradientError
from utils.metrics.loss import Loss
from utils.metrics.lpips import Lpips
from utils.metrics.lpips_alex import LpipsAlex
from utils.metrics.psnr import Psnr
from utils.metrics.r_factor import Exposure, RFactor
from utils.metrics.shifted_psnr import ShiftedPsnr
from utils.metrics.ssim import Ssim

ORDER: tuple[type[Metric], ...] = (Psnr, Ssim, Lpips, LpipsAlex, GradientError, Loss, RFactor, Exposure)
ON_REQUEST: tuple[type[Metric], ...] = (ShiftedPsnr,)  # ours as well, where the key `metrics` names them

SCORES = tuple(metric for metric in ORDER if not metric.beside_loss)  # in the records' block `scores`
BESIDE_LOSS = tuple(metric for metric in ORDER if metric.beside_loss)
COMPARED = tuple(metric for metric in SCORES if metric.compared)  # of their numbers tables and CSV are made


def computed() -> list[Metric]:
    """All that are to be computed of particles, with what they need; the loss comes from the sampler."""
    return [metric() for metric in ORDER if metric is not Loss]


def of_ones_own(about: dict[str, dict[str, Any]]) -> list[Described]:
    """Those that the block `metrics` of a record or of metrics.json describes."""
    return [described(name, each) for name, each in about.items()]
