"""Tissues laid from the packaged atlas on a T1w, and from a T1w on the atlas."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from asl_bids_app.atlas import Atlas
from asl_bids_app.preprocess.geometry import resample, voxel_sizes


def resample_atlas(
    atlas: Atlas, matrix: np.ndarray, shape: tuple[int, ...], grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Lay the atlas's tissues (3, X, Y, Z) and brain on a grid of the T1w."""
    to_atlas = np.linalg.inv(matrix)

    def resample_image(image: np.ndarray) -> np.ndarray:
        return np.nan_to_num(
            resample(image.astype(np.float32), atlas.affine, to_atlas, shape, grid, order=1)
        )

    return np.stack([resample_image(m) for m in (atlas.gm, atlas.wm, atlas.csf)]), resample_image(
        atlas.brain
    )


def prior_by_field(
    atlas: Atlas, back: np.ndarray, matrix: np.ndarray, shape: tuple[int, ...], grid: np.ndarray
) -> np.ndarray:
    """Lay the atlas's tissues on a grid of the T1w by affine and field: first on its own grid."""
    own = np.stack(
        [warped(m[None], back, atlas.affine)[0] for m in (atlas.gm, atlas.wm, atlas.csf)]
    )
    to_atlas = np.linalg.inv(matrix)
    return np.stack(
        [np.nan_to_num(resample(m, atlas.affine, to_atlas, shape, grid, order=1)) for m in own]
    )


def warped(maps: np.ndarray, displacement: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Read maps (C, X, Y, Z) at the voxels of their grid moved by a field in mm."""
    inverse = np.linalg.inv(affine[:3, :3])
    index = np.stack(np.meshgrid(*map(np.arange, maps.shape[1:]), indexing="ij"))
    place = index + np.einsum("ij,xyzj->ixyz", inverse, displacement)
    return np.stack(
        [ndimage.map_coordinates(m, place, order=1, mode="nearest") for m in maps]
    ).astype(np.float32)


def blurred(prior: np.ndarray, grid: np.ndarray, sigma_mm: float) -> np.ndarray:
    """Smooth tissue maps (C, X, Y, Z) by a Gaussian of a width in mm."""
    sigma = sigma_mm / voxel_sizes(grid)
    return np.stack([ndimage.gaussian_filter(p, sigma, truncate=2.5) for p in prior])


def to_template(found: Any, grid: np.ndarray, matrix: np.ndarray, atlas: Atlas) -> np.ndarray:
    """Lay a head's tissues on the template's grid by the affine, averaged over its voxels."""
    sigma = 0.4 * np.maximum(voxel_sizes(atlas.affine) - 0.8 * voxel_sizes(grid), 0)
    maps = []
    for m in (found.gm, found.wm, found.csf):
        smooth = ndimage.gaussian_filter(m, sigma / voxel_sizes(grid), truncate=2.5)
        laid = resample(smooth, grid, matrix, atlas.gm.shape, atlas.affine, order=1)
        maps.append(np.nan_to_num(laid))
    return np.stack(maps)
