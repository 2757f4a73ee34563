"""Trivial reconstructions: what a measurement gives without a prior, the floor that a method has to beat."""

import torch
import torch.nn.functional as F

from operators.base import Operator
from operators.blur import Blur
from operators.hdr import HighDynamicRange
from operators.inpainting import Inpainting
from operators.super_resolution import SuperResolution
from utils.errors import InputError


def trivial_reconstructions(operator: Operator, y: torch.Tensor, mean_image: torch.Tensor) -> dict[str, torch.Tensor]:
    """{name: (N, 3, H, W)} of measurements y (N, ...), images in [-1, 1] up to noise; the mean image is among them.

    Super resolution: y enlarged. Inpainting: y where it was measured, the mean image elsewhere. Blur: y itself. High
    dynamic range: y, and y with its brightness put right. Other operators have none: InputError.

    mean_image: (3, H, W), of images that are not being reconstructed
    """
    mean = mean_image.expand(len(y), *mean_image.shape)
    reconstructions = {"mean image": mean}
    if isinstance(operator, SuperResolution):
        reconstructions |= {
            f"{mode} enlargement": F.interpolate(y, mean.shape[-2:], mode=mode) for mode in ("nearest", "bicubic")
        }
    elif isinstance(operator, Inpainting):
        reconstructions["filled with the mean image"] = y * operator.mask + mean * (1 - operator.mask)
    elif isinstance(operator, Blur):
        reconstructions["measurement"] = y
    elif isinstance(operator, HighDynamicRange):
        reconstructions |= {"measurement": y, "measurement / scale": y.clip(-1, 1) / operator.scale}
    else:
        raise InputError(
            f"{type(operator).__name__}: has no trivial reconstruction; choose a run of super resolution, "
            "inpainting, blur or high dynamic range"
        )
    return reconstructions
