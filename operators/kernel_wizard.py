"""The network of the nonlinear blur: an image and a blur code in, the blurred image out.

Layer names are those of the published weights (GOPRO_wVAE.pth). Source: Tran et al., "Explore image deblurring via
encoded blur kernel space" (CVPR 2021); VinAIResearch/blur-kernel-space-exploring, models/kernel_encoding and
models/backbones/unet_parts.py.
"""

from typing import Self

import torch
import torch.nn.functional as F
from torch import nn

CODE_CHANNELS = 512
REDUCTION = 128  # the blur code has one column per this many pixels: 256 pixels give 2 x 2


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class Level(nn.Module):
    """One level of the adapter's U-Net; the innermost one takes the code in.

    Both ways are 4 x 4 convolutions of stride 2, without a bias but for the way up of the outermost level.
    The original's activations work in place, so the skip connection carries the activated x, not x.
    """

    def __init__(self, outside: int, inside: int, submodule: Self | None, outermost: bool = False) -> None:
        super().__init__()
        self.outermost = outermost
        activation = [] if outermost else [nn.LeakyReLU(0.2)]
        self.down = nn.Sequential(*activation, nn.Conv2d(outside, inside, 4, 2, 1, bias=False))
        self.submodule = submodule
        self.up = nn.Sequential(
            nn.ReLU(),
            nn.ConvTranspose2d(2 * inside, outside, 4, 2, 1, bias=outermost),
            nn.Tanh() if outermost else nn.Identity(),
        )

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        inner = self.down(x)
        inner = torch.cat([inner, code], 1) if self.submodule is None else self.submodule(inner, code)
        return self.up(inner) if self.outermost else torch.cat([self.up(inner), F.leaky_relu(x, 0.2)], 1)


class Adapter(nn.Module):
    """Five levels between the image's features and the code."""

    def __init__(self, features: int) -> None:
        super().__init__()
        level = None
        for outside, inside in ((8, 8), (4, 8), (2, 4), (1, 2)):
            level = Level(features * outside, features * inside, level)
        self.model = Level(features, features, level, outermost=True)

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        return self.model(x, code)


class KernelWizard(nn.Module):
    """(P, 3, H, W) in [0, 1] and a code (P, 512, H / 128, W / 128) -> (P, 3, H, W).

    features: 64 in the published weights; front, back: numbers of residual blocks, 10 and 20.
    """

    def __init__(self, features: int = 64, front: int = 10, back: int = 20) -> None:
        super().__init__()
        slope = 0.1
        self.feature_extractor = nn.Sequential(
            nn.Conv2d(3, features, 3, 1, 1),
            nn.LeakyReLU(slope),
            nn.Conv2d(features, features, 3, 2, 1),
            nn.LeakyReLU(slope),
            nn.Conv2d(features, features, 3, 2, 1),
            nn.LeakyReLU(slope),
            *(ResidualBlock(features) for _ in range(front)),
        )
        self.adapter = Adapter(features)
        self.recon_trunk = nn.Sequential(
            *(ResidualBlock(features) for _ in range(back)),
            nn.Conv2d(features, 4 * features, 3, 1, 1),
            nn.PixelShuffle(2),
            nn.LeakyReLU(slope),
            nn.Conv2d(features, 256, 3, 1, 1),
            nn.PixelShuffle(2),
            nn.LeakyReLU(slope),
            nn.Conv2d(64, 64, 3, 1, 1),
            nn.LeakyReLU(slope),
            nn.Conv2d(64, 3, 3, 1, 1),
        )

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        return x + self.recon_trunk(self.adapter(self.feature_extractor(x), code))
