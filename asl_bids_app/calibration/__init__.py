"""The constants that turn signal into CBF, each with its value and where it came from."""

from asl_bids_app.calibration.published import (
    FIELD_TOLERANCE,
    PARTITION_COEFFICIENT,
    PULSE_EFFICIENCY,
    T1_BLOOD,
    T1_TISSUE_M0,
    USUAL_PULSES,
    default_constants,
)
from asl_bids_app.calibration.settle import check_keys, resolve
from asl_bids_app.calibration.values import Calibration, CalibrationOptions, check_ranges, join

__all__ = [
    "FIELD_TOLERANCE",
    "PARTITION_COEFFICIENT",
    "PULSE_EFFICIENCY",
    "T1_BLOOD",
    "T1_TISSUE_M0",
    "USUAL_PULSES",
    "Calibration",
    "CalibrationOptions",
    "check_keys",
    "check_ranges",
    "default_constants",
    "join",
    "resolve",
]
