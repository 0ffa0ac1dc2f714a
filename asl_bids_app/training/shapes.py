"""Irregular blobs for lesions, and where to put them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from asl_bids_app.training.draws import log_uniform, smooth_field, spread, uniform


def random_centre(weight: Tensor, generator: Generator) -> Tensor:
    """Draw a pixel for each map of weights (n, H, W); row and column, (n, 2)."""
    flat = weight.flatten(1)
    # Where nothing is eligible any pixel may be hit; the lesion then lies outside the brain.
    flat = flat + (flat.sum(1, keepdim=True) <= 0)
    hit = torch.multinomial(flat, 1, generator=generator)[:, 0]
    return torch.stack([hit // weight.shape[-1], hit % weight.shape[-1]], 1)


@dataclass(frozen=True)
class Blob:
    """Irregular ellipses as distance from their middle.

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
    generator: Generator,
) -> Blob:
    """Form irregular ellipses, one in a sample.

    Parameters
    ----------
    centre : Tensor of int, shape (n, 2)
        Row and column.
    radius : Tensor, shape (n, 2)
        Along height and width, pixels.
    size
        Height and width of the maps.
    edge
        Range of the edge's width in pixels.
    roughness
        Range of how far the outline departs from an ellipse, part of the radius.
    """
    n = len(centre)
    pixel = torch.arange(size, device=centre.device, dtype=torch.float32)
    within = uniform(generator, (n, 2), (-0.5, 0.5))
    mean_radius = radius.mean(1)
    y = (pixel[None, :, None] - spread(centre[:, 0] + within[:, 0], 2)) / spread(radius[:, 0], 2)
    x = (pixel[None, None, :] - spread(centre[:, 1] + within[:, 1], 2)) / spread(radius[:, 1], 2)
    angle = spread(uniform(generator, (n,), (0.0, torch.pi)), 2)
    stretch = spread(log_uniform(generator, (n,), (0.75, 1.35)), 2)
    along, across = y * angle.cos() + x * angle.sin(), x * angle.cos() - y * angle.sin()
    level = ((along * stretch) ** 2 + (across / stretch) ** 2).sqrt()
    lumps = smooth_field(generator, 1, size, (0.45 * mean_radius).clamp(min=1.5), nodes=40)[:, 0]
    level = level + spread(uniform(generator, (n,), roughness), 2) * lumps
    width = spread(log_uniform(generator, (n,), edge) / mean_radius, 2)
    return Blob(level, width)
