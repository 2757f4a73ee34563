"""Metrics of one's own, as users write them: two that keep the contract, and those that break it."""

import torch

from utils.metrics.base import Metric


class MeanError(Metric):
    """The mean absolute error in grey levels, times a factor."""

    title, unit, direction, digits = "mean error", "levels", "min", 1

    def __init__(self, factor=1.0):
        self.factor = factor

    def __call__(self, x, truth):
        return 127.5 * self.factor * (x.clip(-1, 1) - truth).abs().mean((1, 2, 3))


class Misfit(Metric):
    """The largest residual of the measured values."""

    of, direction = "measurement", "min"

    def __call__(self, x, y, operator):
        return (operator(x) - y).nan_to_num().abs().flatten(1).amax(1)


class Crashing(Metric):
    def __call__(self, x, truth):
        raise ValueError("no picture")


class OneForAll(Metric):
    def __call__(self, x, truth):
        return (x - truth).abs().mean()


class PerChannel(Metric):
    def __call__(self, x, truth):
        return (x - truth).abs().mean((2, 3))


class Words(Metric):
    def __call__(self, x, truth):
        return ["good"] * len(x)


class Infinite(Metric):
    def __call__(self, x, truth):
        return (x - truth).mean((1, 2, 3)) / torch.zeros(len(x))


class Nothing(Metric):
    def __call__(self, x, truth):
        return None


class Upwards(MeanError):
    direction = "up"


class NoMetric:
    pass
