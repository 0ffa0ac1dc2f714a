"""The brain in a T1w image of a whole head, with the packaged atlas as a guide."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import ndimage

from asl_bids_app.anatomy.segment import clean
from asl_bids_app.atlas import Atlas
from asl_bids_app.preprocess.geometry import resample, voxel_sizes
from asl_bids_app.preprocess.registration import (
    Level,
    RegistrationError,
    normalise,
    register,
    to_image,
)

BRAIN_BELOW_MM: Final = 78.0
"""From the top of a head down to the middle of its brain."""
PITCHES_DEG: Final = (-20.0, 0.0, 20.0)
HEIGHTS_MM: Final = (-20.0, 0.0, 20.0)
SEARCH: Final = (Level(smooth_mm=6.0, step_mm=6.0, stop_mm=0.3, samples=3000),)
FINE: Final = (
    Level(smooth_mm=4.0, step_mm=3.0, stop_mm=0.1, samples=8000),
    Level(smooth_mm=2.0, step_mm=1.0, stop_mm=0.02, samples=15000),
)
LEAST_LIKENESS: Final = 0.35
"""Correlation of local contrast with the atlas's below which an image is no T1w of a head."""
GUIDE_MM: Final = 6.0
"""How far beyond the atlas's brain, laid affinely, a brain may reach."""
NECK_MM: Final = 3.0
"""Bridges between brain and what lies around it are thinner than twice this."""
CLOSE_MM: Final = 8.0


def register_atlas(t1w: np.ndarray, affine: np.ndarray, atlas: Atlas) -> tuple[np.ndarray, float]:
    """Register the atlas to a T1w of a whole head by an affine transform.

    Parameters
    ----------
    t1w : array, shape (X, Y, Z)
    affine : array, shape (4, 4)
    atlas

    Returns
    -------
    matrix : array, shape (4, 4)
        Takes MNI152 millimetres to those of the T1w.
    likeness : float
        Correlation of the local contrasts inside the atlas's brain.

    Raises
    ------
    RegistrationError
        If the image has no contrast or the search fails.
    """
    from asl_bids_app.preprocess.geometry import to_matrix

    thin, grid = thinned(t1w, affine, 2.0)
    moving = normalise(np.clip(thin, 0, np.percentile(thin[thin > 0], 99.5)), grid)
    fixed = normalise(np.asarray(atlas.t1w), atlas.affine)
    around = ndimage.distance_transform_edt(~atlas.brain, sampling=voxel_sizes(atlas.affine)) < 5
    middle = (atlas.affine @ [*np.argwhere(atlas.brain).mean(axis=0), 1.0])[:3]
    guess = _brain_middle(thin, grid)

    def correlation_at(matrix: np.ndarray) -> float:
        laid = resample(moving, grid, matrix, fixed.shape, atlas.affine, order=1)
        there = atlas.brain & np.isfinite(laid)
        if there.sum() < 0.3 * atlas.brain.sum():
            return -1.0
        return float(np.corrcoef(laid[there], fixed[there])[0, 1])

    def run(start: np.ndarray, kind: str, levels: tuple[Level, ...]) -> np.ndarray | None:
        try:
            return register(
                fixed,
                atlas.affine,
                moving,
                grid,
                mask=around,
                start=start,
                levels=levels,
                kind=kind,
                metric="correlation",
            )
        except RegistrationError:
            return None

    found = []
    for height in HEIGHTS_MM:
        for pitch in PITCHES_DEG:
            shift = guess + np.array([0, 0, height]) - middle
            start = to_matrix(np.array([*shift, np.radians(pitch), 0, 0]), middle)
            matrix = run(start, "similarity", SEARCH)
            if matrix is not None:
                found.append((correlation_at(matrix), matrix))
    if not found:
        raise RegistrationError("a head that the atlas can't be laid on")
    found.sort(key=lambda pair: -pair[0])
    likeness, matrix = found[0]
    for kind in ("similarity", "affine"):
        better = run(matrix, kind, FINE)
        if (
            better is not None
            and (value := correlation_at(better)) > likeness
            and _has_usual_stretch(better)
        ):
            likeness, matrix = value, better
    return matrix, likeness


def _has_usual_stretch(matrix: np.ndarray) -> bool:
    stretch = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    return bool(stretch.min() > 0.6 and stretch.max() < 1.5)


