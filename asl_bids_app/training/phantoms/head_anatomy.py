"""Where the tissues lie: random slices of a brain atlas, and abstract shapes.

A slice is tissue fractions (grey matter, white matter, CSF; the rest is not brain) on a
plane, the slices of a stack on parallel ones, together with the place of every pixel in the
atlas's millimetres, from which the vascular territories follow. Fractions are formed at twice
the resolution and averaged, so that edges show true partial volume.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from asl_bids_app.training.config.phantom_config import PhantomConfig
from asl_bids_app.training.phantoms.sampling import Sampling
from asl_bids_app.training.random_draws import (
    Random,
    Stacks,
    chance,
    choose,
    log_uniform,
    normal,
    spread,
    uniform,
)
from asl_bids_app.training.random_fields import smooth_field

MNI, ABSTRACT = 0, 1
"""Codes of the two kinds of anatomy."""

FINE = 2
"""Sub-pixels along an axis when tissue fractions are formed."""


@dataclass(frozen=True)
class Anatomy:
    """A batch of slices before physiology; those of a stack follow each other.

    Attributes
    ----------
    fractions : Tensor, shape (n, 3, H, W)
        Grey matter, white matter, CSF; their sum is below 1 at the brain's edge.
    place : Tensor, shape (n, 3, H, W)
        Millimetres in the atlas's space: right, anterior, superior positive.
    voxel : Tensor, shape (n, 2)
        Pixel height and width in mm.
    kind : Tensor of uint8, shape (n,)
        `MNI` or `ABSTRACT`.
    """

    fractions: Tensor
    place: Tensor
    voxel: Tensor
    kind: Tensor


@cache
def atlas_maps() -> tuple[Tensor, Tensor]:
    """Load the packaged tissue maps once a process.

    Returns
    -------
    maps : Tensor, shape (3, Z, Y, X)
        Probabilities of grey matter, white matter and CSF.
    scale : Tensor, shape (2, 3)
        Centre in mm and half extent in mm along x, y and z, as `grid_sample` counts them.
    """
    from asl_bids_app.atlas import load_atlas

    atlas = load_atlas()
    return _grid_maps(atlas.gm, atlas.wm, atlas.csf, atlas.affine)


def _grid_maps(
    gm: np.ndarray, wm: np.ndarray, csf: np.ndarray, affine: np.ndarray
) -> tuple[Tensor, Tensor]:
    steps = np.diag(affine)[:3]
    if not np.allclose(affine[:3, :3], np.diag(steps)):
        raise ValueError("the tissue atlas must lie along the axes of its space")
    brain = np.stack([gm, wm, csf]).astype(np.float32).clip(0, 1)
    brain /= np.maximum(brain.sum(0), 1.0)
    # (x, y, z) arrays; grid_sample wants x last.
    maps = np.ascontiguousarray(brain.transpose(0, 3, 2, 1))
    half = steps * (np.array(gm.shape) - 1) / 2
    centre = affine[:3, 3] + half
    return torch.from_numpy(maps), torch.tensor(np.stack([centre, half]), dtype=torch.float32)


def average_pixels(image: Tensor) -> Tensor:
    """Average the sub-pixels of each pixel (faster than a pooling layer)."""
    rows = image[..., ::FINE, :] + image[..., 1::FINE, :]
    return (rows[..., ::FINE] + rows[..., 1::FINE]) / FINE**2


def _rotation(angles: Tensor) -> Tensor:
    """Rotations about x, then y, then z by angles (n, 3) in radians."""
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(1), angles.sin().unbind(1)
    zero, one = torch.zeros_like(cx), torch.ones_like(cx)
    about_x = torch.stack([one, zero, zero, zero, cx, -sx, zero, sx, cx], 1)
    about_y = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], 1)
    about_z = torch.stack([cz, -sz, zero, sz, cz, zero, zero, zero, one], 1)
    matrices = [m.reshape(-1, 3, 3) for m in (about_x, about_y, about_z)]
    return matrices[2] @ matrices[1] @ matrices[0]


# Axes (rows, columns, through the plane) of axial, coronal and sagittal slices, and the span
# in mm through the plane within which a slice shows a good piece of brain.
_AXES = torch.tensor(
    [
        [[0.0, 1, 0], [1, 0, 0], [0, 0, 1]],
        [[0.0, 0, 1], [1, 0, 0], [0, 1, 0]],
        [[0.0, 0, 1], [0, 1, 0], [1, 0, 0]],
    ]
)
_SPAN = torch.tensor([[-42.0, 66.0], [-92.0, 52.0], [-58.0, 58.0]])
_MIDDLE = torch.tensor([0.0, -18.0, 10.0])


def plane_places(
    config: PhantomConfig, sampling: Sampling, size: int, generator: Stacks
) -> Tensor:
    """Lay random planes through the head; mm in atlas space at sub-pixels, (n, 3, H2, W2)."""
    voxel = sampling.voxel
    n = len(voxel)
    weights = [config.axial_weight, config.coronal_weight, config.sagittal_weight]
    view = choose(generator, n, weights).cpu()
    tilt = uniform(generator, (n, 3), config.tilt) * math.pi / 180
    tilt = torch.where(chance(generator, (n, 3), 0.5), tilt, -tilt)
    axes = _AXES[view].to(voxel) @ _rotation(tilt).mT
    span = _SPAN[view].to(voxel)
    through = span[:, 0] + (span[:, 1] - span[:, 0]) * uniform(generator, (n,), (0.0, 1.0))
    middle = _MIDDLE.to(voxel).expand(n, 3)
    normal_axis = axes[:, 2]
    base = _AXES[view].to(voxel)[:, 2]
    centre = middle * (1 - base) + through[:, None] * base
    slack = normal(generator, (n, 2)) * 6
    centre = centre + slack[:, :1] * axes[:, 0] + slack[:, 1:] * axes[:, 1]
    centre = centre + (generator.height(n) * sampling.spacing)[:, None] * normal_axis

    fine = size * FINE
    step = (torch.arange(fine, device=voxel.device) - (fine - 1) / 2) / FINE
    head = log_uniform(generator, (n, 3), (0.88, 1.14))
    rows = axes[:, 0, :, None, None] * spread(voxel[:, 0], 3) * step[None, None, :, None]
    columns = axes[:, 1, :, None, None] * spread(voxel[:, 1], 3) * step[None, None, None, :]
    place = spread(centre, 2) + rows + columns
    # The sub-pixels of a pixel lie at different depths: that averages over the thickness.
    depth = torch.tensor([[-3.0, 1.0], [3.0, -1.0]], device=voxel.device) / 8
    depth = depth.repeat(size, size)[None, None]
    place = place + spread(normal_axis, 2) * spread(sampling.thickness, 3) * depth
    return (place - spread(middle, 2)) / spread(head, 2) + spread(middle, 2)


def _warp(config: PhantomConfig, place: Tensor, voxel: Tensor, generator: Random) -> Tensor:
    """Displace places smoothly: shape of the head at large scale, of the folds at small."""
    n, fine = len(place), place.shape[-1]
    for sigma, amplitude, nodes in (
        ((18.0, 40.0), config.shape_warp, 16),
        ((5.0, 10.0), config.fold_warp, 40),
    ):
        pixels = log_uniform(generator, (n,), sigma)[:, None] / voxel * FINE
        field = smooth_field(generator, 3, fine, pixels, nodes)
        strength = uniform(generator, (n,), amplitude)
        if sigma[0] < 10:  # pixels larger than folds can't hold such a displacement
            strength = strength * (5.0 / voxel.amax(1)).clamp(max=1)
        place = place + spread(strength, 3) * field
    return place


def _grow_ventricles(place: Tensor, strength: Tensor) -> Tensor:
    """Pull places toward the lateral ventricles, which magnifies them by 1/(1 - strength)."""
    side = torch.where(place[:, 0] >= 0, 1.0, -1.0)
    x, y, z = place[:, 0] - 9 * side, place[:, 1] + 12, place[:, 2] - 18
    # The bodies of the ventricles are long from front to back.
    fall = torch.exp(-(x**2 / 14**2 + y**2 / 34**2 + z**2 / 18**2) / 2) * spread(strength, 2)
    return torch.stack([place[:, 0] - fall * x, place[:, 1], place[:, 2] - fall * z], 1)


def mni_slices(
    config: PhantomConfig, sampling: Sampling, atrophy: Tensor, generator: Stacks
) -> Anatomy:
    """Draw slices of the atlas.

    Parameters
    ----------
    config, sampling
        Settings; where the samples lie.
    atrophy : Tensor, shape (n,)
        0 for a young brain to 1: widens the ventricles and sulci.
    """
    voxel, n = sampling.voxel, len(sampling.voxel)
    place = plane_places(config, sampling, config.size, generator)
    place = _warp(config, place, voxel, generator)
    place = _grow_ventricles(place, 0.75 * atrophy)
    maps, scale = (t.to(place.device) for t in atlas_maps())
    grid = (place - scale[0, :, None, None]) / scale[1, :, None, None]
    flat = grid.permute(0, 2, 3, 1).reshape(1, n, -1, 1, 3)
    sampled = functional.grid_sample(
        maps[None], flat, mode="bilinear", padding_mode="zeros", align_corners=True
    )
    sampled = sampled.reshape(3, n, *place.shape[-2:]).transpose(0, 1)
    sampled = torch.cat([sampled, 1 - sampled.sum(1, keepdim=True)], 1).clamp(min=1e-4)
    # The atlas is a mean of many brains; a power sharpens it toward a single one.
    power = spread(log_uniform(generator, (n,), config.sharpness), 3)
    weight = sampled**power
    weight[:, 0] *= spread(torch.exp(-uniform(generator, (n,), config.cortex_thinning)), 2)
    weight[:, 2] *= spread(torch.exp(1.5 * atrophy + 0.2 * normal(generator, (n,))), 2)
    fractions = average_pixels(weight[:, :3] / weight.sum(1, keepdim=True))
    kind = torch.full((n,), MNI, dtype=torch.uint8, device=place.device)
    return Anatomy(fractions, average_pixels(place), voxel, kind)
