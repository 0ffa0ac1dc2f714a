"""What the fit of a region needs of its series, and the noise that neighbours share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from asl_bids_app.observation import Observation
    from asl_bids_app.scheme_fields import TransitPrior

ATT_GRID: Final = (0.05, 4.0, 0.01)
"""First, last and step of the transit times tried, seconds."""
T1_SDS: Final = ((0.045, 0.045), (0.0, 0.05))
"""Relative standard deviations of T1 of blood and T1 of tissue: of both together, for most of a
difference between people is that of both, and of tissue alone. As the networks are trained
(`asl_bids_app.training.config.domain_config`)."""


@dataclass(frozen=True, eq=False)
class Signals:
    """What the fit of a region needs of its series, volumes as (X, Y, Z) and (X, Y, Z, n).

    Attributes
    ----------
    delta_m, noise : array, shape (X, Y, Z, n)
        ΔM/M0 and its standard deviation; infinite where there is no measurement.
    slice_number : array of int, shape (X, Y, Z)
    curves : array, shape (S, n, A)
        ΔM/M0 per mL/100 g/min of each slice, measurement and transit time of `ATT_GRID`.
    prior : TransitPrior
        Of the transit time.
    shared : float
        By what the variance of a mean exceeds that of independent voxels.
    att, att_sd : array, shape (X, Y, Z), or None
        Transit times of a voxelwise fit with their standard errors, which show the spread inside
        a region; None: every region is taken to have one transit time.
    others : tuple of array, shape (S, n, A) each
        `curves` with each of the T1s off by `T1_SDS`; without them ATT has no such error.
    """

    delta_m: np.ndarray
    noise: np.ndarray
    slice_number: np.ndarray
    curves: np.ndarray
    prior: TransitPrior
    shared: float = 1.0
    att: np.ndarray | None = None
    att_sd: np.ndarray | None = None
    others: tuple[np.ndarray, ...] = ()


def att_grid() -> np.ndarray:
    """Return the transit times of `ATT_GRID`, (A,)."""
    first, last, step = ATT_GRID
    return np.arange(first, last + step / 2, step)


def signals_of(
    observation: Observation,
    slice_axis: int,
    prior: TransitPrior,
    residual: np.ndarray | None = None,
    vessels: np.ndarray | None = None,
    att: np.ndarray | None = None,
    att_sd: np.ndarray | None = None,
) -> Signals:
    """Turn an observation into what regions are fitted from.

    Parameters
    ----------
    observation
    slice_axis
        Axis of volumes along which slices lie.
    prior
        Of the transit time.
    residual : array, shape (X, Y, Z, n), optional
        Of a voxelwise fit, by which the noise that neighbours share is measured.
    vessels : array, shape (X, Y, Z, n), optional
        The arteries' part of ΔM/M0, which is taken off.
    att, att_sd : array, shape (X, Y, Z), optional
        Of the same voxelwise fit.
    """
    import torch

    from asl_bids_app.series import to_volume

    grid = torch.from_numpy(att_grid()).to(observation.delta_m)

    def curves_of(seen: Observation) -> np.ndarray:
        found = seen.response(grid[None]).double().numpy()
        return np.broadcast_to(found, (len(seen), *found.shape[1:]))

    others = tuple(
        curves_of(
            replace(
                observation,
                t1_blood=observation.t1_blood * (1 + blood),
                t1_tissue=observation.t1_tissue * (1 + tissue),
            )
        )
        for blood, tissue in T1_SDS
    )
    mask = to_volume(observation.mask.numpy(), slice_axis)
    noise = observation.noise_sd.expand_as(observation.delta_m).numpy()
    delta_m = to_volume(observation.delta_m.numpy(), slice_axis)
    noise = to_volume(noise, slice_axis)
    shape = [1, 1, 1]
    shape[slice_axis] = -1
    numbers = np.broadcast_to(np.arange(len(observation)).reshape(shape), mask.shape)
    shared = 1.0
    if residual is not None and delta_m.shape[-1] > 2:
        shared = shared_noise(residual / np.maximum(noise, 1e-12), mask)
    if vessels is not None:
        delta_m = delta_m - vessels
    return Signals(
        delta_m, noise, numbers, curves_of(observation), prior, shared, att, att_sd, others
    )


def shared_noise(residual: np.ndarray, mask: np.ndarray) -> float:
    """Return by what the variance of a mean exceeds that of independent voxels.

    From the correlations r of neighbours along each axis, sqrt(π / -ln r) each: the sum of the
    correlations over all distances, were they those of a Gaussian blur.

    Parameters
    ----------
    residual : array, shape (X, Y, Z, n)
    mask : array of bool, shape (X, Y, Z)
    """
    factor = 1.0
    for axis in range(3):
        size = mask.shape[axis]
        if size < 2:
            continue
        ahead, behind = range(1, size), range(size - 1)
        both = mask.take(ahead, axis) & mask.take(behind, axis)
        a, b = residual.take(ahead, axis)[both], residual.take(behind, axis)[both]
        power = float((a * a).sum() + (b * b).sum()) / 2
        if both.sum() > 50 and power > 0:
            r = float(np.clip((a * b).sum() / power, 1e-6, 0.95))
            factor *= max(1.0, float(np.sqrt(np.pi / -np.log(r))))
    return factor
