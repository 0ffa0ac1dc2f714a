"""Flows of grey and white matter of a region: of the corrected maps, and by a fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from asl_bids_app.anatomy.tissue_flows import TISSUES, TissueFlows

LEAST_PART: Final = 0.1
"""Fraction of a region from which a tissue gets a flow in it, and `LEAST_VOXELS` of it."""
LEAST_VOXELS: Final = 2.0


def tissue_values(flows: TissueFlows, where: np.ndarray) -> dict[str, float]:
    """Return the flows of both tissues in a region, by the columns of `TISSUE_COLUMNS`.

    Parameters
    ----------
    flows
    where : array of bool, shape (X, Y, Z)

    Returns
    -------
    dict of str to float
        NaN for a tissue of which the region holds too little.
    """
    import torch

    from asl_bids_app.estimators.partial_volume_means import two_flows
    from asl_bids_app.series import to_slices

    mixture = flows.mixture
    chosen = torch.from_numpy(np.ascontiguousarray(to_slices(where, flows.slice_axis)))
    part = mixture.only(chosen[mixture.where])
    known = bool((part.precision > 0).any())
    fit = two_flows(part, flows.prior, flows.usual, flows.shared) if known else None
    row: dict[str, float] = {}
    for k, key in enumerate(TISSUES):
        weight = flows.fractions[key] * where
        inside = flows.within[f"{key}_cbf"] & where
        volume, seen = float(weight.sum()), float((weight * inside).sum())
        enough = fit is not None and seen >= max(LEAST_VOXELS, LEAST_PART * float(where.sum()))
        row[f"{key}_voxels"] = volume
        total = float((flows.maps[f"{key}_cbf"] * weight * inside).sum())
        mean = total / seen if enough else np.nan
        row[f"{key}_cbf_mean"] = mean
        if fit is None or not enough:
            row |= {f"{key}_cbf_fit": np.nan, f"{key}_cbf_se": np.nan}
            continue
        flow, noise = fit.flows[k], (fit.gm_sd, fit.wm_sd)[k]
        # A misfit beyond noise is texture of the region, and widens its mean's error.
        noise *= max(fit.misfit / flows.shared, 1.0) ** 0.5
        others = np.hypot(flows.wrong[k], flows.calibration_sd) * abs(flow)
        row |= {f"{key}_cbf_fit": flow, f"{key}_cbf_se": float(np.hypot(noise, others))}
    return row


_NAMES: Final = {"gm": "grey matter", "wm": "white matter"}
TISSUE_COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    f"{key}_{column}": {"Description": text.format(name), "Units": units}
    for key, name in _NAMES.items()
    for column, text, units in (
        ("voxels", "Volume of {} in the region and in the brain mask: sum of fractions", "voxels"),
        (
            "cbf_mean",
            "CBF of {} alone: mean of the map corrected for partial volume, each voxel by its "
            "fraction",
            "mL/100 g/min",
        ),
        (
            "cbf_fit",
            "CBF of {} alone by a fit of one flow a tissue to the signals of the region's voxels",
            "mL/100 g/min",
        ),
        (
            "cbf_se",
            "Standard error of the fit by noise, misfit, wrong fractions and, with error bars "
            "that hold it, calibration",
            "mL/100 g/min",
        ),
    )
}
"""What a region table has more where flows are corrected for partial volume."""
