"""How runs are read and joined, as the options say."""

from __future__ import annotations

from dataclasses import dataclass

from asl_bids_app.bids.sidecar import InputOptions
from asl_bids_app.calibration import CalibrationOptions
from asl_bids_app.options.table import AppOptions
from asl_bids_app.schemes import Scheme


@dataclass(frozen=True)
class Reading:
    """What the options say of how runs are read and joined.

    Attributes
    ----------
    inputs : InputOptions
    calibration : CalibrationOptions
    joint : str
        Of `asl_bids_app.bids.sessions.group`.
    participants : tuple of str
        Labels that were asked for by name.
    """

    inputs: InputOptions
    calibration: CalibrationOptions
    joint: str
    participants: tuple[str, ...]


def choose_reading(options: AppOptions) -> Reading:
    """Return how runs are read and joined."""
    efficiency = dict.fromkeys(Scheme, options.labeling_efficiency.get(""))
    for name, value in options.labeling_efficiency.items():
        if name:
            efficiency[Scheme(name)] = value
    calibration = CalibrationOptions(
        t1_blood=options.t1_blood,
        t1_tissue=options.t1_tissue,
        partition_coefficient=options.partition_coefficient,
        labeling_efficiency={s: v for s, v in efficiency.items() if v is not None},
        bs_efficiency=options.bs_efficiency,
        m0_scale=options.m0_scale,
        origins=options.origins,
    )
    inputs = InputOptions(
        bolus_duration=options.bolus_duration,
        lenient=options.skip_bids_validation,
        m0_scale=options.m0_scale,
        bolus_option=options.origin("bolus_duration").describe("bolus_duration"),
    )
    return Reading(inputs, calibration, options.joint, options.participant_label)
