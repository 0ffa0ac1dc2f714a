"""Classes of an M0 by its contrast alone, where no atlas fits.

A thin slab, a child, a phantom: the atlas may not fit, and the M0 still shows what is alike.
Classes have no names, but where flow differs between them they serve the same purpose as tissue
fractions: a mean that the data know can be kept apart from that of the class next to it.
"""

from __future__ import annotations

from typing import Final

import numpy as np

THRESHOLDS: Final = 2
"""Between three classes, as there are grey matter, white matter and fluid."""
FIELD_MM: Final = 6.0
"""Voxel size at which the bias field is found."""
LEAST_SHARE: Final = 0.02
"""Share of the mask below which a class is none: a few voxels of the rim."""


def contrast_classes(
    m0: np.ndarray, mask: np.ndarray, voxel_mm: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return two of three classes of the M0 as maps of 0 and 1; the third is the rest.

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
    Otsu 1979, doi:10.1109/TSMC.1979.4310076 (thresholds). Tustison 2010,
    doi:10.1109/TMI.2010.2046908 (N4 bias field). Both as in SimpleITK.
    """
    values = np.where(mask, np.nan_to_num(np.asarray(m0, np.float64)), 0)
    level = float(np.median(values[mask])) if mask.any() else 0.0
    if level <= 0:
        return None
    raw = np.clip(values[mask] / level, 0, 3)
    if raw.std() < 1e-3:
        return None
    flat = np.clip(raw / _field(values / level, mask, voxel_mm)[mask], 0, 3)
    # A coil without a field is told from one with by what separates the classes better.
    parts = [np.digitize(inside, _thresholds(inside)) for inside in (raw, flat)]
    best = max(zip(parts, (raw, flat), strict=True), key=lambda found: _apart(*found))[0]
    label = np.zeros(mask.shape, np.uint8)
    label[mask] = 1 + best
    sizes = np.bincount(label[mask], minlength=THRESHOLDS + 2)[1:]
    order = [k + 1 for k in np.argsort(-sizes) if sizes[k] > LEAST_SHARE * mask.sum()]
    if len(order) < 2:
        return None
    return (label == order[0]).astype(np.float32), (label == order[1]).astype(np.float32)


def _apart(label: np.ndarray, values: np.ndarray) -> float:
    """Return Otsu's criterion: the share of the variance between the classes."""
    within = sum(values[label == k].var() * np.mean(label == k) for k in np.unique(label))
    return 1 - float(within / values.var())


def _thresholds(values: np.ndarray) -> np.ndarray:
    import SimpleITK as sitk  # noqa: N813

    found = sitk.OtsuMultipleThresholdsImageFilter()
    found.SetNumberOfThresholds(THRESHOLDS)
    found.SetNumberOfHistogramBins(256)
    found.Execute(sitk.GetImageFromArray(values[None].astype(np.float32)))
    return np.asarray(found.GetThresholds())


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
