"""Grey matter, white matter and CSF in the space of a run, from the packaged atlas.

An M0 image looks like this: CSF bright, grey matter less, white matter least. From the atlas's
tissue maps such an image is mixed, and registered affinely to the M0: first the outline of
the brain, then local contrast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from asl_bids_app.atlas import Atlas, load_atlas
from asl_bids_app.preprocess.align import resample
from asl_bids_app.preprocess.geometry import resample as pull
from asl_bids_app.preprocess.geometry import voxel_sizes
from asl_bids_app.preprocess.mask import FULL_MM
from asl_bids_app.preprocess.registration import (
    Level,
    RegistrationError,
    normalise,
    register,
    smooth,
)

BRIGHTNESS: Final = {"gm": 0.85, "wm": 0.70, "csf": 1.0}
"""Relative M0 of the tissues: water content, and little T1 or T2* weighting."""
OUTLINE: Final = (
    Level(smooth_mm=8.0, step_mm=4.0, stop_mm=0.2, samples=4000),
    Level(smooth_mm=4.0, step_mm=2.0, stop_mm=0.05, samples=6000),
)
SEARCH: Final = (Level(smooth_mm=5.0, step_mm=4.0, stop_mm=0.2, samples=4000),)
CONTRAST: Final = (
    Level(smooth_mm=4.0, step_mm=1.0, stop_mm=0.05, samples=6000),
    Level(smooth_mm=2.0, step_mm=1.0, stop_mm=0.01, samples=12000),
)
HEIGHTS_MM: Final = (-50.0, -30.0, -10.0, 10.0, 30.0, 50.0)
"""Where a slab is tried, along the body, around the middle of the atlas's brain."""
STRETCH: Final = (0.75, 1.3)
"""Brains are this much smaller or larger than the atlas's, along any direction."""
SUBVOXELS: Final = 2
"""Points along each axis of a voxel at which the atlas is read, for partial volume."""


@dataclass(frozen=True, eq=False)
class Tissue:
    """Tissue probabilities on the grid of a run; zero outside its mask.

    Attributes
    ----------
    gm, wm, csf : array of float32, shape (X, Y, Z)
    matrix : array, shape (4, 4)
        Takes world points (mm, RAS) of the run to MNI152 millimetres.
    likeness : float
        Correlation of the M0 with the atlas laid on it, both normalised locally, away from
        the brain's rim; of the outlines where the M0 has no contrast.
    warnings : tuple of str
        What makes the priors doubtful.
    """

    gm: np.ndarray
    wm: np.ndarray
    csf: np.ndarray
    matrix: np.ndarray
    likeness: float
    warnings: tuple[str, ...] = ()


LEAST_LIKENESS: Final = 0.4
"""Below this the priors are announced as doubtful: random texture reaches 0.2 in a brain's
outline, a real head 0.5."""
RIM_MM: Final = 8.0
"""Depth from which likeness counts."""


def tissue_priors(
    m0: np.ndarray, affine: np.ndarray, mask: np.ndarray, atlas: Atlas | None = None
) -> Tissue:
    """Register the packaged tissue atlas to an M0 image.

    Parameters
    ----------
    m0 : array, shape (X, Y, Z)
        M0 or mean control; where it has no contrast (a constant) outlines must do.
    affine : array, shape (4, 4)
    mask : array of bool, shape (X, Y, Z)
        Brain.
    atlas
        By default the packaged one.

    Returns
    -------
    Tissue

    Raises
    ------
    ValueError
        If the mask is empty.
    """
    if not mask.any():
        raise ValueError("an empty brain mask")
    atlas = atlas or load_atlas()
    picture = sum(share * getattr(atlas, key) for key, share in BRIGHTNESS.items())
    warnings: tuple[str, ...] = ()
    matrix = _outline(mask, affine, atlas)
    fixed = _picture(m0, affine, mask)
    if fixed is not None:
        moving = normalise(picture, atlas.affine)
        matrix = _refine(fixed, affine, mask, moving, atlas, matrix)
        likeness = _likeness(fixed, affine, mask, moving, atlas.affine, matrix)
    else:
        laid = pull(
            atlas.brain.astype(np.float32), atlas.affine, matrix, mask.shape, affine, order=1
        )
        likeness = float(np.corrcoef(np.nan_to_num(laid).ravel(), mask.ravel())[0, 1])
        warnings = ("tissue priors rest on the outline of the brain only: M0 has no contrast",)
    if likeness < LEAST_LIKENESS:
        warnings = (
            *warnings,
            f"tissue priors are doubtful: the atlas fits badly (correlation {likeness:.2f})",
        )
    maps = {
        key: _partial_volume(getattr(atlas, key), atlas.affine, matrix, mask.shape, affine) * mask
        for key in BRIGHTNESS
    }
    return Tissue(**maps, matrix=matrix, likeness=likeness, warnings=warnings)


def resample_to(
    image: np.ndarray,
    affine: np.ndarray,
    target_shape: tuple[int, int, int],
    target_affine: np.ndarray,
) -> np.ndarray:
    """Bring a tissue map in scanner space onto another grid, averaged over its voxels.

    Parameters
    ----------
    image : array, shape (X', Y', Z')
    affine : array, shape (4, 4)
    target_shape, target_affine
        The grid of the result.

    Returns
    -------
    array of float32, shape `target_shape`
        Within the range of `image`; zero outside its field of view.
    """
    return _partial_volume(image, affine, np.eye(4), target_shape, target_affine)


