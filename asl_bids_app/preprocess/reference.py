"""One M0 of blood from a reference region, the fluid of the lateral ventricles (``csf``).

The region: voxels of pure fluid where the ventricles lie in MNI152. One number serves the whole
brain, so what the coils do to the image must be known: their smooth sensitivity is found from
the M0 image and its tissue fractions, and the M0 of blood follows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import ndimage

from asl_bids_app.bids.acquisition import M0Kind
from asl_bids_app.bids.sessions import PlannedRun, Unit
from asl_bids_app.calibration.fluid import FluidConstants, fluid_constants, mean_recovered
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice
from asl_bids_app.preprocess.m0 import recovery, tissue_m0_of_blood
from asl_bids_app.preprocess.robust import residual_sd
from asl_bids_app.preprocess.sensitivity import find_sensitivity
from asl_bids_app.preprocess.ventricles import CURE, OPTION, lay_template, ventricles

if TYPE_CHECKING:
    from asl_bids_app.preprocess.prepare import PreparedRun
    from asl_bids_app.preprocess.tissue_maps import TissueMaps

PURE: Final = 0.9
"""Fraction of fluid from which a voxel counts, as in asl_calib."""
AROUND: Final = 0.5
"""Fraction of fluid that the voxels at its sides hold at least: the region is eroded so."""
LEAST_VOXELS: Final = 10
"""Voxels below which a region is too small to be believed."""
USUAL: Final = (0.9, 2.2)
"""M0 of fluid over the median M0 of tissue in the brain, water content and decay together."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A region of pure fluid.

    Attributes
    ----------
    where : array of bool, shape (X, Y, Z)
    tissue : mapping of str to array, shape (X, Y, Z)
        Fractions, by which the sensitivity of the coils is found.
    source : str
        Where the fractions come from.
    """

    where: np.ndarray
    tissue: Mapping[str, np.ndarray]
    source: str


def choose_reference(
    unit: Unit, calibration: str, prepared: PreparedRun, tissue: TissueMaps | None
) -> tuple[Reference | None, tuple[Notice, ...]]:
    """Return the region by which a unit is calibrated, or None for the M0 of each voxel.

    Parameters
    ----------
    unit
    calibration
        ``voxelwise``, ``csf`` or ``csf-or-voxelwise``.
    prepared, tissue
        Its first run, and the tissue in it.

    Returns
    -------
    Reference or None, tuple of Notice
        With ``csf-or-voxelwise`` a warning where there is no region.

    Raises
    ------
    InputError
        With ``csf``, if there is no region.
    """
    if calibration == "voxelwise":
        return None, ()
    try:
        for run in unit.runs:
            check_image(run)
        return find_reference(prepared, tissue, unit.runs[0].acquisition.path.name), ()
    except InputError as error:
        if calibration == "csf":
            raise
        outcome = "calibrated by the M0 of each voxel"
        return None, (Notice(error.file, error.field, error.found, error.expected, outcome),)


def check_image(run: PlannedRun) -> None:
    """Refuse a run whose M0 is a number.

    Raises
    ------
    InputError
    """
    if run.acquisition.m0.kind is M0Kind.ESTIMATE:
        found = "M0Type Estimate, a number"
        raise InputError(run.acquisition.path.name, OPTION, found, "an M0 image", CURE)


def find_reference(prepared: PreparedRun, tissue: TissueMaps | None, name: str) -> Reference:
    """Find voxels of pure fluid in the lateral ventricles.

    Parameters
    ----------
    prepared
        The run.
    tissue
        Its tissue.
    name
        What an error calls the run.

    Raises
    ------
    InputError
        If there are no tissue maps, or too little fluid.
    """
    if tissue is None or not tissue.maps:
        raise InputError(name, OPTION, "no tissue maps that fit", "a region of fluid", CURE)
    matrix = tissue.matrix
    if matrix is None:
        matrix = lay_template(prepared, name)
    fluid = np.asarray(tissue.maps["csf"], np.float32)
    cross = ndimage.generate_binary_structure(3, 1)
    least = ndimage.minimum_filter(fluid, footprint=cross, mode="nearest")
    where = prepared.mask & (fluid >= PURE) & (least >= AROUND)
    where &= ventricles(matrix, prepared.mask.shape, prepared.affine)
    count = int(where.sum())
    if count < LEAST_VOXELS:
        raise InputError(
            name,
            OPTION,
            f"{count} voxels of pure fluid in the lateral ventricles",
            f"{LEAST_VOXELS} or more",
            CURE,
        )
    return Reference(where, tissue.maps, str(tissue.facts.get("source", "")))


def calibrate_by_fluid(run: PlannedRun, prepared: PreparedRun, found: Reference) -> PreparedRun:
    """Put one M0, that of blood by a region of fluid, in the place of each voxel's own.

    Parameters
    ----------
    run
        The run with its constants.
    prepared
        Its ΔM/M0 by the M0 of each voxel, on the grid of `found`.
    found
        The region.

    Returns
    -------
    PreparedRun
        With ΔM over the M0 of tissue that stands for that of blood.

    Raises
    ------
    InputError
        If too little of the region lies in its brain mask.
    """
    acquisition, name = run.acquisition, run.acquisition.path.name
    constants = fluid_constants(acquisition.metadata, acquisition.m0.echo_time)
    m0, mask, where = prepared.m0, prepared.mask, found.where & prepared.mask
    if where.sum() < LEAST_VOXELS:
        raise InputError(
            name,
            OPTION,
            f"{int(where.sum())} voxels of pure fluid inside its brain mask",
            f"{LEAST_VOXELS} or more",
            CURE,
        )
    sensitivity = find_sensitivity(m0, mask, found.tissue, prepared.affine)
    sensitivity = sensitivity / sensitivity[where].mean()
    values = m0[where] / sensitivity[where]
    mean, count = float(values.mean()), int(where.sum())
    times = prepared.facts.get("m0", {}).get("repetition_times") or acquisition.m0.repetition_time
    t1 = run.calibration.t1_tissue_m0.value
    short = mean_recovered(constants, times, [1 / recovery(time, t1) for time in times])
    blood = constants.blood_of(mean / short)
    one = tissue_m0_of_blood(blood, run.calibration.partition_coefficient.value)
    reference = (one * sensitivity * mask).astype(np.float32)
    ratio = np.where(mask, m0 / np.where(mask, reference, 1), 0).astype(np.float32)[..., None]
    sd = float(residual_sd(values - np.median(values)))
    facts = _facts(constants, mean, mean / short, blood, one, sd, count, found.source)
    low, high = np.percentile(sensitivity[mask], [2.5, 97.5])
    facts["sensitivity"] = [round(float(low), 3), round(float(high), 3)]
    return replace(
        prepared,
        delta_m=prepared.delta_m * ratio,
        standard_error=prepared.standard_error * ratio,
        m0=reference,
        head=m0 if prepared.head is None else prepared.head,
        facts={**prepared.facts, "m0": {**prepared.facts.get("m0", {}), "reference": facts}},
        warnings=(*prepared.warnings, *_doubts(name, m0, found, mean, sd)),
    )


def _facts(
    constants: FluidConstants,
    mean: float,
    m0_of_fluid: float,
    blood: float,
    one: float,
    sd: float,
    count: int,
    source: str,
) -> dict[str, Any]:
    return {
        "region": "fluid of the lateral ventricles",
        "voxels": count,
        "tissue": source,
        "signal": round(mean, 4),
        "signal_se": round(sd / float(np.sqrt(count)), 4),
        "m0_fluid": round(m0_of_fluid, 4),
        "m0_blood": round(blood, 4),
        "m0_tissue": round(one, 4),
        "echo_time_s": constants.blood_echo_time or "not known: no correction for T2",
        "constants": constants.to_json(),
    }


def _doubts(
    name: str, m0: np.ndarray, found: Reference, mean: float, sd: float
) -> tuple[Notice, ...]:
    """Say what is odd about the signal of the fluid."""
    notices = []
    solid = found.tissue["gm"] + found.tissue["wm"] > PURE
    usual = float(np.median(m0[solid])) if solid.any() else mean
    if not USUAL[0] <= mean / usual <= USUAL[1]:
        notices.append(
            Notice(
                name,
                OPTION,
                f"fluid {mean / usual:.2f} times as bright as tissue in the M0",
                f"{USUAL[0]:g} to {USUAL[1]:g} times",
                "CBF is scaled by it: look at the M0, or give --calibration voxelwise",
            )
        )
    if sd > 0.2 * mean:
        notices.append(
            Notice(
                name,
                OPTION,
                f"a spread of {sd / mean:.0%} over the fluid's voxels",
                "20% or less",
                "the region may hold other than fluid",
            )
        )
    return tuple(notices)
