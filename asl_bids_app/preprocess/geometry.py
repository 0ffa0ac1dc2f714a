"""Rigid motions as matrices and parameters, and resampling that says where it had no data.

World coordinates are NIfTI's (millimetres, RAS). A transform is the 4x4 matrix that takes a
point of the reference (fixed) space to where that point lies in the moving image, so that
``resampled(x) = moving(matrix @ x)``; composing transforms is multiplying matrices and an
image is interpolated once.
"""

from __future__ import annotations

import numpy as np

from asl_bids_app.preprocess.interpolation import Spline

OUTSIDE = 0.5
"""Voxels beyond the centre of the outermost voxel that still lie in the field of view."""
_POINTS = 12288
"""At which a volume is read at a time."""


def to_matrix(parameters: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Build a rigid transform from its six parameters.

    Parameters
    ----------
    parameters : array, shape (6,)
        Translation along x, y, z in mm and rotation about x, y, z in radians (Rx @ Ry @ Rz).
    centre : array, shape (3,)
        Point about which it rotates, mm.

    Returns
    -------
    array, shape (4, 4)
    """
    (sa, sb, sc), (ca, cb, cc) = np.sin(parameters[3:]), np.cos(parameters[3:])
    matrix = np.eye(4)
    matrix[:3, :3] = (
        (cb * cc, -cb * sc, sb),
        (ca * sc + sa * sb * cc, ca * cc - sa * sb * sc, -sa * cb),
        (sa * sc - ca * sb * cc, sa * cc + ca * sb * sc, ca * cb),
    )
    matrix[:3, 3] = np.asarray(parameters[:3]) + centre - matrix[:3, :3] @ centre
    return matrix


def to_parameters(matrix: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Undo `to_matrix`."""
    turn = matrix[:3, :3]
    shift = turn @ centre + matrix[:3, 3] - centre
    x = np.arctan2(-turn[1, 2], turn[2, 2])
    y = np.arctan2(turn[0, 2], np.hypot(turn[0, 0], turn[0, 1]))
    z = np.arctan2(-turn[0, 1], turn[0, 0])
    return np.array([*shift, x, y, z])


def voxel_sizes(affine: np.ndarray) -> np.ndarray:
    """Return the three voxel sizes in mm."""
    return np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)


def same_grid(
    shape: tuple[int, ...], affine: np.ndarray, other_shape: tuple[int, ...], other: np.ndarray
) -> bool:
    """Say whether two grids agree to within a hundredth of a voxel at every corner."""
    if tuple(shape[:3]) != tuple(other_shape[:3]):
        return False
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape[:3]])).reshape(3, -1)
    apart = (np.asarray(affine) - other)[:3, :3] @ corners + (np.asarray(affine) - other)[:3, 3:]
    return bool(np.abs(apart).max() < 0.01 * voxel_sizes(affine).min())


def resample(
    volume: np.ndarray,
    affine: np.ndarray,
    matrix: np.ndarray,
    target_shape: tuple[int, ...] | None = None,
    target_affine: np.ndarray | None = None,
    order: int = 3,
) -> np.ndarray:
    """Interpolate a volume once, at the transformed points of a target grid.

    Parameters
    ----------
    volume : array, shape (X, Y, Z)
        NaN where there is no data.
    affine : array, shape (4, 4)
        Its voxel-to-world matrix.
    matrix : array, shape (4, 4)
        Takes world points of the target to world points of `volume`.
    target_shape, target_affine
        The target grid; by default that of `volume`.
    order
        Of the B-spline: 3 cubic, 1 linear, 0 nearest.

    Returns
    -------
    array of float32, shape `target_shape`
        NaN where the point lies more than half a voxel outside the volume, or where most of
        what it would be interpolated from is NaN.
    """
    shape = tuple(volume.shape) if target_shape is None else tuple(target_shape)
    target_affine = affine if target_affine is None else target_affine
    pull = np.linalg.inv(affine) @ matrix @ target_affine
    volume = np.asarray(volume, dtype=np.float32)
    if np.allclose(pull, np.eye(4), atol=1e-9) and shape == volume.shape:
        return volume.copy()
    moved = _interpolate(volume, pull, shape, order)
    moved[~_inside(pull, shape, volume.shape)] = np.nan
    return moved


def resample_filled(
    volume: np.ndarray, affine: np.ndarray, matrix: np.ndarray, order: int = 3
) -> np.ndarray:
    """Interpolate a volume on its own grid; outside its field of view the border's value."""
    pull = np.linalg.inv(affine) @ matrix @ affine
    volume = np.asarray(volume, dtype=np.float32)
    if np.allclose(pull, np.eye(4), atol=1e-9):
        return volume.copy()
    return _interpolate(volume, pull, volume.shape, order)


def in_field_of_view(
    shape: tuple[int, int, int], affine: np.ndarray, matrix: np.ndarray
) -> np.ndarray:
    """Say which voxels of a grid, transformed, lie inside the same grid's field of view."""
    return _inside(np.linalg.inv(affine) @ matrix @ affine, shape, shape)


def _interpolate(
    volume: np.ndarray, pull: np.ndarray, shape: tuple[int, ...], order: int
) -> np.ndarray:
    """Interpolate at ``pull @ voxel``; NaN where most of the neighbourhood is NaN."""
    missing = ~np.isfinite(volume)
    if not missing.any():
        return _at_points(volume, pull, shape, order)
    moved = _at_points(np.where(missing, np.float32(0), volume), pull, shape, order)
    moved[_at_points(missing.astype(np.float32), pull, shape, min(order, 1)) > 0.5] = np.nan
    return moved


def _at_points(
    volume: np.ndarray, pull: np.ndarray, shape: tuple[int, ...], order: int
) -> np.ndarray:
    if order == 0:
        from scipy import ndimage

        return ndimage.affine_transform(
            volume, pull[:3, :3], pull[:3, 3], shape, np.float32, 0, "nearest"
        )
    spline = Spline.through(volume, order)
    moved = np.empty(shape, np.float32)
    # A few slices at a time, so that large grids need no memory for their points.
    thick = max(1, _POINTS // (shape[1] * shape[2]))
    for start in range(0, shape[0], thick):
        part = moved[start : start + thick]
        place = np.indices(part.shape).reshape(3, -1).astype(float)
        place[0] += start
        part[:] = spline.at(pull[:3, :3] @ place + pull[:3, 3:]).reshape(part.shape)
    return moved


def _inside(pull: np.ndarray, shape: tuple[int, ...], source_shape: tuple[int, ...]) -> np.ndarray:
    """Say which voxels of the target have their point inside the source's field of view."""
    x, y, z = (np.arange(n) for n in shape)
    inside = np.ones(shape, dtype=bool)
    for row, size in zip(pull[:3], source_shape, strict=True):
        place = (
            (row[0] * x)[:, None, None]
            + (row[1] * y)[None, :, None]
            + (row[2] * z)[None, None, :]
            + row[3]
        )
        inside &= (place >= -OUTSIDE) & (place <= size - 1 + OUTSIDE)
    return inside
