"""Spreads that a few odd values don't move."""

from __future__ import annotations

from typing import Final

import numpy as np

PER_MEDIAN: Final = 1.4826
"""Standard deviation of normal errors whose median size is 1: 1 / Φ⁻¹(3/4)."""


def residual_sd(residuals: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Return the standard deviation of residuals about zero, from the median of their size.

    The zero is what was fitted: `scipy.stats.median_abs_deviation` would take the residuals'
    own median for it.

    Parameters
    ----------
    residuals : array
        In any unit, which the result has too.
    axis
        Along which; None for all.
    """
    return PER_MEDIAN * np.median(np.abs(residuals), axis=axis)