def _partial_volume(
    image: np.ndarray,
    affine: np.ndarray,
    matrix: np.ndarray,
    shape: tuple[int, ...],
    target_affine: np.ndarray,
) -> np.ndarray:
    """Average an image over each voxel of a coarser grid."""
    ratio = voxel_sizes(target_affine) / voxel_sizes(affine)
    counts = np.clip(np.ceil(ratio), SUBVOXELS, 6).astype(int)
    total = np.zeros(shape, np.float32)
    offsets = [(np.arange(n) + 0.5) / n - 0.5 for n in counts]
    for offset in np.stack(np.meshgrid(*offsets, indexing="ij"), -1).reshape(-1, 3):
        shifted = np.array(target_affine, float)
        shifted[:3, 3] += shifted[:3, :3] @ offset
        total += resample(image, affine, shape, shifted, matrix, order=1)
    return total / np.float32(np.prod(counts))


def _picture(m0: np.ndarray, affine: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """Return local contrast inside the brain, or None where there is none."""
    inside = np.nan_to_num(m0)[mask]
    if inside.std() < 1e-3 * abs(inside.mean()) or inside.mean() <= 0:
        return None
    # Outside it is dark, as outside the atlas's brain.
    return normalise(np.where(mask, np.nan_to_num(m0), 0) / np.median(inside), affine)


def _around(mask: np.ndarray, affine: np.ndarray, margin_mm: float) -> np.ndarray:
    from scipy import ndimage

    return ndimage.distance_transform_edt(~mask, sampling=voxel_sizes(affine)) <= margin_mm


def _middle(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return (np.asarray(affine) @ [*np.argwhere(mask).mean(axis=0), 1.0])[:3]


def _outline(mask: np.ndarray, affine: np.ndarray, atlas: Atlas) -> np.ndarray:
    """Lay the atlas's brain on the mask."""
    start = np.eye(4)
    start[:3, 3] = _middle(atlas.brain, atlas.affine) - _middle(mask, affine)
    if _is_slab(mask, affine):
        return start
    where = _around(mask, affine, 15.0)
    try:
        matrix = start
        for kind in ("rigid", "affine"):
            matrix = register(
                mask.astype(np.float32),
                affine,
                atlas.brain.astype(np.float32),
                atlas.affine,
                mask=where,
                start=matrix,
                levels=OUTLINE,
                kind=kind,
                metric="squares",
            )
    except RegistrationError:
        return start
    return matrix if _sane(matrix) else start


def _is_slab(mask: np.ndarray, affine: np.ndarray) -> bool:
    """Say whether the brain is cut by both ends of a thin field of view."""
    sizes = voxel_sizes(affine)
    thickness = np.array(mask.shape) * sizes
    axis = int(np.argmin(thickness))
    areas = np.moveaxis(mask, axis, 0).sum(axis=(1, 2))
    cut = min(areas[0], areas[-1]) > 0.4 * areas.max()
    return bool(cut or thickness[axis] < FULL_MM)


def _refine(
    fixed: np.ndarray,
    affine: np.ndarray,
    mask: np.ndarray,
    moving: np.ndarray,
    atlas: Atlas,
    start: np.ndarray,
) -> np.ndarray:
    """Fit the atlas's contrast to that of the M0; what can't be had leaves the step before."""
    where = _around(mask, affine, 6.0)

    def register_from(begin: np.ndarray, kind: str, levels: tuple[Level, ...]) -> np.ndarray:
        try:
            matrix = register(
                fixed,
                affine,
                moving,
                atlas.affine,
                mask=where,
                start=begin,
                levels=levels,
                kind=kind,
                metric="correlation",
            )
        except RegistrationError:
            return begin
        return matrix if _sane(matrix) else begin

    def score(matrix: np.ndarray) -> float:
        return _likeness(fixed, affine, mask, moving, atlas.affine, matrix)

    if _is_slab(mask, affine):
        tried = []
        for height in HEIGHTS_MM:
            begin = start.copy()
            begin[2, 3] += height
            tried.append(register_from(begin, "similarity", SEARCH))
        start = register_from(max(tried, key=score), "similarity", CONTRAST)
    return max((start, register_from(start, "affine", CONTRAST)), key=score)


def _likeness(
    fixed: np.ndarray,
    affine: np.ndarray,
    mask: np.ndarray,
    moving: np.ndarray,
    moving_affine: np.ndarray,
    matrix: np.ndarray,
) -> float:
    laid = pull(moving, moving_affine, matrix, mask.shape, affine, order=1)
    both = mask & np.isfinite(laid)
    if both.sum() < 0.5 * mask.sum():
        return -1.0
    deep = both & _inner(mask, affine)
    both = deep if deep.sum() > 0.2 * mask.sum() else both
    return float(np.corrcoef(smooth(fixed, affine, 2.0)[both], laid[both])[0, 1])


def _inner(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Leave out the brain's rim: it is alike wherever there is an outline."""
    from scipy import ndimage

    padded = np.pad(mask, 1, mode="edge")
    depth = ndimage.distance_transform_edt(padded, sampling=voxel_sizes(affine))
    return depth[1:-1, 1:-1, 1:-1] > RIM_MM


def _sane(matrix: np.ndarray) -> bool:
    """Say whether an affine only stretches as much as brains differ, without reflection."""
    stretch = np.linalg.svd(matrix[:3, :3])[1]
    low, high = STRETCH
    return bool(low < stretch.min() and stretch.max() < high and np.linalg.det(matrix[:3, :3]) > 0)
