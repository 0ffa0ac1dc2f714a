"""The value that flows to an estimator: a calibrated ΔM/M0 series.

Arrays put slices first: (n_slices, n, H, W), with n the measurements; the slice axis is
the one that `SliceTiming` runs along. `to_slices` and `to_volume` convert at the rim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asl_bids_app.calibration import Calibration
from asl_bids_app.notices import Notice
from asl_bids_app.protocol import Protocol


@dataclass(frozen=True)
class NoiseEstimate:
    """Noise of a series.

    Attributes
    ----------
    noise_sd : Tensor, shape (n_slices, n, H, W)
        Standard deviation of the averaged ΔM/M0, a fraction, positive inside the mask.
    method : mapping of str to str
        For each scheme how it was found: "repeats", "residuals" or "neighbours".
    """

    noise_sd: Tensor
    method: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Series:
    """Averaged ΔM/M0 of one series with all that is needed to quantify it.

    Attributes
    ----------
    protocol : Protocol
        Its n measurements.
    calibration : Calibration
    delta_m : Tensor, shape (n_slices, n, H, W)
        ΔM/M0, a fraction, finite; zero outside the mask.
    mask : Tensor of bool, shape (n_slices, H, W)
        Brain.
    repeats : Tensor, shape (n,)
        Number of pairs averaged in each measurement.
    standard_error : Tensor or None, shape (n_slices, n, H, W)
        Standard error of `delta_m` from the spread of the repeats; NaN where a measurement
        has too few, None where no measurement has any.
    anatomy : Tensor or None, shape (n_slices, 3, H, W)
        M0 in any unit, and fractions of grey and white matter; 0 everywhere where one of them
        is not known.
    noise : NoiseEstimate or None
        Noise of `delta_m`, estimated once by `asl_bids_app.estimators.noise.with_noise`. None
        until then.
    slice_axis : int
        0, 1 or 2: the axis of a volume (X, Y, Z) that the slices lie along.
    affine : array, shape (4, 4), or None
        Voxel to world of a volume (X, Y, Z), mm, RAS+; None where it is not known.
    volumes : mapping of str to array, shape (X, Y, Z)
        Images on the same grid that no estimator needs and the outputs hold: ``m0``, ``tsnr``,
        ``whole_brain``.
    carpet : mapping of str to array, or None
        Columns of the table of its volumes.
    facts : mapping
        What was done to each run, by file name, for sidecars and records.
    warnings : tuple of Notice
        Of its runs and of their joining.
    sources : tuple of Path
        Files that were used beside the runs and their M0.

    Raises
    ------
    ValueError
        If shapes disagree or `delta_m` isn't finite inside the mask.
    """

    protocol: Protocol
    calibration: Calibration
    delta_m: Tensor
    mask: Tensor
    repeats: Tensor
    standard_error: Tensor | None = None
    anatomy: Tensor | None = None
    noise: NoiseEstimate | None = None
    slice_axis: int = 2
    affine: np.ndarray | None = None
    volumes: Mapping[str, np.ndarray] = field(default_factory=dict)
    carpet: Mapping[str, np.ndarray] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[Notice, ...] = ()
    sources: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        n = self.protocol.n_measurements
        if self.delta_m.ndim != 4 or self.delta_m.shape[1] != n:
            raise ValueError(
                f"delta_m: shape {tuple(self.delta_m.shape)}, expected (n_slices, {n}, H, W)"
            )
        n_slices, _, *plane = self.delta_m.shape
        if tuple(self.mask.shape) != (n_slices, *plane):
            raise ValueError(
                f"mask: shape {tuple(self.mask.shape)}, expected {(n_slices, *plane)}"
            )
        if self.protocol.slice_time.shape[0] not in (1, n_slices):
            raise ValueError(
                f"slice_time: {self.protocol.slice_time.shape[0]} slices, expected {n_slices}"
            )
        if tuple(self.repeats.shape) != (n,):
            raise ValueError(f"repeats: shape {tuple(self.repeats.shape)}, expected ({n},)")
        if self.standard_error is not None and self.standard_error.shape != self.delta_m.shape:
            raise ValueError(
                f"standard_error: shape {tuple(self.standard_error.shape)}, "
                f"expected {tuple(self.delta_m.shape)}"
            )
        if self.noise is not None and self.noise.noise_sd.shape != self.delta_m.shape:
            raise ValueError(
                f"noise: shape {tuple(self.noise.noise_sd.shape)}, "
                f"expected {tuple(self.delta_m.shape)}"
            )
        if not bool(torch.isfinite(self.delta_m).all()):
            raise ValueError("delta_m: not finite")

    @property
    def n_slices(self) -> int:
        """Number of slices."""
        return self.delta_m.shape[0]

    def volume(self, slices: Tensor) -> np.ndarray:
        """Return slices (n_slices[, n], H, W) as a volume (X, Y, Z[, n])."""
        return to_volume(slices.cpu().numpy(), self.slice_axis)

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """Distances of slices, rows and columns in mm.

        Raises
        ------
        ValueError
            Without an affine.
        """
        if self.affine is None:
            raise ValueError("affine: None, expected the voxel-to-world matrix (4, 4)")
        sizes = np.sqrt((np.asarray(self.affine, float)[:3, :3] ** 2).sum(axis=0)).tolist()
        first = sizes.pop(self.slice_axis)
        return (first, sizes[0], sizes[1])

    def without_arteries(self, vessels: Tensor | None) -> Series:
        """Return the series without the arteries' part of its signal; its noise stays.

        Parameters
        ----------
        vessels : Tensor or None, shape (n_slices, n, H, W)
            `asl_bids_app.estimators.base.ParameterMaps.vessels`; None where none were found.
        """
        if vessels is None:
            return self
        return replace(self, delta_m=self.delta_m - vessels.to(self.delta_m))

    def to(self, device: torch.device | str) -> Series:
        """Return the series with its tensors on a device."""
        error, anatomy, noise = self.standard_error, self.anatomy, self.noise
        return replace(
            self,
            protocol=self.protocol.to(device),
            delta_m=self.delta_m.to(device),
            mask=self.mask.to(device),
            repeats=self.repeats.to(device),
            standard_error=None if error is None else error.to(device),
            anatomy=None if anatomy is None else anatomy.to(device),
            noise=noise and replace(noise, noise_sd=noise.noise_sd.to(device)),
        )


def to_slices(volume: np.ndarray, slice_axis: int = 2) -> np.ndarray:
    """Put the slice axis of a volume first: (X, Y, Z[, n]) to (n_slices[, n], H, W)."""
    moved = np.moveaxis(volume, slice_axis, 0)
    return np.moveaxis(moved, 3, 1) if moved.ndim == 4 else moved


def to_volume(slices: np.ndarray, slice_axis: int = 2) -> np.ndarray:
    """Undo `to_slices`."""
    moved = np.moveaxis(slices, 1, 3) if slices.ndim == 4 else slices
    return np.moveaxis(moved, 0, slice_axis)
