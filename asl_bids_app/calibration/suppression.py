"""By how much background suppression weakens the label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from asl_bids_app.bids.spans import SPANS, show, to_number
from asl_bids_app.calibration.published import PULSE_EFFICIENCY, USUAL_PULSES
from asl_bids_app.calibration.values import CalibrationOptions
from asl_bids_app.constants import Quantity, Source
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice

NUMBER_PULSES: Final = "BackgroundSuppressionNumberPulses"
PULSE_TIME: Final = "BackgroundSuppressionPulseTime"


def suppression_loss(
    metadata: Mapping[str, Any], options: CalibrationOptions, path: str
) -> tuple[Quantity, list[Notice]]:
    """Return the factor by which all pulses together weaken the label, and warnings."""
    if not metadata.get("BackgroundSuppression", False):
        return Quantity(1.0, "", Source.SIDECAR, "no background suppression"), []
    warnings: list[Notice] = []
    pulses, listed = _pulses(metadata, path)
    origin = Source.SIDECAR
    if pulses is None and listed is not None:
        pulses = listed
        origin = Source.INFERRED
    elif listed not in {None, pulses}:
        expected = f"{pulses} as in {NUMBER_PULSES}, which is used"
        warnings.append(Notice(path, PULSE_TIME, f"{listed} times", expected))
    if pulses is None:
        pulses = USUAL_PULSES
        origin = Source.INFERRED
        outcome = f"{USUAL_PULSES} assumed (--bs-efficiency 1 takes none into account)"
        warnings.append(Notice(path, NUMBER_PULSES, "nothing", "the number of pulses", outcome))
    if pulses == 0:
        warnings.append(
            Notice(
                path,
                NUMBER_PULSES,
                "0 with BackgroundSuppression true",
                "at least 1 pulse",
                "no loss of label by the pulses is taken into account",
            )
        )
    each, reference = PULSE_EFFICIENCY
    given = options.given("bs_efficiency", "")
    if given:
        each, reference, origin = given.value, given.note, given.source
    elif origin is Source.SIDECAR:
        reference = f"{reference}; number of pulses from the sidecar"
    note = f"{each:g} for each of {pulses:g} pulses, {reference}"
    # The number of pulses may come from the sidecar, the factor never does.
    origin = Source.DEFAULT if origin is Source.SIDECAR else origin
    file = given.file if given else ""
    return Quantity(each ** float(pulses), "", origin, note, file), warnings


def _pulses(metadata: Mapping[str, Any], path: str) -> tuple[int | None, int | None]:
    """Return the number of pulses that a sidecar gives, and that of the times it lists."""
    key = NUMBER_PULSES
    given, span = metadata.get(key), SPANS[key]
    number = to_number(given)
    if given is not None and (number is None or number not in span or number % 1):
        raise InputError(path, key, show(given), f"a whole number of pulses, {span}")
    key = PULSE_TIME
    times, span = metadata.get(key), SPANS[key]
    if times is None:
        return (None if number is None else int(number)), None
    values = times if isinstance(times, list) else [times]
    read = [to_number(value) for value in values]
    if not read or any(value is None or value not in span for value in read):
        expected = f"the times of the pulses in seconds, {span}"
        raise InputError(path, key, show(times), expected, "correct it, or remove the key")
    return (None if number is None else int(number)), len(read)


def suppression_uncertainty(
    metadata: Mapping[str, Any], measured: float, lost: Quantity, path: str
) -> list[Notice]:
    """Tell that an efficiency of a sidecar may or may not contain the loss by suppression."""
    pulses = metadata.get(NUMBER_PULSES)
    beside = "background suppression" if pulses is None else f"{pulses:g} suppression pulses"
    each = PULSE_EFFICIENCY[0]
    outcome = (
        "taken so. If it was measured without them (by phase contrast, or simulated), give "
        f"--bs-efficiency {each:g}: the efficiency is then {measured * lost.value:.4g} and CBF "
        f"{1 / lost.value - 1:.0%} higher; --bs-efficiency 1 confirms that it contains it"
    )
    found = f"{measured:g} beside {beside}"
    return [Notice(path, "LabelingEfficiency", found, "it to contain their loss", outcome)]
