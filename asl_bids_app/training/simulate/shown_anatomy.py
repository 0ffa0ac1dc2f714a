"""What a network is shown of the anatomy: M0 of any contrast, tissue maps of any quality."""

from __future__ import annotations

from typing import Final

import torch
from torch import Generator, Tensor
from torch.nn import functional

from asl_bids_app.training.config.domain_config import DomainConfig
from asl_bids_app.training.phantoms.layers import Layers
from asl_bids_app.training.random_draws import (
    Stacks,
    chance,
    choose,
    constants,
    log_uniform,
    normal,
    spread,
    uniform,
)
from asl_bids_app.training.random_fields import smooth_field

_CONTRASTS: Final = (
    (0.82, 0.70, 1.00),  # proton density
    (0.65, 0.85, 0.30),  # T1-weighted: short repetition time
    (0.80, 0.72, 1.60),  # T2-weighted: long echo time
    (0.80, 0.80, 0.90),  # hardly any
)
"""Intensities of grey matter, white matter and fluid in M0 images by kind."""
_HOW_OFTEN: Final = (0.55, 0.15, 0.15, 0.15)


def _blurred(maps: Tensor, sigma: Tensor) -> Tensor:
    """Blur maps (n, C, H, W) by Gaussians of sigma (n,) pixels, up to 2."""
    n, channels = maps.shape[:2]
    place = torch.arange(-4, 5, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-0.5 * (place / sigma.clamp(min=0.05)[:, None]).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = maps.reshape(1, n * channels, *maps.shape[2:])
    flat = functional.conv2d(flat, kernel[:, None, :, None], padding=(4, 0), groups=n * channels)
    flat = functional.conv2d(flat, kernel[:, None, None, :], padding=(0, 4), groups=n * channels)
    return flat.reshape(maps.shape)


def _shifted(maps: Tensor, shift: Tensor) -> Tensor:
    """Move maps (n, C, H, W) by pixels (n, 2), between the pixels linearly."""
    n, _, height, width = maps.shape
    theta = torch.zeros(n, 2, 3, device=maps.device, dtype=maps.dtype)
    theta[:, 0, 0] = theta[:, 1, 1] = 1
    theta[:, 0, 2] = 2 * shift[:, 1] / width
    theta[:, 1, 2] = 2 * shift[:, 0] / height
    grid = functional.affine_grid(theta, [n, 1, height, width], align_corners=False)
    return functional.grid_sample(maps, grid, align_corners=False)


def show_anatomy(layers: Layers, brain: Tensor, config: DomainConfig, stacks: Stacks) -> Tensor:
    """Draw what is shown of the anatomy of slices.

    Parameters
    ----------
    layers
        Tissue fractions of n slices.
    brain : Tensor of bool, shape (n, H, W)
    config
        How often M0 and tissue maps are there, and how wrong they are.
    stacks
        Which slices are neighbours: they share contrast and faults.

    Returns
    -------
    Tensor, shape (n, 3, H, W)
        `asl_bids_app.observation.Observation.anatomy`.
    """
    grey, white = layers.grey, layers.white
    n, height, width = grey.shape
    if config.m0_shown == 0 and config.tissue_shown == 0:
        return grey.new_zeros(n, 3, height, width)
    generator: Generator = stacks.generator
    size = max(height, width)
    fluid = (brain.to(grey) - grey - white).clamp(min=0)
    fractions = torch.stack([grey, white, fluid], 1)
    kind = choose(stacks, n, constants(_HOW_OFTEN, grey.device))
    level = constants(_CONTRASTS, grey.device)[kind]
    level = level * torch.exp(0.06 * normal(stacks, (n, 3)))
    m0 = (fractions * spread(level, 2)).sum(1, keepdim=True)
    m0 = _blurred(m0, uniform(stacks, (n,), (0.0, 0.8)))
    wide = uniform(stacks, (n,), (0.2, 0.6)) * size
    shading = smooth_field(stacks, 1, size, wide, nodes=8)[..., :height, :width]
    m0 = m0 * torch.exp(spread(uniform(stacks, (n,), (0.0, 0.35)), 3) * shading)
    noise = torch.randn(m0.shape, generator=generator, device=grey.device)
    m0 = m0 * (1 + noise * spread(log_uniform(stacks, (n,), (0.002, 0.05)), 3))
    m0 = m0.clamp(min=0.02) * spread(chance(stacks, (n,), config.m0_shown), 3)

    tissue = fractions[:, :2]
    sharp = chance(stacks, (n,), 0.3)
    blur = torch.where(sharp, 0.0, uniform(stacks, (n,), (0.0, 1.6)))
    far = torch.where(chance(stacks, (n,), config.tissue_wrong), 4.0, 0.45)
    shift = normal(stacks, (n, 2)) * far[:, None] * ~sharp[:, None]
    tissue = _shifted(_blurred(tissue, blur), shift)
    mirrored = chance(stacks, (n,), config.tissue_wrong)
    tissue = torch.where(spread(mirrored, 3), tissue.flip(-1), tissue)
    tissue = tissue * spread(chance(stacks, (n,), config.tissue_shown), 3)
    return torch.cat([m0, tissue], 1) * brain[:, None]
