r"""The error bar of a region's mean: how errors of neighbouring voxels hang together.

An ensemble leans on neighbours, so errors of voxels side by side are alike: a mean over *n* voxels
is known less well than to :math:`\sigma/\sqrt n`. With :math:`\sigma_i` the standard deviations
of voxels, :math:`w_i` weights and :math:`a_i = w_i \sigma_i / \sum w`,

.. math:: \sigma_{\mathrm{mean}}^2 = (1 - s) \sum_{ij} a_i a_j\, \rho^{d_{ij}}
          + s \Big(\sum_i a_i\Big)^2,

where :math:`d_{ij}` counts steps along the axes, :math:`\rho` is the correlation of the errors of
neighbours and *s* the share of the variance that all voxels of a tissue have in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import ndimage

REACH: Final = 8
"""Steps beyond which the correlation of neighbours is left out."""
FAR: Final = 4
"""Steps along an axis from which two voxels count as far apart."""
_TRIED: Final = np.linspace(0, 0.95, 39)


@dataclass(frozen=True)
class Coherence:
    """How errors of the voxels of one map hang together.

    Attributes
    ----------
    neighbour : float
        Correlation of the errors of two voxels side by side, beside what all share; 0 to 1.
    shared : float
        Share of the variance that all voxels of a tissue have in common; 0 to 1.

    Raises
    ------
    ValueError
        If one of them is outside its range.
    """

    neighbour: float
    shared: float

    def __post_init__(self) -> None:
        for name in ("neighbour", "shared"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected 0 to 1")


def read_coherence(table: Mapping[str, Any], name: str) -> Coherence | None:
    """Return how errors of a map hang together by a model's table; None if it doesn't say.

    Parameters
    ----------
    table
        ``{"cbf": {"neighbour": ..., "shared": ...}, "att": {...}}``.
    name
        ``cbf`` or ``att``.
    """
    entry = table.get(name)
    return None if entry is None else Coherence(**entry)


def common_of_corners(coherence: Coherence) -> float:
    r"""Return the share of variance that corners of a linear interpolation have in common.

    Two of the eight corners are 1, 2 or 3 steps apart. Averaged over all places between them, the
    products of their weights add up to 12/54, 6/54 and 1/54, and their correlations are
    :math:`\rho`, :math:`\rho^2` and :math:`\rho^3`.
    """
    near = coherence.neighbour
    between = (12 * near + 6 * near**2 + near**3) / 19
    return (1 - coherence.shared) * between + coherence.shared


def _along_all_axes(values: np.ndarray, neighbour: float, reach: int = REACH) -> np.ndarray:
    """Sum values (X, Y, Z) over the voxels around, each by ρ to the number of steps to it."""
    kernel = neighbour ** np.abs(np.arange(-reach, reach + 1)).astype(float)
    for axis, size in enumerate(values.shape):
        if size > 1:
            values = ndimage.correlate1d(values, kernel, axis, mode="constant")
    return values


def mean_sd(sd: np.ndarray, weight: np.ndarray, coherence: Coherence) -> float:
    """Return the standard deviation of a region's mean.

    Parameters
    ----------
    sd : array, shape (X, Y, Z)
        Standard deviations of the voxels.
    weight : array, shape (X, Y, Z)
        Of the voxels in the mean; a mask of bool for a plain mean.
    coherence
        Of the map.

    Returns
    -------
    float
        In the unit of `sd`; NaN for an empty region.
    """
    weight = np.asarray(weight, float)
    total = weight.sum()
    if not total > 0:
        return float("nan")
    part = np.where(weight > 0, weight * np.nan_to_num(sd), 0) / total
    near = float((part * _along_all_axes(part, coherence.neighbour)).sum())
    variance = (1 - coherence.shared) * near + coherence.shared * float(part.sum()) ** 2
    return max(variance, 0.0) ** 0.5


def measure(errors: Iterable[tuple[np.ndarray, np.ndarray]]) -> Coherence:
    """Measure how errors hang together.

    Parameters
    ----------
    errors : iterable of (array, array), shapes (X, Y, Z)
        Of each tissue of each simulated head: errors over their stated standard deviations, and
        the tissue's mask.

    Returns
    -------
    Coherence
        Relative to the stated variance, so that it serves with stated standard deviations: where
        these are too wide, so that errors over them are small, what is shared is small too.

    Raises
    ------
    ValueError
        If no two voxels lie side by side.
    """
    square = near = far = far_pairs = pairs_near = count = 0.0
    expected = np.zeros(len(_TRIED))
    for values, mask in errors:
        z = np.where(mask, values, 0.0)
        inside = mask.astype(float)
        square, count = square + float((z**2).sum()), count + float(inside.sum())
        box = np.ones([2 * FAR - 1 if size > 1 else 1 for size in z.shape])
        around = float((z * ndimage.convolve(z, box, mode="constant")).sum())
        there = float((inside * ndimage.convolve(inside, box, mode="constant")).sum())
        near += around
        far += float(z.sum()) ** 2 - around
        far_pairs += float(inside.sum()) ** 2 - there
        expected += [(inside * _along_all_axes(inside, rho, FAR - 1)).sum() for rho in _TRIED]
        pairs_near += there
    if not square or expected[0] == expected[-1]:
        raise ValueError("no two voxels side by side have an error")
    # Shared errors are a bias: of the stated variance, 1, whatever the errors' own variance is.
    shared = min(max(far / far_pairs, 0.0), 1.0) if far_pairs > 0 else 0.0
    own = max(square / count - shared, 1e-6)
    # The neighbours' correlation that gives means of small regions the variance they have.
    neighbour = float(np.interp((near - shared * pairs_near) / own, expected, _TRIED))
    return Coherence(neighbour, shared)
