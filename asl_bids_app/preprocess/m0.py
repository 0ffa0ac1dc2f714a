"""The equilibrium magnetisation: averaged, corrected, positive, and safe to divide by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

LOWEST: Final = 0.05
"""Below this share of the brain's median, M0 is noise or signal loss, not tissue."""


class M0Error(ValueError):
    """The M0 can't be used; says what was found."""


@dataclass(frozen=True, eq=False)
class M0:
    """M0 of tissue on the grid of the ASL image.

    Attributes
    ----------
    data : array, shape (X, Y, Z)
        In the units of the image, positive inside the mask, zero outside.
    filled : int
        Voxels of the mask that held no usable signal and were filled from their neighbours.
    correction : float
        Mean factor of the repetition-time correction.
    used : int
        Volumes that were averaged.
    """

    data: np.ndarray
    filled: int
    correction: float
    used: int


def recovery(repetition_time: float, t1_tissue: float) -> float:
    """Return the share of the magnetisation that has recovered after a repetition time.

    Parameters
    ----------
    repetition_time, t1_tissue
        Seconds.

    Raises
    ------
    M0Error
        If the repetition time is not positive: the signal says nothing of M0 then.
    """
    if not repetition_time > 0:
        raise M0Error(f"a repetition time of {repetition_time:g} s")
    return float(-np.expm1(-repetition_time / t1_tissue))


def average_m0(
    volumes: np.ndarray, repetition_time: Sequence[float], t1_tissue: float
) -> tuple[np.ndarray, float, int]:
    """Average M0 volumes, each corrected for incomplete recovery.

    ``M0 = S / (1 - exp(-TR / T1))`` (Alsop 2015, doi:10.1002/mrm.25197). Volumes without
    signal are passed over.

    Parameters
    ----------
    volumes : array, shape (X, Y, Z) or (X, Y, Z, k)
    repetition_time
        Seconds, one or k of them.
    t1_tissue
        Seconds.

    Returns
    -------
    array (X, Y, Z), float, int
        The average, the mean correction factor and the number of volumes used.

    Raises
    ------
    M0Error
        If no volume has signal, or numbers of volumes and times differ.
    """
    volumes = volumes[..., None] if volumes.ndim == 3 else volumes
    count = volumes.shape[3]
    times = list(repetition_time) * (count if len(repetition_time) == 1 else 1)
    if len(times) != count:
        raise M0Error(f"{count} M0 volumes and {len(times)} repetition times")
    factors = np.array([1 / recovery(time, t1_tissue) for time in times])
    alive = np.array([bool(np.any(volumes[..., i] > 0)) for i in range(count)])
    if not alive.any():
        raise M0Error("an M0 without any signal")
    corrected = volumes[..., alive] * factors[alive]
    return corrected.mean(axis=3, dtype=np.float64), float(factors[alive].mean()), int(alive.sum())


def finish_m0(
    m0: np.ndarray, mask: np.ndarray, zooms: Sequence[float], fwhm_mm: float = 0.0
) -> tuple[np.ndarray, int]:
    """Make an M0 that can be divided by everywhere in the mask.

    Parameters
    ----------
    m0 : array, shape (X, Y, Z)
    mask : array of bool, shape (X, Y, Z)
    zooms
        Voxel size, mm.
    fwhm_mm
        Smoothing inside the mask; its edge takes nothing from outside.

    Returns
    -------
    array (X, Y, Z), int
        M0, zero outside the mask, and the number of voxels that were filled.

    Raises
    ------
    M0Error
        If there is no positive signal in the mask.
    """
    inside = m0[mask]
    positive = inside[inside > 0]
    if positive.size == 0:
        raise M0Error("an M0 without positive signal in the brain")
    good = mask & (m0 > LOWEST * np.median(positive))
    filled = int(mask.sum() - good.sum())
    data = m0
    sigma = 1.0
    while filled and not good[mask].all():
        around, share = _spread(data, good, [sigma] * 3)
        reached = mask & ~good & (share > 1e-3)
        data = np.where(reached, around, data)
        good = good | reached
        sigma *= 2
    if fwhm_mm > 0:
        width = fwhm_mm / np.sqrt(8 * np.log(2)) / np.asarray(zooms)
        data = _spread(data, mask, width)[0]
    return np.where(mask, data, 0).astype(np.float32), filled


def _spread(
    data: np.ndarray, where: np.ndarray, sigma: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian average of the voxels chosen (normalised convolution), and their share."""
    from scipy.ndimage import gaussian_filter

    share = gaussian_filter(where.astype(np.float64), sigma, mode="constant")
    total = gaussian_filter(np.where(where, data, 0).astype(np.float64), sigma, mode="constant")
    return total / np.maximum(share, 1e-12), share


def tissue_m0_of_blood(m0_blood: float, partition_coefficient: float) -> float:
    """Return the M0 of tissue that stands for a given M0 of blood.

    `M0Estimate` of BIDS is that of blood; the kinetics divide by ``λ M0_blood = M0_tissue``
    (λ in mL/g: the blood in a mL holds 1/λ times the water of a gram of tissue).
    """
    return partition_coefficient * m0_blood


def calibrate(signal: np.ndarray, m0: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Divide (X, Y, Z, n) by M0 inside the mask; zero outside."""
    inverse = np.where(mask, 1 / np.where(mask, m0, 1), 0)
    return (signal * inverse[..., None]).astype(np.float32)
