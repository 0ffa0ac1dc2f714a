"""Small statistics over the voxels of a region; NaN where there is nothing to say."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

FEWEST: Final = 20
"""Voxels below which a mean over a region says nothing."""
IMPOSSIBLE: Final = 100.0
"""A value this many times the median size of its region's is a fault and no value: one voxel of
1e38 must not be the mean of a brain. Noise alone is below 10, an artery below 30."""
_ZEROS_LIMIT: Final = 1e6
"""The same in a region of zeros, whose median size says nothing."""

_PROBABLE: Final = 1.5
"""Interpolation takes a probability a little beyond 1, a fault far."""


def credible(values: np.ndarray) -> np.ndarray:
    """Say which values can be values at all: finite, and not beyond all others.

    Parameters
    ----------
    values : array of float64, shape (n,)

    Returns
    -------
    array of bool, shape (n,)
    """
    size = np.abs(values)
    some = size[np.isfinite(size) & (size > 0)]
    # Of one or two values that aren't 0 either may be the fault.
    limit = IMPOSSIBLE * float(np.median(some)) if some.size > 2 else _ZEROS_LIMIT
    return size <= limit


def probability(values: np.ndarray) -> np.ndarray:
    """Return a tissue's probability with 0 in place of what is none."""
    values = np.asarray(values, dtype=float)
    with np.errstate(invalid="ignore"):
        return np.where((values >= 0) & (values < _PROBABLE), values, 0.0)


def values_inside(values: np.ndarray | None, where: np.ndarray) -> np.ndarray:
    """Return the values somewhere that can be values; none if they are too few."""
    if values is None:
        return np.empty(0)
    chosen = np.asarray(values[where], dtype=float)
    chosen = chosen[credible(chosen)]
    return chosen if chosen.size >= FEWEST else np.empty(0)


def mean(values: np.ndarray | None, where: np.ndarray) -> float:
    """Return the mean over a region."""
    chosen = values_inside(values, where)
    return float(chosen.mean()) if chosen.size else math.nan


def median(values: np.ndarray | None, where: np.ndarray) -> float:
    """Return the median over a region."""
    chosen = values_inside(values, where)
    return float(np.median(chosen)) if chosen.size else math.nan


def median_ratio(numerator: np.ndarray, denominator: np.ndarray, where: np.ndarray) -> float:
    """Return the median ratio of two images over a region, where the second is positive."""
    chosen = where & (denominator > 0)
    ratios = np.asarray(numerator[chosen], dtype=float) / denominator[chosen].astype(float)
    return median(ratios, np.ones(ratios.shape, dtype=bool))


def variation(values: np.ndarray | None, where: np.ndarray) -> float:
    """Return standard deviation over mean in a region."""
    chosen = values_inside(values, where)
    return ratio(float(chosen.std()), float(chosen.mean())) if chosen.size else math.nan


def share(condition: np.ndarray, where: np.ndarray) -> float:
    """Return the share of a region's voxels in which something holds."""
    return float(condition[where].mean()) if where.any() else math.nan


def ratio(numerator: float, denominator: float) -> float:
    """Return a ratio; NaN unless its denominator is positive."""
    return numerator / denominator if denominator > 0 else math.nan


def right_half(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return which voxels lie on the patient's right of the mask's centre.

    Parameters
    ----------
    mask : array of bool, shape (X, Y, Z)
    affine : array, shape (4, 4)
        Voxel to world, RAS+: the patient's right has the larger first coordinate.

    Returns
    -------
    array of bool, shape (X, Y, Z)
    """
    i, j, k = np.ogrid[: mask.shape[0], : mask.shape[1], : mask.shape[2]]
    x = affine[0, 0] * i + affine[0, 1] * j + affine[0, 2] * k + affine[0, 3]
    return x > x[mask].mean() if mask.any() else np.zeros(mask.shape, dtype=bool)


def residual_to_noise(residual: np.ndarray, noise: np.ndarray, where: np.ndarray) -> float:
    """Compare residuals with the noise that was expected.

    Parameters
    ----------
    residual, noise : array, shape (X, Y, Z, n)
        Fractions; a voxel without a number, or with a noise of 0, is left out.
    where : array of bool, shape (X, Y, Z)

    Returns
    -------
    float
        Root of the median of Σ(residual/noise)² over the median of chi square with n - 2
        degrees of freedom: 1 for pure noise. NaN for fewer than three measurements, which
        two parameters fit exactly.
    """
    from scipy.special import gammaincinv

    freedom = residual.shape[-1] - 2
    if freedom < 1:
        return math.nan
    usable = where & (np.isfinite(residual) & np.isfinite(noise) & (noise > 0)).all(axis=-1)
    scaled = residual[usable].astype(float) / noise[usable].astype(float)
    squares = (scaled**2).sum(axis=-1)
    if squares.size < FEWEST:
        return math.nan
    expected = 2 * gammaincinv(freedom / 2, 0.5)  # the median of chi square
    return float(np.sqrt(np.median(squares) / expected))
