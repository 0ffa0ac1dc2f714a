"""Partial volume correction of a series by the tissue of its T1w: maps, values of regions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from asl_bids_app.anatomy.request import UnitMaps
    from asl_bids_app.estimators.partial_volume_means import Mixture
    from asl_bids_app.observation import Observation
    from asl_bids_app.scheme_fields import TransitPrior

TISSUES: Final = ("gm", "wm")
FLOW_SD: Final = 0.5
"""Relative standard deviation of a region's flow about that of the whole brain, by choice: it
decides where a region holds next to nothing of a tissue."""
NEIGHBOURS: Final = 0.8
"""Share of the variance that neighbouring voxels of a tissue's flow have in common: by Matérn's
correlation at 4 mm, and of kernels of 5 x 5 voxels of which 20 are the same."""


@dataclass(frozen=True, eq=False)
class Data:
    """What the correction needs of a series.

    Attributes
    ----------
    observation : Observation
        Slices first, without arteries; of voxels that tell nothing the noise is infinite.
    slice_axis : int
        Of volumes.
    voxel_mm : (float, float, float)
        Distance of slices, rows and columns.
    prior : TransitPrior
    """

    observation: Observation
    slice_axis: int
    voxel_mm: tuple[float, float, float]
    prior: TransitPrior


@dataclass(frozen=True, eq=False)
class TissueFlows:
    """The flows of grey and white matter of a series; volumes are (X, Y, Z).

    Attributes
    ----------
    maps, sds : mapping of str to array
        By keys of the output table.
    within : mapping of str to array of bool
        Where each map is one, by the same keys.
    fractions : mapping of str to array
        By tissue.
    mixture : Mixture
        The voxels with their fractions, by which regions are fitted.
    usual : ((float, float), (float, float))
        Mean and standard deviation of a region's flow of grey and of white matter.
    wrong : (float, float)
        Relative standard deviation of both by wrong fractions.
    calibration_sd : float
        That by the calibration.
    prior : TransitPrior
    slice_axis : int
    shared : float
        By what the variance of a mean exceeds that of independent voxels.
    facts : mapping
        For sidecars, record and metrics.
    """

    maps: Mapping[str, np.ndarray]
    sds: Mapping[str, np.ndarray]
    within: Mapping[str, np.ndarray]
    fractions: Mapping[str, np.ndarray]
    mixture: Mixture
    usual: tuple[tuple[float, float], tuple[float, float]]
    wrong: tuple[float, float]
    calibration_sd: float
    prior: TransitPrior
    slice_axis: int
    shared: float
    facts: Mapping[str, Any]


def correct(unit: UnitMaps, tissue: Mapping[str, np.ndarray], method: str) -> TissueFlows:
    """Estimate the flows of grey and white matter of a series.

    Parameters
    ----------
    unit
        With its `data`.
    tissue : mapping of str to array, shape (X, Y, Z)
        Fractions of the T1w's tissues.
    method
        One of `asl_bids_app.estimators.partial_volume.METHODS`.

    Raises
    ------
    PartialVolumeError
        If the data contradict the fractions.
    ValueError
        If the unit holds no data.
    """
    import torch

    from asl_bids_app.estimators.partial_volume import correct_partial_volume
    from asl_bids_app.estimators.partial_volume_means import mix
    from asl_bids_app.series import to_slices, to_volume

    data = unit.data
    if data is None:
        raise ValueError("data: None, expected what the series was fitted from")
    slices = [to_slices(np.asarray(tissue[k], np.float32), data.slice_axis) for k in TISSUES]
    stack = torch.from_numpy(np.ascontiguousarray(np.stack(slices)))
    found = correct_partial_volume(data.observation, stack, data.voxel_mm, data.prior, method)
    maps, sds, within = {}, {}, {}
    for key in TISSUES:
        flow, sd, inside = (
            to_volume(part[key].numpy(), data.slice_axis)
            for part in (found.flows, found.sds, found.inside)
        )
        maps[f"{key}_cbf"] = flow
        sds[f"{key}_cbf_sd"] = np.hypot(sd, unit.calibration_sd * np.abs(flow))
        within[f"{key}_cbf"] = inside
    fractions = {key: np.nan_to_num(tissue[key]) * unit.mask for key in TISSUES}
    (gm, wm) = ((flow, FLOW_SD * abs(flow)) for flow in found.means.flows)
    flows = TissueFlows(
        maps,
        sds,
        within,
        fractions,
        mix(data.observation, stack),
        (gm, wm),
        found.wrong,
        unit.calibration_sd,
        data.prior,
        data.slice_axis,
        unit.signals.shared if unit.signals is not None else 1.0,
        found.facts,
    )
    from asl_bids_app.anatomy.partial_volume_regions import tissue_values

    whole = tissue_values(flows, unit.mask)
    values = {
        f"{k}_{what}": round(whole[f"{k}_cbf_{what}"], 3)
        for k in TISSUES
        for what in ("mean", "se")
    }
    return replace(flows, facts={**found.facts, "mean": values})


def write_flows(
    folder: Path, unit: UnitMaps, flows: TissueFlows, anatomy: Mapping[str, Any]
) -> list[Path]:
    """Write the maps of a series in its own space.

    Parameters
    ----------
    folder
        The `perf` folder.
    unit, flows
    anatomy
        What was done, for sidecars.
    """
    from asl_bids_app.bids.derivatives import write_image
    from asl_bids_app.bids.outputs import OUTPUTS

    sidecar = {**unit.sidecar, **about(flows), "Anatomy": dict(anatomy)}
    images = {**flows.sds, **flows.maps}
    return [
        write_image(folder, unit.entities, OUTPUTS[key], image, unit.affine, sidecar)
        for key, image in images.items()
    ]


def about(flows: TissueFlows) -> dict[str, Any]:
    """Return what sidecars of these maps say other than those of the main maps."""
    method = flows.facts["Method"]
    words = {
        "bayesian": "partial volume correction: flows of both tissues as Gaussian fields",
        "linear": "partial volume correction: linear regression in a kernel, Asllani 2008, "
        "doi:10.1002/mrm.21670",
    }
    return {
        "EstimationMethod": words[method],
        "Model": None,
        "ErrorBars": "total" if flows.calibration_sd else "noise",
        "PartialVolumeCorrection": dict(flows.facts),
    }
