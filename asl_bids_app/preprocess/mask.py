"""The brain in an M0 image, by brightness and shape.

EPI leaves scalp and fat dark, so the brain is the largest bright body. Eyes, scalp, neck and
muscle touch it only by thin bridges: erosion by millimetres (not voxels, which are anything but
cubes here) cuts these, and the body grows back within what is bright. Where an image is so
blurred that the bridges are thick, the threshold rises and the erosion deepens until the body
has the size and shape of a brain.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from scipy import ndimage

from asl_bids_app.preprocess.geometry import voxel_sizes

SMALLEST_ML: Final = 300.0
LARGEST_ML: Final = 2500.0
"""Volume of a whole brain with its CSF, infants and large men included."""
LARGEST_AREA_CM2: Final = 260.0
"""Of a section through a brain (17 x 14 cm ellipse: 190 cm²); heads have more."""
SMALLEST_AREA_CM2: Final = 15.0
"""Least section in the middle of a slab that stands out of noise."""
FULL_MM: Final = 90.0
"""A field of view at least this thick shows most of a brain."""
STRIP_MM: Final = 4.0
"""What an erosion by this removes altogether is scalp or a nerve, not brain."""


class MaskError(ValueError):
    """No brain was found; says what was found instead."""


def brain_mask(m0: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Find the brain.

    Parameters
    ----------
    m0 : array, shape (X, Y, Z)
        M0, or the mean of the control volumes. Not finite counts as zero.
    affine : array, shape (4, 4)

    Returns
    -------
    array of bool, shape (X, Y, Z)
        One body without holes. Slabs that show part of a brain are welcome.

    Raises
    ------
    MaskError
        If what is found can't be a brain.
    """
    sizes = voxel_sizes(affine)
    image = np.nan_to_num(np.asarray(m0, np.float32), posinf=0.0, neginf=0.0)
    # A few bright voxels are no contrast either.
    if not np.any(image > 0) or float(image.min()) >= float(np.percentile(image, 99.5)):
        raise MaskError("an image without any contrast")
    even = _even(image, sizes)
    faults = []
    for share, depth in _attempts():
        body = _body(even, sizes, share, depth)
        fault = _fault(body, sizes)
        if not fault:
            return body
        faults.append(fault)
    raise MaskError(faults[0])


def _attempts() -> Iterator[tuple[float, float]]:
    """Yield thresholds (share of the brain's brightness) and erosions (mm), mild ones first."""
    for share in (0.45, 0.55, 0.65, 0.75):
        for depth in (6.0, 9.0, 12.0):
            yield share, depth


def _even(image: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Divide out the receive coils' shading, and scale so that the brain is near 1."""
    bright = image > _otsu(image)
    wide = 50.0 / sizes
    weight = ndimage.gaussian_filter(bright.astype(np.float32), wide, truncate=2.5)
    # Capped: a vessel or an eye must not darken what lies around it.
    cap = np.percentile(image[bright], 90)
    light = ndimage.gaussian_filter(np.minimum(image, cap) * bright, wide, truncate=2.5)
    shading = light / np.maximum(weight, 1e-3)
    # Away from all signal there is nothing to even out.
    shading = np.maximum(shading, 0.3 * np.median(shading[bright]))
    flat = image / shading
    return flat / np.median(flat[bright])


_BINS: Final = 256


def _otsu(image: np.ndarray) -> float:
    """Threshold between dark and bright with the least variance within each (Otsu 1979)."""
    import SimpleITK as sitk  # noqa: N813 - the library's own short name

    low, top = float(image.min()), float(np.percentile(image, 99.5))
    found = sitk.OtsuThresholdImageFilter()
    found.SetNumberOfHistogramBins(_BINS)
    found.Execute(sitk.GetImageFromArray(np.clip(image, 0, top).astype(np.float64)))
    # The filter names the upper end of the last dark bin; its middle is meant.
    return float(found.GetThreshold()) - (top - max(low, 0.0)) / _BINS / 2


def _erode(mask: np.ndarray, sizes: np.ndarray, depth: float) -> np.ndarray:
    """Erode by millimetres; the image's border is no border of the body."""
    margin = [(int(np.ceil(depth / s)) + 1,) * 2 for s in sizes]
    padded = np.pad(mask, margin, mode="edge")
    deep = ndimage.distance_transform_edt(padded, sampling=sizes) > depth
    return deep[tuple(slice(a, -b) for a, b in margin)]


def _grow(mask: np.ndarray, sizes: np.ndarray, reach: float) -> np.ndarray:
    """Dilate by millimetres."""
    return ndimage.distance_transform_edt(~mask, sampling=sizes) <= reach


def _largest(mask: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])


def _body(even: np.ndarray, sizes: np.ndarray, share: float, depth: float) -> np.ndarray:
    """Return the largest bright body that survives an erosion, grown back."""
    smooth = ndimage.gaussian_filter(even, 1.5 / sizes)
    bright = ndimage.binary_fill_holes(smooth > share)
    core = _largest(_erode(bright, sizes, depth))
    if not core.any():
        return core
    # Back to the surface, and a little further along what is thin, like the poles of lobes;
    # only through what is bright, so that the dark skull keeps the scalp away.
    body = ndimage.binary_propagation(core, mask=bright & _grow(core, sizes, depth + 2.0))
    # Strips of scalp that hang on are thinner than any part of the brain but its rim.
    trunk = _grow(_erode(body, sizes, STRIP_MM), sizes, STRIP_MM + 1.0)
    body = _largest(body & trunk)
    # Sulci and ventricles that the threshold opened.
    body = _fill(_close(body, sizes, 5.0) & ((smooth > 0.6 * share) | body), sizes)
    return _largest(body)


def _close(mask: np.ndarray, sizes: np.ndarray, reach: float) -> np.ndarray:
    """Close gaps up to twice `reach` mm wide."""
    margin = [(int(np.ceil(reach / s)) + 1,) * 2 for s in sizes]
    padded = np.pad(mask, margin, mode="edge")
    closed = _erode(_grow(padded, sizes, reach), sizes, reach)
    return closed[tuple(slice(a, -b) for a, b in margin)] | mask


def _fill(mask: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Fill holes; across the thinnest axis also those that are open at the image's ends."""
    filled = ndimage.binary_fill_holes(mask)
    axis = int(np.argmax(sizes))
    plane = np.moveaxis(filled, axis, 0)
    plane = np.stack([ndimage.binary_fill_holes(section) for section in plane])
    return np.moveaxis(plane, 0, axis)


def _fault(body: np.ndarray, sizes: np.ndarray) -> str:
    """Say why a body can't be a brain; empty if it can."""
    volume = float(body.sum() * sizes.prod() * 1e-3)
    if volume > LARGEST_ML:
        return f"a body of {volume:.0f} mL, more than a brain"
    thickness = np.array(body.shape) * sizes
    axis = int(np.argmin(thickness))
    areas = np.moveaxis(body, axis, 0).sum(axis=(1, 2)) * sizes.prod() / sizes[axis] * 1e-2
    if thickness[axis] >= FULL_MM:
        if volume < SMALLEST_ML:
            return f"a body of {volume:.0f} mL, less than a brain"
    elif areas.max(initial=0.0) < SMALLEST_AREA_CM2:
        return f"a section of {areas.max(initial=0.0):.0f} cm², less than a brain's"
    if areas.max() > LARGEST_AREA_CM2:
        return f"a section of {areas.max():.0f} cm², more than a brain's"
    return ""
