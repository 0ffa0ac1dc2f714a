"""What every estimator takes and gives. An estimator never sees files."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import IntFlag
from typing import Protocol as Interface

import torch
from torch import Tensor

from asl_bids_app.protocol import TransitPrior
from asl_bids_app.series import Series


class Flag(IntFlag):
    """What is to be known of a voxel beside its numbers; bits of `ParameterMaps.flags`."""

    CBF_AT_BOUND = 1
    """CBF ended at a bound of its range."""
    ATT_AT_BOUND = 2
    """ATT ended at a bound of its range."""
    FAILED = 4
    """No estimate could be made (no usable noise); the maps hold 0 and prior."""
    ATT_UNIDENTIFIABLE = 8
    """The data don't determine ATT here; it is that of the stated prior."""
    CBF_IMPLAUSIBLE = 16
    """CBF is outside what flow can be (`asl_bids_app.estimators.bars.CBF_RANGE`)."""
    ARTERY = 32
    """The signal looks like that of an artery beside the tissue, which the model lacks."""


@dataclass(frozen=True)
class ParameterMaps:
    """Estimates of one series, zero outside its mask.

    Attributes
    ----------
    cbf, cbf_sd : Tensor, shape (n_slices, H, W)
        mL/100 g/min, and one standard deviation.
    att, att_sd : Tensor, shape (n_slices, H, W)
        Seconds, and one standard deviation.
    residual : Tensor, shape (n_slices, n, H, W)
        Measured minus fitted ΔM/M0 of every measurement, a fraction.
    flags : Tensor of uint8, shape (n_slices, H, W)
        Sums of `Flag`.
    estimator : str
        Name of the estimator, for sidecars.
    cbf_spread, att_spread : Tensor or None, shape (n_slices, H, W)
        Standard deviation between the members of an ensemble; None without one.
    att_prior : TransitPrior or None
        Prior of ATT that was used.
    abv, abv_sd : Tensor or None, shape (n_slices, H, W)
        Arterial blood volume, mL in 100 mL of the voxel, and one standard deviation; None where
        no arteries were looked for.
    vessels : Tensor or None, shape (n_slices, n, H, W)
        The arteries' part of ΔM/M0 in every measurement, a fraction.
    """

    cbf: Tensor
    att: Tensor
    cbf_sd: Tensor
    att_sd: Tensor
    residual: Tensor
    flags: Tensor
    estimator: str
    cbf_spread: Tensor | None = None
    att_spread: Tensor | None = None
    att_prior: TransitPrior | None = None
    abv: Tensor | None = None
    abv_sd: Tensor | None = None
    vessels: Tensor | None = None

    def to(self, device: torch.device | str) -> ParameterMaps:
        """Return the maps on a device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {name: v.to(device) for name, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **moved)


class Estimator(Interface):
    """Anything that turns a series into maps."""

    name: str

    def fit(self, series: Series) -> ParameterMaps:
        """Estimate CBF and ATT inside the mask of a series."""
        ...
