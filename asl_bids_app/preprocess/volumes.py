"""From volumes to averaged differences: pairing, rejection of bad pairs, robust averages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from asl_bids_app.preprocess.measurements import Measurement, differences, find_measurements
from asl_bids_app.preprocess.robust import residual_sd

HUBER: Final = 2.0
"""Residuals beyond this many standard deviations are drawn in (Huber 1964,
doi:10.1214/aoms/1177703732); at 2 the average of Gaussian noise keeps 99 % of its efficiency."""
FEWEST: Final = 4
"""Repeats from which averages are robust; with fewer there is no telling who is the outlier."""
REJECT: Final = 5.0
"""A pair is left out if it is this many robust standard deviations worse than its fellows ..."""
REJECT_RATIO: Final = 1.5
"""... and its deviation this many times the usual one."""


@dataclass(frozen=True, eq=False)
class Averaged:
    """Averaged differences, one for each measurement, ordered by delay and duration.

    Attributes
    ----------
    delta_m, standard_error : array, shape (X, Y, Z, n)
        In the units of the image; the standard error is NaN for a single repeat.
    repeats : array of int, shape (n,)
        Pairs that were averaged.
    post_labeling_delay, label_duration : array, shape (n,)
        Seconds.
    rejected : tuple of str
        A sentence for each pair that was left out.
    left_out : tuple of int
        The volumes of these pairs, counted from 0.
    """

    delta_m: np.ndarray
    standard_error: np.ndarray
    repeats: np.ndarray
    post_labeling_delay: np.ndarray
    label_duration: np.ndarray
    rejected: tuple[str, ...] = ()
    left_out: tuple[int, ...] = ()


def average_measurements(
    data: np.ndarray,
    volume_types: Sequence[str],
    post_labeling_delay: np.ndarray,
    label_duration: np.ndarray,
    mask: np.ndarray,
    names: Sequence[str] | None = None,
) -> Averaged:
    """Subtract and average the volumes of a run.

    Pairs that deviate in the whole brain (a spike, a jerk of the head) are left out; inside
    the rest a Huber average draws in single outlying voxels. Its scale is pooled over all
    measurements of a voxel, for one from a few repeats would cost more than it saves.

    Parameters
    ----------
    data : array, shape (X, Y, Z, N)
    volume_types, post_labeling_delay, label_duration
        Of the N volumes; seconds.
    mask : array of bool, shape (X, Y, Z)
        Where averages are computed; zero elsewhere.
    names
        What messages call the volumes; by default their numbers.

    Returns
    -------
    Averaged

    Raises
    ------
    ValueError
        If volumes can't be paired.
    """
    measurements = find_measurements(volume_types, post_labeling_delay, label_duration)
    voxels = data[mask].astype(np.float32)
    sets = [differences(voxels, m) for m in measurements]
    kept, rejected = _reject(sets, measurements, names)
    left_out = [
        volume
        for measurement, keep in zip(measurements, kept, strict=True)
        for pair, good in zip(measurement.pairs, keep, strict=True)
        for volume in pair
        if not good and volume is not None
    ]
    sets = [values[:, keep] for values, keep in zip(sets, kept, strict=True)]
    scale = _pooled_scale(sets)
    shape = (*mask.shape, len(sets))
    delta_m, error = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for index, values in enumerate(sets):
        delta_m[mask, index], error[mask, index] = _average(values, scale)
    return Averaged(
        delta_m,
        error,
        np.array([values.shape[1] for values in sets]),
        np.array([m.post_labeling_delay for m in measurements]),
        np.array([m.label_duration for m in measurements]),
        rejected,
        tuple(left_out),
    )


def _reject(
    sets: list[np.ndarray],
    measurements: tuple[Measurement, ...],
    names: Sequence[str] | None = None,
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Find pairs whose whole image is unlike that of their fellows."""
    kept = [np.ones(values.shape[1], bool) for values in sets]
    scores = [
        np.median(np.abs(values - np.median(values, axis=1, keepdims=True)), axis=0)
        if values.shape[1] >= FEWEST
        else np.full(values.shape[1], np.nan)
        for values in sets
    ]
    # A measurement may be noisier than another; pairs compare with their own kind.
    relative = [s / max(np.median(s), np.finfo(np.float32).tiny) for s in scores]
    together = np.concatenate(relative)
    together = together[np.isfinite(together)]
    if together.size == 0:
        return kept, ()
    spread = residual_sd(together - 1)
    rejected = []
    for keep, ratios, measurement in zip(kept, relative, measurements, strict=True):
        bad = (ratios > REJECT_RATIO) & (ratios - 1 > REJECT * spread)
        # More than a third can't be called outliers: then the whole measurement is restless.
        if bad.sum() > len(bad) // 3:
            continue
        keep[bad] = False
        for index in np.flatnonzero(bad):
            volumes = " and ".join(
                names[v] if names else str(v) for v in measurement.pairs[index] if v is not None
            )
            rejected.append(
                f"delay {measurement.post_labeling_delay:g} s: volumes {volumes} (counted from 0) "
                f"left out, {ratios[index]:.1f} times the usual deviation"
            )
    return kept, tuple(rejected)


def _pooled_scale(sets: list[np.ndarray]) -> np.ndarray:
    """Robust standard deviation of a single pair, (V,), over the repeats of all measurements."""
    # A residual of r repeats from their median is a little too small; this undoes it.
    residuals = [
        (values - np.median(values, axis=1, keepdims=True))
        * np.sqrt(values.shape[1] / (values.shape[1] - 1))
        for values in sets
        if values.shape[1] >= FEWEST
    ]
    if not residuals:
        return np.full(len(sets[0]), np.inf, np.float32)
    return residual_sd(np.concatenate(residuals, axis=1), axis=1)


def _average(values: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Huber average of (V, r) and its standard error (Huber 1981, section 6.5)."""
    repeats = values.shape[1]
    if repeats == 1:
        return values[:, 0], np.full(len(values), np.nan, np.float32)
    center = values.mean(axis=1)
    if repeats < FEWEST:
        return center, values.std(axis=1, ddof=1, dtype=np.float64) / np.sqrt(repeats)
    limit = (HUBER * np.maximum(scale, np.finfo(np.float32).tiny))[:, None]
    center = np.median(values, axis=1)
    for _ in range(4):
        center = center + np.clip(values - center[:, None], -limit, limit).mean(axis=1)
    deviation = values - center[:, None]
    drawn = np.clip(deviation, -limit, limit)
    # Over the whole brain: of a few repeats this share is itself too noisy to divide by.
    inside = max(float((np.abs(deviation) < limit).mean()), 0.5)
    # In double precision: squares of images in large units leave the range of single.
    squares = np.square(drawn, dtype=np.float64).sum(axis=1)
    variance = squares / (repeats - 1) / inside**2 / repeats
    return center, np.sqrt(variance)
