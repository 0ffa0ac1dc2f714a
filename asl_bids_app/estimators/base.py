"""What every estimator takes and gives. An estimator never sees files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import IntFlag
from typing import Any, Generic, TypeVar
from typing import Protocol as Interface

import numpy as np
import torch
from torch import Tensor

from asl_bids_app.notices import Notice
from asl_bids_app.scheme_fields import TransitPrior
from asl_bids_app.series import Series, to_volume

Array = TypeVar("Array")
"""`torch.Tensor` inside the package, `numpy.ndarray` where maps leave it."""


class Flag(IntFlag):
    """What a reader must know about a voxel beside its numbers; bits of `ParameterMaps.flags`."""

    CBF_AT_BOUND = 1
    """CBF ended at a bound of its range."""
    ATT_AT_BOUND = 2
    """ATT ended at a bound of its range."""
    FAILED = 4
    """No estimate could be made (no usable noise); the maps hold 0 and prior."""
    ATT_UNIDENTIFIABLE = 8
    """The data don't determine ATT here; ATT comes from the stated prior."""
    CBF_IMPLAUSIBLE = 16
    """CBF is outside what flow can be (`asl_bids_app.estimators.bars.CBF_RANGE`)."""
    ARTERY = 32
    """The signal looks like that of an artery beside the tissue, which the model lacks."""


@dataclass(frozen=True, eq=False)
class ParameterMaps(Generic[Array]):
    """Estimates of one series, zero outside its mask, and how they were made.

    Inside the package maps are tensors with slices first, as written below. `volumes` gives
    the same as numpy arrays (X, Y, Z).

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
    seconds : float
        From ΔM in memory to maps.
    model : mapping or None
        Name, version and hash of the model, for sidecars; None without one.
    warnings : tuple of Notice
        What a reader must know, such as data outside the training domain.
    outside_domain : float or None
        Share of the voxels outside the domain that the model was trained on.
    consistency : mapping or None
        What was corrected by tissue, see `asl_bids_app.estimators.consistency.Consistent`.
    coherence : mapping
        How errors of the voxels of a map hang together, by ``cbf`` and ``att``, as
        `asl_bids_app.estimators.coherence.read_coherence` reads it; empty if it was not measured.
    """

    cbf: Array
    att: Array
    cbf_sd: Array
    att_sd: Array
    residual: Array
    flags: Array
    estimator: str
    cbf_spread: Array | None = None
    att_spread: Array | None = None
    att_prior: TransitPrior | None = None
    abv: Array | None = None
    abv_sd: Array | None = None
    vessels: Array | None = None
    seconds: float = 0.0
    model: Mapping[str, Any] | None = None
    warnings: tuple[Notice, ...] = ()
    outside_domain: float | None = None
    consistency: Mapping[str, Any] | None = None
    coherence: Mapping[str, Any] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> ParameterMaps[Tensor]:
        """Return the maps on a device."""
        return self._with_each(lambda values: values.to(device))

    def volumes(self, slice_axis: int = 2) -> ParameterMaps[np.ndarray]:
        """Return the maps as numpy arrays, (X, Y, Z) or (X, Y, Z, n)."""
        return self._with_each(lambda values: to_volume(values.cpu().numpy(), slice_axis))

    def _with_each(self, change: Callable[[Tensor], Any]) -> ParameterMaps[Any]:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(
            self, **{name: change(v) for name, v in values.items() if isinstance(v, Tensor)}
        )


class Estimator(Interface):
    """Anything that turns a series into maps."""

    name: str

    def fit(self, series: Series) -> ParameterMaps[Tensor]:
        """Estimate CBF and ATT inside the mask of a series."""
        ...


Correction = Callable[[ParameterMaps[Tensor], Series, Tensor | None], ParameterMaps[Tensor]]
"""Changes maps by the series they were made from, and by how far each voxel tells of the tissue's
ATT, (n_slices, H, W), 0 to 1 (None: all alike)."""
