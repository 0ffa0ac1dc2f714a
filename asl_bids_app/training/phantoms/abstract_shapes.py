"""Slices of shapes that no brain has."""

from __future__ import annotations

import math

import torch

from asl_bids_app.training.config.phantom_config import PhantomConfig
from asl_bids_app.training.phantoms.head_anatomy import ABSTRACT, FINE, Anatomy, average_pixels
from asl_bids_app.training.phantoms.sampling import Sampling
from asl_bids_app.training.random_draws import (
    Stacks,
    chance,
    choose,
    log_uniform,
    spread,
    uniform,
)
from asl_bids_app.training.random_fields import mosaic_field, smooth_field


def abstract_slices(config: PhantomConfig, sampling: Sampling, generator: Stacks) -> Anatomy:
    """Draw slices of shapes that no brain has, so that a network can't learn one brain.

    An irregular outline is filled by smooth blobs, a mosaic or bands of the three tissues.
    """
    voxel, n, size = sampling.voxel, len(sampling.voxel), config.size
    fine = size * FINE
    axis = (torch.arange(fine, device=voxel.device) - (fine - 1) / 2) / (fine / 2)
    shift, radius = (
        uniform(generator, (n, 2), (-0.15, 0.15)),
        uniform(generator, (n, 2), (0.45, 0.95)),
    )
    y = (axis[None, :, None] - spread(shift[:, 0], 2)) / spread(radius[:, 0], 2)
    x = (axis[None, None, :] - spread(shift[:, 1], 2)) / spread(radius[:, 1], 2)
    power = spread(uniform(generator, (n,), (1.6, 4.0)), 2)
    lumps = smooth_field(generator, 1, fine, uniform(generator, (n,), (10.0, 30.0)))[:, 0]
    outline = (y.abs() ** power + x.abs() ** power) + 0.15 * lumps
    blur = spread(log_uniform(generator, (n,), (0.01, 0.1)), 2)
    brain = torch.sigmoid((1 - outline) / blur)

    scale = log_uniform(generator, (n,), (5.0, 24.0))
    blobs = smooth_field(generator, 2, fine, scale, nodes=32)
    mosaic = mosaic_field(generator, n, size, 24).repeat_interleave(FINE, 1)
    mosaic = mosaic.repeat_interleave(FINE, 2)
    angle, phase = uniform(generator, (n, 2), (0.0, 2 * math.pi)).unbind(1)
    rate = uniform(generator, (n,), (4.0, 14.0))
    # In the same units as y and x: half a slice.
    height = generator.height(n) * generator.gaps(n, size).mean(1) / (size / 2)
    oblique = spread(uniform(generator, (n,), (-1.0, 1.0)) * height, 2)
    along = spread(angle.cos(), 2) * y + spread(angle.sin(), 2) * x + oblique
    rings = torch.where(spread(chance(generator, (n,), 0.5), 2), (y**2 + x**2).sqrt(), along)
    bands = 1.4 * torch.sin(spread(rate, 2) * rings + spread(phase, 2))
    # Bands are kept for validation: the held-out family.
    families = [0.0, 0.0, 1.0] if config.held_out else [0.6, 0.4, 0.0]
    family = spread(choose(generator, n, families), 2)
    level = torch.where(family == 0, blobs[:, 0], torch.where(family == 1, mosaic, bands))
    grey = torch.sigmoid((level - spread(uniform(generator, (n,), (-0.6, 0.6)), 2)) / (3 * blur))
    threshold = spread(uniform(generator, (n,), (1.0, 2.2)), 2)
    fluid = torch.sigmoid((blobs[:, 1] - threshold) / (3 * blur))
    parts = torch.stack([grey * (1 - fluid), (1 - grey) * (1 - fluid), fluid], 1)
    fractions = average_pixels(parts * brain[:, None])
    # Territories need a place: that of an axial slice of a head of the same extent.
    level_mm = uniform(generator, (n,), (-20.0, 50.0)) + generator.height(n) * sampling.spacing
    place = torch.stack(torch.broadcast_tensors(70 * x, 90 * y - 18, spread(level_mm, 2)), 1)
    kind = torch.full((n,), ABSTRACT, dtype=torch.uint8, device=voxel.device)
    return Anatomy(fractions, average_pixels(place), voxel, kind)
