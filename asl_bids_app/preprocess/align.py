"""One image laid onto another of the same head: a separate M0, or the other run of a session."""

from __future__ import annotations

import numpy as np

from asl_bids_app.preprocess.geometry import resample as _resample
from asl_bids_app.preprocess.mask import MaskError, brain_mask
from asl_bids_app.preprocess.registration import RegistrationError, normalise, register

LIMIT_MM = 40.0
"""A larger movement between two scans of one session is a failure, not a movement."""


class AlignmentError(ValueError):
    """Two images of one head can't be laid on each other; says why."""


def align_to(
    moving_ref: np.ndarray,
    moving_affine: np.ndarray,
    fixed_ref: np.ndarray,
    fixed_affine: np.ndarray,
    *,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """Find the rigid transform that lays one image on another of the same head.

    The scanner's coordinates are the first guess. Contrasts may differ (M0 against control
    with background suppression): images are compared by local contrast.

    Parameters
    ----------
    moving_ref : array, shape (X', Y', Z')
    moving_affine : array, shape (4, 4)
    fixed_ref : array, shape (X, Y, Z)
    fixed_affine : array, shape (4, 4)
    mask : array of bool, shape (X, Y, Z)
        Brain in `fixed_ref`; found there by default.

    Returns
    -------
    array, shape (4, 4)
        Takes world points (mm, RAS) of `fixed_ref` to those of `moving_ref`.

    Raises
    ------
    AlignmentError
        If the images show nothing in common.
    """
    from scipy import ndimage

    if mask is None:
        try:
            mask = brain_mask(fixed_ref, fixed_affine)
        except MaskError:
            mask = fixed_ref > 0.2 * np.percentile(fixed_ref, 98)
    mask = ndimage.binary_dilation(mask, iterations=1)
    try:
        matrix = register(
            normalise(fixed_ref, fixed_affine),
            fixed_affine,
            normalise(moving_ref, moving_affine),
            moving_affine,
            mask=mask,
        )
    except RegistrationError as error:
        raise AlignmentError(str(error)) from error
    centre = (np.asarray(fixed_affine) @ [*np.argwhere(mask).mean(axis=0), 1.0])[:3]
    apart = float(np.linalg.norm(matrix[:3, :3] @ centre + matrix[:3, 3] - centre))
    if apart > LIMIT_MM:
        raise AlignmentError(f"images {apart:.0f} mm apart, more than a head moves in a scan")
    return matrix


def resample(
    data: np.ndarray,
    affine: np.ndarray,
    target_shape: tuple[int, ...],
    target_affine: np.ndarray,
    transform: np.ndarray,
    *,
    order: int = 3,
    outside: float = 0.0,
) -> np.ndarray:
    """Interpolate an image, once, on the grid of another.

    Parameters
    ----------
    data : array, shape (X', Y', Z') or (X', Y', Z', n)
    affine : array, shape (4, 4)
    target_shape, target_affine
        The grid of the result.
    transform : array, shape (4, 4)
        From `align_to`: takes world points of the target to those of `data`.
    order
        Of the B-spline: 3 cubic, 1 linear (keeps the range of values), 0 nearest.
    outside
        The value where `data` has none.

    Returns
    -------
    array of float32, shape (X, Y, Z) or (X, Y, Z, n)
    """
    volumes = data[..., None] if data.ndim == 3 else data
    moved = np.stack(
        [
            _resample(volumes[..., i], affine, transform, target_shape, target_affine, order)
            for i in range(volumes.shape[3])
        ],
        axis=3,
    )
    moved = np.where(np.isnan(moved), np.float32(outside), moved)
    return moved[..., 0] if data.ndim == 3 else moved
