"""The parts that the networks share: a U-Net without statistics over the slice.

A norm that looks at the whole slice (group, instance, batch norm) divides its amplitude away,
and amplitude is CBF; it also makes a voxel's value depend on how far the crop reaches. The
norm here looks at the channels of one pixel only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvBlock(nn.Module):
    """3x3 convolution, per-pixel root-mean-square norm over the channels, SiLU.

    Parameters
    ----------
    in_channels, out_channels
        Numbers of channels.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the features (B, out_channels, H, W), zero where the mask (B, 1, H, W) is."""
        x = self.conv(x)
        scale = (x.square().mean(1, keepdim=True) + 1e-3).rsqrt()
        return functional.silu(x * (scale if mask is None else scale * mask))


class Level(nn.Module):
    """Two convolution blocks."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = ConvBlock(in_channels, out_channels)
        self.second = ConvBlock(out_channels, out_channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the features (B, out_channels, H, W)."""
        x = self.first(x, mask)
        return x + self.second(x, mask)


class Encoder(nn.Module):
    """The way down: features of every level, finest first."""

    def __init__(self, in_channels: int, features: Sequence[int]) -> None:
        super().__init__()
        sizes = [in_channels, *features]
        self.levels = nn.ModuleList(map(Level, sizes, sizes[1:]))

    def forward(self, x: Tensor, masks: Sequence[Tensor | None]) -> list[Tensor]:
        """Return one tensor a level, each half as wide as the one before."""
        found = []
        for index, (level, mask) in enumerate(zip(self.levels, masks, strict=True)):
            x = level(functional.avg_pool2d(x, 2) if index else x, mask)
            found.append(x)
        return found


class Decoder(nn.Module):
    """The way up: 1x1 convolution, nearest-neighbour doubling, addition of the skip."""

    def __init__(self, features: Sequence[int]) -> None:
        super().__init__()
        self.narrow = nn.ModuleList(
            nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(features)
        )
        self.levels = nn.ModuleList(Level(fine, fine) for fine in features[:-1])

    def forward(self, skips: Sequence[Tensor], masks: Sequence[Tensor | None]) -> Tensor:
        """Return the finest features (B, features[0], H, W)."""
        x = skips[-1]
        for index in reversed(range(len(self.levels))):
            x = functional.interpolate(self.narrow[index](x), scale_factor=2, mode="nearest")
            # A coarse pixel reaches out of the brain where only some of its fine ones are in it.
            mask = masks[index]
            x = x + skips[index] if mask is None else torch.addcmul(skips[index], x, mask)
            x = self.levels[index](x, mask)
        return x


def mask_pyramid(mask: Tensor, levels: int) -> list[Tensor]:
    """Halve a mask (B, 1, H, W) from level to level; a pixel counts if any of its four did."""
    masks = [mask]
    for _ in range(levels - 1):
        masks.append(functional.max_pool2d(masks[-1], 2))
    return masks


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Add zeros at the far ends of the last two axes up to a multiple."""
    height, width = x.shape[-2:]
    return functional.pad(x, (0, -width % multiple, 0, -height % multiple))


def zero_head(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Make a 1x1 convolution that starts at zero."""
    head = nn.Conv2d(in_channels, out_channels, 1)
    with torch.no_grad():
        head.weight.zero_()
        assert head.bias is not None
        head.bias.zero_()
    return head
