"""Arteries in phantoms: trunks and branches as curves through the slices, and pial speckle.

A vessel is a smooth random curve. Each piece of it spreads its volume over the voxels around as
a Gaussian, so that the sum over all voxels is the vessel's volume whatever their size.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from asl_bids_app.training.config.phantom_config import PhantomConfig
from asl_bids_app.training.phantoms.head_anatomy import Anatomy
from asl_bids_app.training.random_draws import Stacks, chance, log_uniform, normal, spread, uniform
from asl_bids_app.training.random_fields import correlated

_VESSELS: Final = 6
"""Vessels of a phantom at most."""
_PIECES: Final = 48
"""Pieces of a vessel's curve."""
_HALF_BRAIN: Final = 75.0
"""Millimetres from the middle of a slice in which vessels begin and end."""


def _curves(count: int, size: int, stacks: Stacks, voxel: Tensor, spacing: Tensor) -> Tensor:
    """Draw curves (count, vessels, pieces, 3) in mm: rows, columns, through the slices.

    A straight line between two random points, bent by a random arc.
    """
    generator = stacks.generator
    shape = (count, _VESSELS, 1)
    reach = (0.42 * size * voxel).clamp(max=_HALF_BRAIN)[:, None].expand(-1, _VESSELS, -1)
    depth = (spacing * (stacks.depth / 2 + 0.5))[:, None, None].expand(shape)
    extent = torch.cat([reach, depth], 2)

    def point() -> Tensor:
        drawn = torch.rand((count, _VESSELS, 3), generator=generator, device=generator.device)
        return (2 * drawn - 1) * extent

    start, end = point(), point()
    # Many vessels are short where they cross the stack, some run within it for long.
    long = torch.rand(shape, generator=generator, device=generator.device) ** 2
    end = start + (end - start) * (0.1 + 0.9 * long)
    length = (end - start).norm(dim=2, keepdim=True)
    bend = torch.randn((count, _VESSELS, 2, 3), generator=generator, device=generator.device)
    bend = bend * (0.15 * length)[:, :, None]
    along = torch.linspace(0, 1, _PIECES, device=generator.device)[:, None]
    arcs = torch.stack([torch.sin(math.pi * along), torch.sin(2 * math.pi * along)], 0)
    straight = start[:, :, None] + (end - start)[:, :, None] * along
    return straight + (bend[:, :, :, None] * arcs).sum(2)


def _weights(place: Tensor, centre: Tensor, width: Tensor, step: Tensor) -> Tensor:
    """Gaussian densities per mm of pieces (..., P) at places (..., X): (..., P, X)."""
    sigma = torch.maximum(width, 0.42 * step)[..., None]
    square = ((place[..., None, :] - centre[..., None]) / sigma).square()
    return torch.exp(-0.5 * square) / (sigma * math.sqrt(2 * math.pi))


def draw_arteries(
    config: PhantomConfig,
    anatomy: Anatomy,
    spacing: Tensor,
    att: Tensor,
    stacks: Stacks,
) -> tuple[Tensor, Tensor]:
    """Draw the arterial volume of slices, and when arteries fill.

    Parameters
    ----------
    config
        Chances and sizes.
    anatomy
        Of the slices.
    spacing : Tensor, shape (n,)
        Millimetres from slice to slice.
    att : Tensor, shape (n, H, W)
        Seconds; arteries fill before the tissue.
    stacks
        Source of random numbers.

    Returns
    -------
    volume : Tensor, shape (n, H, W)
        mL/mL, zero outside the brain.
    arrival : Tensor, shape (n, H, W)
        Seconds.
    """
    n, _, size, _ = anatomy.fractions.shape
    depth = stacks.depth
    count = n // depth
    generator = stacks.generator
    first = slice(None, None, depth)
    voxel, apart = anatomy.voxel[first], spacing[first]
    curves = _curves(count, size, stacks, voxel, apart)
    there = torch.rand((count, _VESSELS), generator=generator, device=att.device)
    on = chance(generator, (count,), config.artery_chance)
    busy = torch.rand(count, generator=generator, device=att.device)
    there = (there < busy[:, None]) & on[:, None]
    # Trunks are a few, branches many.
    radius = config.artery_radius[0] * (config.artery_radius[1] / config.artery_radius[0]) ** (
        torch.rand((count, _VESSELS), generator=generator, device=att.device) ** 1.3
    )
    filling = log_uniform(generator, (count,), config.artery_filling)[:, None]
    step = curves.diff(dim=2).norm(dim=3)
    step = torch.cat([step, step[:, :, -1:]], 2)
    piece = there[..., None] * filling[..., None] * math.pi * radius.square()[..., None] * step
    begin = uniform(generator, (count,), (0.2, 0.9))[:, None, None]
    slope = uniform(generator, (count,), (0.001, 0.006))[:, None, None]
    late = 0.15 * torch.rand((count, _VESSELS, 1), generator=generator, device=att.device)
    time = begin + late + slope * step.cumsum(2)

    pixel = torch.arange(size, device=att.device) - (size - 1) / 2
    level = torch.arange(depth, device=att.device) - (depth - 1) / 2
    flat = curves.flatten(1, 2)
    wide = radius[:, :, None].expand(-1, -1, _PIECES).flatten(1)
    rows = _weights(pixel * voxel[:, :1], flat[..., 0], wide, voxel[:, :1])
    columns = _weights(pixel * voxel[:, 1:], flat[..., 1], wide, voxel[:, 1:])
    through = _weights(level * apart[:, None], flat[..., 2], wide, apart[:, None])
    amount = piece.flatten(1)[..., None] * through
    # (count, slices, pieces) times (pieces, rows) and (pieces, columns).
    laid = (amount.mT[..., None] * rows[:, None]).mT @ columns[:, None]
    timed = amount * time.flatten(1)[..., None]
    arrived = (timed.mT[..., None] * rows[:, None]).mT @ columns[:, None]
    volume, arrived = laid.flatten(0, 1), arrived.flatten(0, 1)
    arrival = arrived / volume.clamp(min=1e-9)

    fluid = anatomy.fractions[:, 2] * anatomy.fractions[:, 0]
    share = chance(stacks, (n,), config.speckle_chance) * uniform(stacks, (n,), (0.02, 0.4))
    struck = torch.rand(att.shape, generator=generator, device=att.device) < spread(share, 2)
    grain = -torch.rand(att.shape, generator=generator, device=att.device).clamp(min=1e-6).log()
    speckle = (
        struck * (fluid > 0.02) * grain * spread(log_uniform(stacks, (n,), (0.002, 0.015)), 2)
    )
    blurred = correlated(stacks, 1, size, size, uniform(stacks, (n,), (0.3, 1.0)))[:, 0]
    before = spread(uniform(stacks, (n,), (0.1, 0.5)), 2) + 0.05 * blurred
    arrival = torch.where(speckle > volume, att - before, arrival)
    volume = (volume + speckle).clamp(max=config.artery_volume)
    brain = anatomy.fractions.sum(1) > 0.5
    margin = 0.05 + 0.1 * normal(stacks, (n, 1, 1)).abs()
    arrival = torch.minimum(arrival, att - margin).clamp(min=0.15)
    return volume * brain, arrival * brain
