"""Kernels that come in several forms, and the forms that serve every device; utils/device.py chooses."""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F

Pair = tuple[int, int]  # of rows and columns
NOWHERE = (0.0, 0.0)


def spectrum_by_fft(x: torch.Tensor, field: Pair, offset: tuple[float, float] = NOWHERE) -> torch.Tensor:
    """|FFT| of the zero-padded x, centred and orthonormal: (P, C, H, W) -> (P, C, *field).

    offset: of rows and columns, in samples: the frequencies are k + offset in place of the whole k.
    """
    if any(offset):
        x = x * phase_ramp((x.shape[-2], x.shape[-1]), field, offset, x.device, x.dtype)
    above, left = ((f - side) // 2 for f, side in zip(field, x.shape[-2:]))
    padded = F.pad(x, (left, field[1] - x.shape[-1] - left, above, field[0] - x.shape[-2] - above))
    # centring the input would only change phases, which the magnitude does not see
    return torch.fft.fftshift(torch.fft.fft2(padded, norm="ortho").abs(), dim=(-2, -1))


@lru_cache(maxsize=16)
def phase_ramp(shape: Pair, field: Pair, offset: tuple[float, float], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """exp(-2 pi i s n / N), complex, of `shape`: the FFT of an image times this is its spectrum at the frequencies k + s.

    n: pixels from the first one; N: of `field`, rows and columns; s: offset. By the definition of the transform.
    """
    down, across = (torch.arange(side, dtype=torch.float64) * (s / samples) for side, samples, s in zip(shape, field, offset))
    turns = down[:, None] + across  # (H, W)
    return torch.polar(torch.ones_like(turns), -2 * math.pi * turns).to(dtype.to_complex()).to(device)


def spectrum_by_products(x: torch.Tensor, field: Pair, offset: tuple[float, float] = NOWHERE) -> torch.Tensor:
    """`spectrum_by_fft` as products with cosine and sine matrices, for devices without an FFT or complex numbers.

    Zeros need no product, so the matrices have a column for each pixel of x only. In float32 the largest amplitude
    of a 384 x 384 spectrum is off by 4e-7 of itself.
    """
    rows, columns = (
        fourier_matrices(side, length, s, x.device, x.dtype) for side, length, s in zip(x.shape[-2:], field, offset)
    )
    left = torch.cat(rows) @ x  # (P, C, 2 H', W): cosines above sines
    both = left @ torch.cat(columns).T  # (P, C, 2 H', 2 W')
    (cc, cs), (sc, ss) = (half.chunk(2, dim=-1) for half in both.chunk(2, dim=-2))  # (P, C, H', W') each
    # the square root has no gradient at 0; 1e-20 gives gradient 0 there and lies below float32 rounding elsewhere
    return ((cc - ss).square() + (cs + sc).square() + 1e-20).sqrt()


@lru_cache(maxsize=16)
def fourier_matrices(
    side: int, length: int, offset: float, device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, ...]:
    """Real and negated imaginary part of the orthonormal DFT of `side` pixels with zeros around them, `length` in all.

    Both (length, side); rows are frequencies from the lowest up, so that the spectrum is centred, and all `offset` higher.
    """
    frequency = torch.arange(length) - length // 2
    position = torch.arange(side) + (length - side) // 2
    turns = (frequency[:, None] * position % length).double() / length  # whole turns taken off in integers
    turns = turns + offset * position.double() / length
    matrices = (torch.cos(2 * math.pi * turns), torch.sin(2 * math.pi * turns))
    return tuple((m / math.sqrt(length)).to(dtype).to(device) for m in matrices)


class DoubleNearest(torch.autograd.Function):
    """Nearest-neighbour upsampling by two, (P, C, H, W) -> (P, C, 2 H, 2 W).

    The gradient adds the four copies in the order in which PyTorch's CPU kernel does, so both directions are its
    values bit for bit; XLA has no kernel for PyTorch's backward pass, but it has one for these additions.
    """

    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="nearest")

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, gradient: torch.Tensor) -> torch.Tensor:
        """(P, C, 2 H, 2 W) -> (P, C, H, W)."""
        top, bottom = gradient[..., ::2, :], gradient[..., 1::2, :]
        return top[..., ::2] + top[..., 1::2] + bottom[..., ::2] + bottom[..., 1::2]


class UpsampleByTwo(torch.nn.Module):
    """A diffusers Upsample2D with its convolution, on DoubleNearest."""

    def __init__(self, conv: torch.nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(
        self, hidden_states: torch.Tensor, output_size: tuple[int, int] | None = None, *args: object, **kwargs: object
    ) -> torch.Tensor:
        return self.conv(DoubleNearest.apply(hidden_states))


def replace_upsampling(decoder: torch.nn.Module) -> None:
    """Put UpsampleByTwo in the place of every Upsample2D of a diffusers decoder; parameter names stay."""
    from diffusers.models.upsampling import Upsample2D

    for parent in list(decoder.modules()):
        for name, module in parent.named_children():
            if isinstance(module, Upsample2D) and module.use_conv and module.conv is not None:
                setattr(parent, name, UpsampleByTwo(module.conv))
