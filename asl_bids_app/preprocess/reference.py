"""The reference region of a calibration: the fluid of the lateral ventricles (``csf``).

The region: voxels of pure fluid where the ventricles lie in MNI152. `fluid_m0` finds the M0 of
blood from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from asl_bids_app.bids.acquisition import M0Kind
from asl_bids_app.bids.sessions import PlannedRun, Unit
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice
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
