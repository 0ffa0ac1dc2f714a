"""Regions of an atlas, and the table of their values: of the voxel maps, and by a fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from asl_bids_app.anatomy.partial_volume_regions import TISSUE_COLUMNS, tissue_values
from asl_bids_app.anatomy.region_fit import Fit, fit_region
from asl_bids_app.anatomy.signals import Signals
from asl_bids_app.anatomy.tissue_flows import TissueFlows

TISSUE_ATLAS: Final = "tissue"
"""What the regions that need no atlas are called in file names."""
LEAST_COVERAGE: Final = 0.5
"""Part of a region that must lie in the brain mask; below, its values are n/a."""


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions on the grid of a series.

    Attributes
    ----------
    name : str
        Of the atlas, as in file names.
    names : tuple of str
    indices : tuple of int
        Labels in the atlas; 1, 2, ... of what has none.
    where : array of bool, shape (R, X, Y, Z)
        The voxels of each, inside and outside the brain mask; regions may overlap.
    volume : array, shape (R,)
        Voxels of the whole region, those outside the field of view too.
    """

    name: str
    names: tuple[str, ...]
    indices: tuple[int, ...]
    where: np.ndarray
    volume: np.ndarray


def region_table(
    regions: Regions,
    cbf: np.ndarray,
    att: np.ndarray,
    mask: np.ndarray,
    signals: Signals | None,
    failed: np.ndarray | None = None,
    flows: TissueFlows | None = None,
) -> dict[str, list]:
    """Return the values of every region, one row each.

    Parameters
    ----------
    regions
    cbf, att : array, shape (X, Y, Z)
    mask : array of bool, shape (X, Y, Z)
        Brain.
    signals
        What means are fitted from; None leaves the fits out.
    failed : array of bool, shape (X, Y, Z), optional
        Voxels without an estimate; they count as outside.
    flows : TissueFlows, optional
        Flows of grey and white matter alone.

    Returns
    -------
    dict of str to list
        Columns as `COLUMNS` describes them, and with `flows` those of `TISSUE_COLUMNS`; NaN below
        `LEAST_COVERAGE`.
    """
    usable = mask if failed is None else mask & ~failed
    rows = []
    for k, name in enumerate(regions.names):
        chosen = regions.where[k] & usable
        count = int(chosen.sum())
        whole = float(regions.volume[k])
        coverage = count / whole if whole > 0 else 0.0
        row = {
            "index": regions.indices[k],
            "name": name,
            "voxels": count,
            "coverage": min(coverage, 1.0),
        }
        enough = count > 0 and coverage >= LEAST_COVERAGE
        flow, transit = (m[chosen].astype(float) for m in (cbf, att))
        for key, values in (("cbf", flow), ("att", transit)):
            row |= {
                f"{key}_mean": values.mean() if enough else np.nan,
                f"{key}_median": np.median(values) if enough else np.nan,
                f"{key}_sd": values.std() if enough else np.nan,
            }
        fit = Fit()
        if enough and signals is not None:
            fit = fit_region(signals, chosen)
        row |= {
            "cbf_fit": fit.cbf,
            "cbf_se": fit.se,
            "cbf_se_noise": fit.se_noise,
            "cbf_se_model": fit.se_model,
            "cbf_se_calibration": fit.se_calibration,
            "att_fit": fit.att,
            "att_se": fit.att_se,
            "att_se_noise": fit.att_se_noise,
            "att_se_model": fit.att_se_model,
            "att_se_calibration": fit.att_se_calibration,
            "misfit": fit.misfit,
        }
        if flows is not None:
            nothing = dict.fromkeys(TISSUE_COLUMNS, np.nan)
            row |= tissue_values(flows, chosen) if enough else nothing
        rows.append(row)
    return {key: [row[key] for row in rows] for key in columns_of(flows)}


def columns_of(flows: TissueFlows | None) -> Mapping[str, Mapping[str, str]]:
    """Return what the columns of a region table mean, with flows of tissues or without."""
    return COLUMNS if flows is None else {**COLUMNS, **TISSUE_COLUMNS}


_BY_MODEL: Final = (
    "Its part by the model: a misfit beyond noise, or an ATT that only the prior tells"
)
COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    "index": {"Description": "Label in the atlas"},
    "name": {"Description": "Name of the region"},
    "voxels": {"Description": "Voxels of the region inside the brain mask"},
    "coverage": {
        "Description": "Part of the region inside the brain mask; below "
        f"{LEAST_COVERAGE:g} the values are n/a"
    },
    "cbf_mean": {"Description": "Mean of the CBF map", "Units": "mL/100 g/min"},
    "cbf_median": {"Description": "Median of the CBF map", "Units": "mL/100 g/min"},
    "cbf_sd": {"Description": "Standard deviation over voxels", "Units": "mL/100 g/min"},
    "att_mean": {"Description": "Mean of the ATT map", "Units": "s"},
    "att_median": {"Description": "Median of the ATT map", "Units": "s"},
    "att_sd": {"Description": "Standard deviation over voxels", "Units": "s"},
    "cbf_fit": {
        "Description": "CBF by the fit of the region's mean signal",
        "Units": "mL/100 g/min",
    },
    "cbf_se": {"Description": "Standard error of cbf_fit, all sources", "Units": "mL/100 g/min"},
    "cbf_se_noise": {"Description": "Its part by noise", "Units": "mL/100 g/min"},
    "cbf_se_model": {
        "Description": _BY_MODEL,
        "Units": "mL/100 g/min",
    },
    "cbf_se_calibration": {
        "Description": "Its part by labelling efficiency, M0 and T1 of blood, which all regions "
        "share",
        "Units": "mL/100 g/min",
    },
    "att_fit": {"Description": "ATT by the same fit", "Units": "s"},
    "att_se": {"Description": "Standard error of att_fit, all sources", "Units": "s"},
    "att_se_noise": {"Description": "Its part by noise", "Units": "s"},
    "att_se_model": {
        "Description": _BY_MODEL,
        "Units": "s",
    },
    "att_se_calibration": {
        "Description": "Its part by T1 of blood and of tissue, which all regions share",
        "Units": "s",
    },
    "misfit": {"Description": "Chi square of the fit over its degrees of freedom"},
}
"""What the columns of a region table mean."""
