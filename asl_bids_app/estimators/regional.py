"""The correction of an ensemble's maps by tissue, as a step after its fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from asl_bids_app.estimators.base import Flag, ParameterMaps
from asl_bids_app.estimators.consistency import be_consistent
from asl_bids_app.estimators.noise import noise_level, with_noise
from asl_bids_app.estimators.voxel_fit import residual
from asl_bids_app.observation import observe
from asl_bids_app.series import Series, to_slices


def tissue_fractions(tissue: Mapping[str, np.ndarray] | None, slice_axis: int) -> Tensor | None:
    """Return the fractions of grey and white matter, slices first, (2, S, H, W), or None."""
    if not tissue or not {"gm", "wm"} <= set(tissue):
        return None
    maps = [to_slices(np.asarray(tissue[key], np.float32), slice_axis) for key in ("gm", "wm")]
    return torch.from_numpy(np.ascontiguousarray(np.stack(maps)))


@torch.no_grad()
def correct_means(
    maps: ParameterMaps[Tensor],
    series: Series,
    voxel_mm: Sequence[float],
    fractions: Tensor | None = None,
) -> ParameterMaps[Tensor]:
    """Bring the means of tissues back to what the data say.

    Parameters
    ----------
    maps
        Of an estimator that leans on neighbours.
    series
        What they were made from, with its noise; the part of arteries is taken off here.
    voxel_mm
        Distances of slices, rows and columns.
    fractions : Tensor, shape (2, n_slices, H, W), optional
        Of grey and white matter.

    Returns
    -------
    ParameterMaps
        CBF, ATT, their standard deviations, the residual and `consistency` are new; voxels that
        failed stay as they are.
    """
    series = with_noise(series).without_arteries(maps.vessels)
    observation = observe(series, noise_level(series), 0.0)
    failed = (maps.flags & int(Flag.FAILED)) > 0
    blind = observation.noise_sd.masked_fill(failed.unsqueeze(1), torch.inf)
    found = be_consistent(
        replace(observation, noise_sd=blind),
        maps.cbf,
        maps.att,
        maps.cbf_sd,
        maps.att_sd,
        voxel_mm,
        fractions,
    )
    names = ("cbf", "cbf_sd", "att", "att_sd")
    new = {n: torch.where(failed, getattr(maps, n), getattr(found, n)) for n in names}
    left = residual(observation, new["cbf"], new["att"])
    return replace(maps, residual=left, consistency=found.facts, **new)
