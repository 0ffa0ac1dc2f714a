"""Fitting the packaged atlas to a brain: first its outline, then its contrast."""

from __future__ import annotations

from typing import Final

import numpy as np

from asl_bids_app.atlas import Atlas
from asl_bids_app.preprocess.geometry import resample as pull
from asl_bids_app.preprocess.geometry import voxel_sizes
from asl_bids_app.preprocess.mask import FULL_MM
from asl_bids_app.preprocess.registration import Level, RegistrationError, register, smooth

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
RIM_MM: Final = 8.0
"""Depth from which likeness counts."""


def _dilate(mask: np.ndarray, affine: np.ndarray, margin_mm: float) -> np.ndarray:
    from scipy import ndimage

    return ndimage.distance_transform_edt(~mask, sampling=voxel_sizes(affine)) <= margin_mm


def _find_middle(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return (np.asarray(affine) @ [*np.argwhere(mask).mean(axis=0), 1.0])[:3]


def fit_outline(mask: np.ndarray, affine: np.ndarray, atlas: Atlas) -> np.ndarray:
    """Lay the atlas's brain on the mask."""
    start = np.eye(4)
    start[:3, 3] = _find_middle(atlas.brain, atlas.affine) - _find_middle(mask, affine)
    if _is_slab(mask, affine):
        return start
    where = _dilate(mask, affine, 15.0)
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
                smooth_slopes=False,
            )
    except RegistrationError:
        return start
    return matrix if _has_usual_stretch(matrix) else start


def _is_slab(mask: np.ndarray, affine: np.ndarray) -> bool:
    """Say whether the brain is cut by both ends of a thin field of view."""
    sizes = voxel_sizes(affine)
    thickness = np.array(mask.shape) * sizes
    axis = int(np.argmin(thickness))
    areas = np.moveaxis(mask, axis, 0).sum(axis=(1, 2))
    cut = min(areas[0], areas[-1]) > 0.4 * areas.max()
    return bool(cut or thickness[axis] < FULL_MM)


def refine_fit(
    fixed: np.ndarray,
    affine: np.ndarray,
    mask: np.ndarray,
    moving: np.ndarray,
    atlas: Atlas,
    start: np.ndarray,
) -> np.ndarray:
    """Fit the atlas's contrast to that of the M0; what can't be had leaves the step before."""
    where = _dilate(mask, affine, 6.0)

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
                smooth_slopes=False,
            )
        except RegistrationError:
            return begin
        return matrix if _has_usual_stretch(matrix) else begin

    def score(matrix: np.ndarray) -> float:
        return likeness_of(fixed, affine, mask, moving, atlas.affine, matrix)

    if _is_slab(mask, affine):
        tried = []
        for height in HEIGHTS_MM:
            begin = start.copy()
            begin[2, 3] += height
            tried.append(register_from(begin, "similarity", SEARCH))
        start = register_from(max(tried, key=score), "similarity", CONTRAST)
    return max((start, register_from(start, "affine", CONTRAST)), key=score)


def likeness_of(
    fixed: np.ndarray,
    affine: np.ndarray,
    mask: np.ndarray,
    moving: np.ndarray,
    moving_affine: np.ndarray,
    matrix: np.ndarray,
) -> float:
    """Return the correlation of an M0 with a picture laid on it by a matrix, in the brain."""
    laid = pull(moving, moving_affine, matrix, mask.shape, affine, order=1)
    both = mask & np.isfinite(laid)
    if both.sum() < 0.5 * mask.sum():
        return -1.0
    deep = both & _erode(mask, affine)
    both = deep if deep.sum() > 0.2 * mask.sum() else both
    return float(np.corrcoef(smooth(fixed, affine, 2.0)[both], laid[both])[0, 1])


def _erode(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Leave out the brain's rim: it is alike wherever there is an outline."""
    from scipy import ndimage

    padded = np.pad(mask, 1, mode="edge")
    depth = ndimage.distance_transform_edt(padded, sampling=voxel_sizes(affine))
    return depth[1:-1, 1:-1, 1:-1] > RIM_MM


def _has_usual_stretch(matrix: np.ndarray) -> bool:
    """Say whether an affine only stretches as much as brains differ, without reflection."""
    stretch = np.linalg.svd(matrix[:3, :3])[1]
    low, high = STRETCH
    return bool(low < stretch.min() and stretch.max() < high and np.linalg.det(matrix[:3, :3]) > 0)
