"""A run calibrated by the M0 of blood that the fluid of a reference region gives.

One number serves the whole brain, so what the coils do to the image must be known: their smooth
sensitivity is found from the M0 image and its tissue fractions, and the M0 of blood follows it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from asl_bids_app.bids.sessions import PlannedRun
from asl_bids_app.calibration.fluid import FluidConstants, fluid_constants, mean_recovered
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice
from asl_bids_app.preprocess.m0 import recovery, tissue_m0_of_blood
from asl_bids_app.preprocess.reference import LEAST_VOXELS, PURE, Reference
from asl_bids_app.preprocess.robust import residual_sd
from asl_bids_app.preprocess.sensitivity import find_sensitivity
from asl_bids_app.preprocess.ventricles import CURE, OPTION

if TYPE_CHECKING:
    from asl_bids_app.preprocess.prepare import PreparedRun

USUAL: Final = (0.9, 2.2)
"""M0 of fluid over the median M0 of tissue in the brain, water content and decay together."""


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
