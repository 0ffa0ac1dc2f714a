"""Irregular blobs for lesions, and where to put them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from asl_bids_app.training.random_draws import Random, as_stacks, log_uniform, spread, uniform
from asl_bids_app.training.random_fields import smooth_field


def random_centre(weight: Tensor, random: Random) -> Tensor:
    """Draw a voxel for each stack by maps of weights (n, H, W).

    Returns
    -------
    Tensor of int, shape (n, 3)
        Slice in the stack, row and column; the same for all slices of a stack.
    """
    stacks = as_stacks(random)
    # Where nothing is eligible any voxel may be hit; the lesion then lies outside the brain.
    flat = weight.reshape(len(weight) // stacks.depth, -1)
    flat = flat + (flat.sum(1, keepdim=True) <= 0)
    hit = torch.multinomial(flat, 1, generator=stacks.generator)[:, 0]
    height, width = weight.shape[1:]
    place = [hit // (height * width), hit // width % height, hit % width]
    return torch.stack(place, 1).repeat_interleave(stacks.depth, 0)


@dataclass(frozen=True)
class Blob:
    """Irregular ellipsoids as distance from their middle.

    Attributes
    ----------
    level : Tensor, shape (n, H, W)
        Distance in units of the radius: 1 on the outline.
    edge : Tensor, shape (n, 1, 1)
        Width of the edge in the same units.
    """

    level: Tensor
    edge: Tensor

    def profile(self, radius: Tensor | float = 1.0) -> Tensor:
        """Weight 1 inside a fraction of the radius, 0 outside, (n, H, W)."""
        r = spread(torch.as_tensor(radius, device=self.level.device).expand(len(self.level)), 2)
        return torch.sigmoid((r - self.level) / self.edge)


def draw_blobs(
    centre: Tensor,
    radius: Tensor,
    size: int,
    edge: tuple[float, float],
    roughness: tuple[float, float],
    random: Random,
) -> Blob:
    """Form irregular ellipsoids, one in a stack.

    Parameters
    ----------
    centre : Tensor of int, shape (n, 3)
        Slice in the stack, row and column.
    radius : Tensor, shape (n, 2)
        Along height and width, pixels; that through the slices is their mean in mm.
    size
        Height and width of the maps.
    edge
        Range of the edge's width in pixels.
    roughness
        Range of how far the outline departs from an ellipse, part of the radius.
    """
    n = len(centre)
    pixel = torch.arange(size, device=centre.device, dtype=torch.float32)
    within = uniform(random, (n, 3), (-0.5, 0.5))
    mean_radius = radius.mean(1)
    middle = centre + within
    y = (pixel[None, :, None] - spread(middle[:, 1], 2)) / spread(radius[:, 0], 2)
    x = (pixel[None, None, :] - spread(middle[:, 2], 2)) / spread(radius[:, 1], 2)
    stacks = as_stacks(random)
    # A stack of one slice cuts every lesion through its middle.
    apart = stacks.level(n) - middle[:, 0] if stacks.depth > 1 else torch.zeros_like(mean_radius)
    z = spread(apart * (stacks.gaps(n, size) / radius).mean(1), 2)
    angle = spread(uniform(random, (n,), (0.0, torch.pi)), 2)
    stretch = spread(log_uniform(random, (n,), (0.75, 1.35)), 2)
    along, across = y * angle.cos() + x * angle.sin(), x * angle.cos() - y * angle.sin()
    level = ((along * stretch) ** 2 + (across / stretch) ** 2 + z**2).sqrt()
    lumps = smooth_field(random, 1, size, (0.45 * mean_radius).clamp(min=1.5), nodes=40)[:, 0]
    level = level + spread(uniform(random, (n,), roughness), 2) * lumps
    width = spread(log_uniform(random, (n,), edge) / mean_radius, 2)
    return Blob(level, width)
