"""The correction of an ensemble's maps by tissue, as a step after its fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

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


def show_anatomy(series: Series, fractions: Tensor | None = None) -> Series:
    """Return a series with the anatomy that a network can look at, as far as it is known.

    Parameters
    ----------
    series
        Its M0 is among its `volumes`, if there is an image of one.
    fractions : Tensor, shape (2, n_slices, H, W), optional
        Of grey and white matter.
    """
    like = series.delta_m
    shown = like.new_zeros(series.n_slices, 3, *like.shape[-2:])
    m0 = series.volumes.get("m0")
    if m0 is not None:
        slices = to_slices(np.nan_to_num(np.asarray(m0, np.float32)), series.slice_axis)
        shown[:, 0] = torch.from_numpy(np.ascontiguousarray(slices)).to(like) * series.mask
    if fractions is not None:
        shown[:, 1:] = fractions.transpose(0, 1).to(like) * series.mask.unsqueeze(1)
    return replace(series, anatomy=shown)


@torch.no_grad()
def correct_means(
    maps: ParameterMaps[Tensor],
    series: Series,
    voxel_mm: Sequence[float],
    fractions: Tensor | None = None,
    att_trust: Tensor | None = None,
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
    att_trust : Tensor, shape (n_slices, H, W), optional
        How far each voxel tells of the tissue's ATT, 0 to 1; None: all alike.

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
        att_trust,
    )
    names = ("cbf", "cbf_sd", "att", "att_sd")
    new: dict[str, Any] = {
        n: torch.where(failed, getattr(maps, n), getattr(found, n)) for n in names
    }
    left = residual(observation, new["cbf"], new["att"])
    return replace(maps, residual=left, consistency=found.facts, **new)
