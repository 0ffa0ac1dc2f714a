"""The quality evaluation index (QEI) of a CBF map."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from asl_bids_app.quality.statistics import credible, probability

_CONSTANTS: Final = MappingProxyType(
    {"a": 3.0126, "b": 2.4419, "c": 0.054, "d": 0.9272, "e": 2.8478, "f": 0.5196}
)
"""Of the original implementation, as the field's tools have them; the paper rounds them."""
_FWHM: Final = 5.0
"""mm, the smoothing with which the constants were derived."""
_FEWEST: Final = 20


@dataclass(frozen=True)
class QualityEvaluationIndex:
    """The index and what it is made of; all NaN where it can't be computed.

    Attributes
    ----------
    value : float
        0 (worst) to 1.
    similarity : float
        Correlation with the structural pseudo-CBF, not below 0.
    dispersion : float
        Pooled variance within tissues over the mean of grey matter, mL/100 g/min.
    negative : float
        Share of grey matter with a negative CBF.
    """

    value: float = math.nan
    similarity: float = math.nan
    dispersion: float = math.nan
    negative: float = math.nan


def combine(similarity: float, dispersion: float, negative: float) -> float:
    """Combine the three components into the index.

    Examples
    --------
    >>> round(combine(1.0, 0.0, 0.0), 3)  # a perfect map
    0.983
    >>> round(combine(0.0, 0.0, 0.0), 3)  # no structure at all
    0.0
    """
    k = _CONSTANTS
    structure = 1 - math.exp(-k["a"] * max(similarity, 0.0) ** k["b"])
    penalty = k["c"] * dispersion ** k["d"] + k["e"] * negative ** k["f"]
    return (structure * math.exp(-penalty)) ** (1 / 3)


def quality_evaluation_index(
    cbf: np.ndarray,
    mask: np.ndarray,
    gm: np.ndarray | None,
    wm: np.ndarray | None,
    csf: np.ndarray | None,
    affine: np.ndarray,
    threshold: float = 0.7,
) -> QualityEvaluationIndex:
    """Compute the quality evaluation index.

    Parameters
    ----------
    cbf : array, shape (X, Y, Z)
        mL/100 g/min, not smoothed.
    mask : array of bool, shape (X, Y, Z)
        Brain.
    gm, wm, csf : array, shape (X, Y, Z), or None
        Tissue probabilities; without grey and white matter there is no index.
    affine : array, shape (4, 4)
        For the voxel size.
    threshold : float
        Probability above which a voxel is of a tissue. The paper has 0.9, at the resolution
        of an anatomical image; 0.7 is what the field uses at that of ASL.

    Notes
    -----
    Dolui 2017 (ISMRM) and 2024, doi:10.1002/jmri.29308.
    """
    from scipy.ndimage import gaussian_filter

    if gm is None or wm is None or not mask.any():
        return QualityEvaluationIndex()
    voxel = np.linalg.norm(affine[:3, :3], axis=0)
    sigma = _FWHM / math.sqrt(8 * math.log(2)) / voxel
    inside = np.zeros(mask.shape)
    flow = cbf[mask].astype(float)
    # One impossible value would spread over its whole neighbourhood, which stands in for it.
    usable = credible(flow)
    inside[mask] = np.where(usable, flow, 0.0)
    if not usable.all():
        known = np.zeros(mask.shape)
        known[mask] = usable
        weight = gaussian_filter(known, sigma, mode="constant")
        around = gaussian_filter(inside, sigma, mode="constant") / np.maximum(weight, 1e-6)
        inside = np.where(mask & (known == 0), around, inside)
    smooth = gaussian_filter(inside, sigma, mode="constant")

    tissues = [probability(p) for p in (gm, wm, csf) if p is not None]
    parts = [smooth[mask & (p > threshold)] for p in tissues]
    grey = parts[0]
    if grey.size < _FEWEST or not grey.mean():
        return QualityEvaluationIndex()
    parts = [part for part in parts if part.size > 1]
    freedom = sum(part.size - 1 for part in parts)
    variance = sum((part.size - 1) * part.var(ddof=1) for part in parts) / freedom
    dispersion = float(variance / abs(grey.mean()))
    negative = float((grey < 0).mean())

    # Where the maps know no tissue (a mask wider than they are) there is nothing to compare.
    anatomy = mask & (np.sum(tissues, axis=0) > 0.5)
    pseudo = 2.5 * tissues[0][anatomy] + tissues[1][anatomy]
    flow = smooth[anatomy]
    if not flow.std() or not pseudo.std():
        return QualityEvaluationIndex()
    similarity = max(float(np.corrcoef(flow, pseudo)[0, 1]), 0.0)
    return QualityEvaluationIndex(
        combine(similarity, dispersion, negative), similarity, dispersion, negative
    )
