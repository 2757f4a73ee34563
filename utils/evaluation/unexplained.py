"""What a loss may have above the noise floor, and an R-factor above 0, although nothing is wrong."""

from typing import Any

import torch

from operators.base import Operator
from utils.metrics.r_factor import best_factor, r_factor
from utils.noise import KeyedNoise

SOFTER = 0.1  # of the way to the mean of a pixel's neighbourhood


def decoder_floor(operator: Operator, x: torch.Tensor, y: torch.Tensor, energy: float) -> float:
    """By how much the loss of y (1, ...) rises where the decoder leaves `energy` of squared residuals (records.decoder_floor).

    The data term weighs a residual, and a mask hides some of it: by as much as they do to the change that softening the
    image x (1, 3, H, W) in [-1, 1] makes, since what a decoder lacks is detail. The loss is taken as quadratic.
    """
    change = SOFTER * (torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False) - x)
    plain, unmasked = getattr(operator, "operator", operator), operator(x)
    changed = (operator.loss(x + change, y) + operator.loss(x - change, y)).item() / 2
    rise = max(changed - operator.loss(x, y).item(), 0.0)
    whole = plain.loss(x + change, unmasked).item()
    return energy * rise / whole if whole else 0.0


def of_measurement(operator: Operator, x: torch.Tensor, y: torch.Tensor, noise: KeyedNoise, image: int) -> dict[str, Any]:
    """What a measurement's report says of the pick x (1, 3, H, W) and y (1, ...) in place of a comparison with a truth.

    r_factor_noise: the R-factor if x were the object, of a measurement drawn anew; scale: the factor by which the calculated
    values fit the measured ones best, 1 where gain and exposure are right. Noise is that of the exposure that was fitted.
    """
    measured = ~torch.isnan(y)
    calculated, again = operator.repeated(x, y, noise.measurement(image, tuple(y.shape)).to(y.device))
    of_noise = r_factor(calculated, torch.where(measured, again, torch.nan)).item()
    return {"r_factor_noise": of_noise, "scale": best_factor(operator(x), y).item()}
