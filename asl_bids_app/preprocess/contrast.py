"""Classes of an M0 by its contrast alone, where no atlas fits.

A thin slab, a child, a phantom: the atlas may not fit, and the M0 still shows what is alike.
Classes have no names, but where flow differs between them they serve the same purpose as tissue
fractions: a mean that the data know can be kept apart from that of the class next to it.
"""

from __future__ import annotations

from typing import Final

import numpy as np

START: Final = (0.8, 1.0, 1.2)
"""Of the median: where three classes are looked for first, as there are white matter, grey matter
and fluid."""
USUAL: Final = (0.4, 2.0)
"""Of the median: intensities that classes are made of; the rest of a mask is its rim."""
FIELD_MM: Final = 6.0
"""Voxel size at which the bias field is found."""
LEAST_SHARE: Final = 0.02
"""Share of the mask below which a class is none: a few voxels of the rim."""


def contrast_classes(
    m0: np.ndarray, mask: np.ndarray, voxel_mm: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the two largest classes of the M0 as maps of 0 and 1.

    Parameters
    ----------
    m0 : array, shape (X, Y, Z)
        Any unit.
    mask : array of bool, shape (X, Y, Z)
    voxel_mm : array, shape (3,)

    Returns
    -------
    (array, array) or None
        Of float32; the larger class first. None if the M0 has no contrast.

    References
    ----------
    Tustison 2010, doi:10.1109/TMI.2010.2046908 (N4 bias field, as in SimpleITK). Classes are
    those of k-means, as in scipy.
    """
    values = np.where(mask, np.nan_to_num(np.asarray(m0, np.float64)), 0)
    level = float(np.median(values[mask])) if mask.any() else 0.0
    if level <= 0:
        return None
    mask = mask & (values > USUAL[0] * level) & (values < USUAL[1] * level)
    raw = values[mask] / level
    if raw.std() < 1e-3:
        return None
    flat = raw / _field(values / level, mask, voxel_mm)[mask]
    # Whether the coil has a field shows in what separates the classes better.
    parts = [_classes(inside) for inside in (raw, flat)]
    best = max(zip(parts, (raw, flat), strict=True), key=lambda found: _apart(*found))[0]
    label = np.zeros(mask.shape, np.uint8)
    label[mask] = 1 + best
    sizes = np.bincount(label[mask], minlength=len(START) + 1)[1:]
    order = [k + 1 for k in np.argsort(-sizes) if sizes[k] > LEAST_SHARE * mask.sum()]
    if len(order) < 2:
        return None
    return (label == order[0]).astype(np.float32), (label == order[1]).astype(np.float32)


def _apart(label: np.ndarray, values: np.ndarray) -> float:
    """Return the share of the variance that lies between the classes."""
    within = sum(values[label == k].var() * np.mean(label == k) for k in np.unique(label))
    return 1 - float(within / values.var())


def _classes(values: np.ndarray) -> np.ndarray:
    """Return the class of each value, 0 to 2, by the least variance within classes."""
    from scipy.cluster.vq import kmeans2

    start = np.array(START)[:, None] * np.median(values)
    return kmeans2(values[:, None], start, iter=50, minit="matrix", missing="warn")[1]


def _field(m0: np.ndarray, mask: np.ndarray, voxel_mm: np.ndarray) -> np.ndarray:
    """Return the coil's smooth intensity, about 1; 1 where it can't be found."""
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(m0.astype(np.float32))
    where = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing([float(v) for v in np.asarray(voxel_mm)[::-1]])
    where.SetSpacing(image.GetSpacing())
    factors = [
        int(max(1, min(FIELD_MM // v, n // 8)))
        for v, n in zip(image.GetSpacing(), image.GetSize(), strict=True)
    ]
    if min(s // f for s, f in zip(image.GetSize(), factors, strict=True)) < 4:
        return np.ones(m0.shape)  # Too thin for a field in three dimensions.
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([20, 20])
    try:
        n4.Execute(sitk.Shrink(image, factors), sitk.Shrink(where, factors))
    except RuntimeError:
        return np.ones(m0.shape)
    field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image))
    return np.exp(np.clip(field, -1, 1))