def _brain_middle(image: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Guess the middle of the brain from the top of the head."""
    bright = image > 0.25 * np.percentile(image, 98)
    bright = clean(ndimage.binary_opening(bright, iterations=1))
    points = np.argwhere(bright)[::7]
    world = points @ affine[:3, :3].T + affine[:3, 3]
    top = np.percentile(world[:, 2], 99.8)
    upper = world[world[:, 2] > top - 120]
    low, high = np.percentile(upper[:, :2], [2, 98], axis=0)
    return np.array([*(low + high) / 2, top - BRAIN_BELOW_MM])


def thinned(
    image: np.ndarray, affine: np.ndarray, step_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """Average blocks of voxels so that none is much smaller than `step_mm`.

    Returns
    -------
    array of float32, and its affine
    """
    step = np.maximum(np.rint(step_mm / voxel_sizes(affine)), 1).astype(int)
    size = np.array(image.shape) // step
    cut = np.nan_to_num(np.asarray(image, np.float32))[tuple(slice(n) for n in size * step)]
    blocks = cut.reshape(size[0], step[0], size[1], step[1], size[2], step[2])
    grid = np.array(affine, float)
    grid[:3, 3] += grid[:3, :3] @ ((step - 1) / 2)
    grid[:3, :3] = grid[:3, :3] * step
    return blocks.mean(axis=(1, 3, 5)), grid


def unbias(image: np.ndarray, affine: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Divide a T1w by its bias field (N4, Tustison 2010, doi:10.1109/TMI.2010.2046908).

    Parameters
    ----------
    image : array, shape (X, Y, Z)
    affine : array, shape (4, 4)
    where : array of bool, shape (X, Y, Z)
        Head tissue from which the field is estimated.

    Returns
    -------
    array of float32, shape (X, Y, Z)
        The image over its field; the image itself where N4 fails.
    """
    import SimpleITK as sitk  # noqa: N813 - the library's own short name

    thin, grid = thinned(image, affine, 4.0)
    inside, _ = thinned(where, affine, 4.0)
    inside = (inside > 0.5) & (thin > 0)
    if inside.sum() < 500:
        return image
    method = sitk.N4BiasFieldCorrectionImageFilter()
    method.SetNumberOfThreads(1)
    method.SetMaximumNumberOfIterations([50, 40, 30])
    small = to_image(thin, grid)
    try:
        method.Execute(small, to_image(inside, grid))
    except RuntimeError:
        return image
    log = sitk.GetArrayFromImage(method.GetLogBiasFieldAsImage(small)).transpose(2, 1, 0)
    # Outside it, the field is that of the nearest voxel inside.
    nearest = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    log = ndimage.gaussian_filter(log[tuple(nearest)].astype(np.float32), 1.0)
    pull = np.linalg.inv(grid) @ affine
    field = ndimage.affine_transform(
        log, pull[:3, :3], pull[:3, 3], image.shape, np.float32, order=1, mode="nearest"
    )
    field -= float(np.median(field[where])) if where.any() else 0.0
    return (image / np.exp(field)).astype(np.float32)


def find_brain(
    t1w: np.ndarray, affine: np.ndarray, tissue: np.ndarray, guide: np.ndarray
) -> np.ndarray:
    """Find the brain of a T1w.

    Parameters
    ----------
    t1w : array, shape (X, Y, Z)
        Without its bias.
    affine : array, shape (4, 4)
    tissue : array, shape (3, X, Y, Z)
        Probabilities of the atlas laid on it.
    guide : array of float, shape (X, Y, Z)
        The atlas's brain laid on it, 0 to 1.

    Returns
    -------
    array of bool, shape (X, Y, Z)
    """
    sizes = voxel_sizes(affine)
    core = guide > 0.5
    outside = ndimage.distance_transform_edt(~core, sampling=sizes)
    inside = ndimage.distance_transform_edt(core, sampling=sizes)
    white = float(np.median(t1w[tissue[1] > 0.8])) if (tissue[1] > 0.8).any() else 0.0
    grey = float(np.median(t1w[(tissue[0] > 0.7) & core])) if (tissue[0] > 0.7).any() else 0.0
    if not 0 < grey < white:
        return core
    fluid = float(np.percentile(t1w[core], 3))
    bright = (t1w > (grey + fluid) / 2) & (t1w < white + 1.2 * (white - grey))
    bright &= outside < GUIDE_MM
    depth = ndimage.distance_transform_edt(bright, sampling=sizes)
    seed = clean((depth > NECK_MM) & (outside < 1))
    grown = ndimage.distance_transform_edt(~seed, sampling=sizes) <= NECK_MM + 0.7 * sizes.mean()
    body = (grown & bright) | (inside > 8)
    near = ndimage.distance_transform_edt(~body, sampling=sizes) <= CLOSE_MM / 2
    closed = ndimage.distance_transform_edt(near, sampling=sizes) > CLOSE_MM / 2 - 1
    return clean((closed | body) & (outside < GUIDE_MM))
