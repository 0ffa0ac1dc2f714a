"""The constants of a protocol from arguments of Python, each with where it came from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from asl_bids_app.errors import InputError

if TYPE_CHECKING:
    from asl_bids_app.calibration import Calibration
    from asl_bids_app.protocol import Protocol

CALL: Final = "quantify"
"""What an error calls the function, which has no file."""


def is_number(value: Any) -> bool:
    """Tell whether a single value of an argument is a real number."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(
        value, bool
    )


def calibration_of(
    protocol: Protocol,
    *,
    labeling_efficiency: float | Mapping[str, float] | None,
    suppression_efficiency: float,
    t1_blood: float | None,
    t1_tissue: float | None,
    partition_coefficient: float | None,
    field_strength: float,
) -> Calibration:
    """Return the constants of a protocol, each with where it came from.

    Arguments are those of `asl_bids_app.arrays.quantify`.

    Raises
    ------
    InputError
        If a constant is out of range, or there is no default at the field strength.
    """
    from asl_bids_app.calibration import check_ranges, default_constants
    from asl_bids_app.constants import Quantity, Source

    def given(value: Any, unit: str, name: str) -> Quantity:
        number = float(value) if is_number(value) else math.nan
        if not math.isfinite(number):
            raise InputError(CALL, name, repr(value), "a number")
        return Quantity(number, unit, Source.ARGUMENT, name)

    schemes = tuple(dict.fromkeys(protocol.schemes))
    usual = default_constants(
        schemes,
        field_strength,
        None if t1_blood is None else given(t1_blood, "s", "t1_blood"),
        CALL,
    )
    by_scheme: dict[str, float | None]
    if isinstance(labeling_efficiency, Mapping):
        by_scheme = dict(labeling_efficiency)
    else:
        by_scheme = dict.fromkeys((scheme.value for scheme in schemes), labeling_efficiency)
    efficiency = dict(usual.labeling_efficiency)
    for scheme in schemes:
        value = by_scheme.pop(scheme.value, None)
        if value is not None:
            efficiency[scheme] = given(value, "", "labeling_efficiency")
    if by_scheme:
        known = ", ".join(scheme.value for scheme in schemes)
        raise InputError(
            CALL, "labeling_efficiency", str(next(iter(by_scheme))), f"one of {known}"
        )
    calibration = replace(usual, labeling_efficiency=efficiency)
    suppression = given(suppression_efficiency, "", "suppression_efficiency")
    calibration = replace(calibration, suppression=dict.fromkeys(schemes, suppression))
    if t1_tissue is not None:
        calibration = replace(calibration, t1_tissue=given(t1_tissue, "s", "t1_tissue"))
    if partition_coefficient is not None:
        partition = given(partition_coefficient, "mL/g", "partition_coefficient")
        calibration = replace(calibration, partition_coefficient=partition)
    check_ranges(calibration, CALL)
    return calibration
