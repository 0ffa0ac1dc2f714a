"""Where a scanner takes its samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from asl_bids_app.training.config.phantom_config import PhantomConfig
from asl_bids_app.training.random_draws import (
    Random,
    chance,
    log_uniform,
    uniform,
)


@dataclass(frozen=True)
class Sampling:
    """Where a scanner takes its samples, in mm.

    Attributes
    ----------
    voxel : Tensor, shape (n, 2)
        Pixel height and width.
    thickness, spacing : Tensor, shape (n,)
        Of a slice, and from one slice to the next.
    """

    voxel: Tensor
    thickness: Tensor
    spacing: Tensor

    def part(self, index: Tensor) -> Sampling:
        """Take some of the slices."""
        return Sampling(self.voxel[index], self.thickness[index], self.spacing[index])


def draw_sampling(config: PhantomConfig, n: int, random: Random) -> Sampling:
    """Draw voxels: their sizes, and how thick the slices are and how far apart."""
    voxel = _voxel_sizes(config, n, random)
    thickness = uniform(random, (n,), config.thickness)
    gap = chance(random, (n,), 0.5) * uniform(random, (n,), config.slice_gap)
    return Sampling(voxel, thickness, thickness.clamp(min=0.5) * (1 + gap))


def _voxel_sizes(config: PhantomConfig, n: int, generator: Random) -> Tensor:
    """Draw pixel heights and widths in mm, shape (n, 2): mostly common ones, all in range."""
    common = uniform(generator, (n,), (2.8, 4.2)).clamp(*config.voxel_size)
    size = torch.where(
        chance(generator, (n,), 0.7), common, log_uniform(generator, (n,), config.voxel_size)
    )
    ratio = log_uniform(generator, (n,), (1.1, 2.0))
    ratio = torch.where(chance(generator, (n,), 0.2), ratio, 1.0).sqrt()
    ratio = torch.where(chance(generator, (n,), 0.5), ratio, 1 / ratio)
    return torch.stack([size * ratio, size / ratio], 1).clamp(*config.voxel_size)
