"""All images of a series, from its maps and what they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from torch import Tensor

from asl_bids_app.estimators.base import ParameterMaps
from asl_bids_app.estimators.consensus import Consensus
from asl_bids_app.estimators.noise import noise_level
from asl_bids_app.quality.image_set import UnitImages
from asl_bids_app.series import Series

BASELINE: Final = ("cbf", "att", "cbf_sd", "att_sd", "flags")
"""Maps of least squares that stand beside the main ones, as ``lsq_`` and the name."""


def unit_images(
    series: Series,
    maps: ParameterMaps[Tensor],
    *,
    baseline: ParameterMaps[Tensor] | None = None,
    by_formula: Consensus | None = None,
    tissue: Mapping[str, np.ndarray] | None = None,
    framewise_displacement: np.ndarray | None = None,
) -> UnitImages:
    """Put the images of a series together, on the grid of its volumes.

    A new output map is a row in `asl_bids_app.bids.outputs.OUTPUTS`, a field of `UnitImages`
    and a line here.

    Parameters
    ----------
    series
        With noise and geometry.
    maps, baseline
        Of the main estimator, and of least squares beside it.
    by_formula
        The consensus estimate of a single delay.
    tissue
        Probabilities by key (``gm``, ``wm``, ``csf``), (X, Y, Z).
    framewise_displacement : array, shape (n_volumes,)
        mm.
    """
    if series.affine is None:
        raise ValueError("series: found no affine, expected that of its images")
    main = maps.volumes(series.slice_axis)
    images = {
        "delta_m": series.volume(series.delta_m),
        "noise": series.volume(noise_level(series) * series.mask.unsqueeze(1)),
        "mask": series.volume(series.mask),
        **series.volumes,
        **(tissue or {}),
    }
    if by_formula is not None:
        images["consensus_cbf"] = series.volume(by_formula.cbf)
        images["consensus_cbf_sd"] = series.volume(by_formula.cbf_sd)
    if baseline is not None:
        other = baseline.volumes(series.slice_axis)
        images |= {f"lsq_{key}": getattr(other, key) for key in BASELINE}
    return UnitImages(
        cbf=main.cbf,
        att=main.att,
        cbf_sd=main.cbf_sd,
        att_sd=main.att_sd,
        flags=main.flags,
        residual=main.residual,
        coherence=maps.coherence,
        cbf_spread=main.cbf_spread,
        att_spread=main.att_spread,
        abv=main.abv,
        abv_sd=main.abv_sd,
        outside_domain=main.outside_domain,
        affine=series.affine,
        framewise_displacement=framewise_displacement,
        **images,
    )
