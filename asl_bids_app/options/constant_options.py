"""Options that set constants: the group of the help named calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from asl_bids_app.options import defaults, readers
from asl_bids_app.options.declare import option

CALIBRATIONS: Final = ("voxelwise", "csf", "csf-or-voxelwise")
CALIBRATION: Final = "calibration (outranks the sidecars)"


@dataclass(frozen=True)
class ConstantOptions:
    """Constants that outrank the sidecars."""

    calibration: str = option(
        defaults.CALIBRATION,
        CALIBRATION,
        "M0 that the perfusion signal is divided by: that of each voxel (voxelwise), or that of "
        "blood by the fluid of the lateral ventricles (csf); with csf a run with too little fluid "
        "fails, with csf-or-voxelwise it is calibrated voxelwise, with a warning",
        choices=CALIBRATIONS,
    )
    t1_blood: float | None = option(
        None, CALIBRATION, "T1 of arterial blood", reader=readers.between(0.5, 4.0), metavar="S"
    )
    t1_tissue: float | None = option(
        None,
        CALIBRATION,
        "T1 of tissue in the kinetics; by default that of blood",
        reader=readers.between(0.3, 4.0),
        metavar="S",
    )
    labeling_efficiency: Mapping[str, float] = option(
        {},
        CALIBRATION,
        "labelling efficiency without background suppression, e.g. 0.8, or PCASL=0.8 VSASL=0.5",
        reader=readers.efficiency,
        metavar="[SCHEME=]VALUE",
        several=True,
    )
    """By the name of the scheme; the empty name is for every scheme."""
    bs_efficiency: float | None = option(
        None,
        CALIBRATION,
        "share of the label that one background-suppression pulse leaves; with this option the "
        "loss comes on top of a LabelingEfficiency of the sidecar",
        reader=readers.between(0.5, 1.0),
        metavar="VALUE",
    )
    partition_coefficient: float | None = option(
        None,
        CALIBRATION,
        "blood-brain partition coefficient of water",
        reader=readers.between(0.3, 1.5),
        metavar="ML/G",
    )
    bolus_duration: float | None = option(
        None,
        CALIBRATION,
        "bolus duration of a PASL run without cut-off",
        reader=readers.between(0.05, 5.0),
        metavar="S",
    )
    m0_scale: float | None = option(
        None,
        CALIBRATION,
        "factor of the M0 image",
        reader=readers.between(1e-9, 1e9),
        metavar="VALUE",
    )
    m0_smooth_fwhm: float = option(
        defaults.M0_SMOOTH_FWHM,
        CALIBRATION,
        "smoothing of the M0 image inside the brain, full width at half maximum",
        reader=readers.between(0.0, 50.0),
        metavar="MM",
    )
