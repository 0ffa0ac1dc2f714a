"""Values of a cohort that lie far from the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from asl_bids_app.reports.cohort import Row

OUTLIER_Z: Final = 3.5
"""Modified z score from which a value is marked (Iglewicz and Hoaglin 1993)."""
FEWEST: Final = 8
"""Number of values below which no outlier is named."""


def modified_z(values: np.ndarray) -> np.ndarray:
    """Return how far values lie from their median, in robust standard deviations.

    Parameters
    ----------
    values : array, shape (n,)
        NaN for what is missing.

    Returns
    -------
    array, shape (n,)
        By the median absolute deviation, or by the mean one where more than half of the
        values are equal; NaN for what is missing, 0 if all are equal.
    """
    from scipy.stats import median_abs_deviation

    distance = values - np.nanmedian(values)
    spread = median_abs_deviation(values, scale="normal", nan_policy="omit")
    if not spread > 0:
        spread = 1.2533 * np.nanmean(np.abs(distance))
    return distance / spread if spread > 0 else 0 * distance


def find_outliers(rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """Return for each series (by its title) the metrics in which it is an outlier."""
    found: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for row in rows for key in row.metrics):
        values = np.array([row.metrics.get(key, math.nan) for row in rows])
        if np.isfinite(values).sum() < FEWEST:
            continue
        for row, z in zip(rows, modified_z(values), strict=True):
            if np.isfinite(z) and abs(z) > OUTLIER_Z:
                found.setdefault(row.title, []).append(key)
    return {title: tuple(keys) for title, keys in found.items()}
