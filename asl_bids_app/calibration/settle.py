"""Settling the constants of a run: from an option, its sidecar or a default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asl_bids_app.bids.labelling import label_module
from asl_bids_app.bids.spans import SPANS, show, to_number
from asl_bids_app.calibration.published import (
    PARTITION_COEFFICIENT,
    T1_BLOOD,
    T1_TISSUE_M0,
    by_field_strength,
)
from asl_bids_app.calibration.suppression import suppression_loss, suppression_uncertainty
from asl_bids_app.calibration.values import Calibration, CalibrationOptions, check_ranges
from asl_bids_app.constants import Quantity, Source
from asl_bids_app.errors import Faults, InputError
from asl_bids_app.notices import Notice
from asl_bids_app.schemes import SCHEMES, Scheme

if TYPE_CHECKING:
    from asl_bids_app.bids.scaling import M0Factor


def _m0_scale(options: CalibrationOptions, factor: M0Factor | None) -> Quantity:
    given = options.given("m0_scale", "")
    if given or factor is None:
        return given or Quantity(1.0, "", Source.DEFAULT)
    return Quantity(factor.value, "", Source.INFERRED, factor.why)


def _default_efficiency(
    scheme: Scheme, metadata: Mapping[str, Any], path: str
) -> tuple[Quantity, list[Notice]]:
    """Return the default efficiency of a scheme, by its label module where there are several."""
    info = SCHEMES[scheme]
    value, source, origin, kind = info.labeling_efficiency, info.source, Source.DEFAULT, ""
    if not info.modules:
        return Quantity(value, "", origin, source), []
    known = label_module(metadata)
    if known:
        module, by, stated = known
        value, source = info.modules[module]
        kind = f"{module.value}, by {by}"
        origin = Source.DEFAULT if stated else Source.INFERRED
    else:
        kind = "as of inversion: nothing says inversion (VSI) or saturation (VSS)"
    warning = Notice(
        path,
        "LabelingEfficiency",
        "nothing",
        f"the measured efficiency of the {info.title} module",
        f"{value:g} assumed ({kind})",
    )
    return Quantity(value, "", origin, f"{kind}; {source}"), [warning]


def _measured_efficiency(metadata: Mapping[str, Any], path: str) -> float | None:
    measured = metadata.get("LabelingEfficiency")
    if measured is None:
        return None
    number, span = to_number(measured), SPANS["LabelingEfficiency"]
    if number is None or number not in span:
        raise InputError(path, "LabelingEfficiency", show(measured), f"one number, {span}")
    return number


@dataclass(frozen=True)
class _Keys:
    """What the sidecar's keys say of a run's constants, read once."""

    t1_blood: Quantity
    suppression: Quantity
    warnings: list[Notice]
    efficiency: float | None


def _read_keys(
    metadata: Mapping[str, Any], options: CalibrationOptions, path: str, given: bool
) -> _Keys:
    """Read the keys; all faults at once. The sidecar's efficiency counts unless one is given."""
    faults = Faults()
    with faults.collect():
        t1_blood = options.given("t1_blood", "s")
        if t1_blood is None:
            tesla, (value, reference) = by_field_strength(T1_BLOOD, metadata, path, "--t1-blood")
            t1_blood = Quantity(value, "s", Source.DEFAULT, f"{tesla:g} T, {reference}")
    with faults.collect():
        suppression, warnings = suppression_loss(metadata, options, path)
    efficiency = None
    if not given:
        with faults.collect():
            efficiency = _measured_efficiency(metadata, path)
    faults.check()
    return _Keys(t1_blood, suppression, warnings, efficiency)


def check_keys(metadata: Mapping[str, Any], options: CalibrationOptions, path: str) -> None:
    """Check the keys that constants come from, whatever the scheme.

    Parameters
    ----------
    metadata, options, path
        As for `resolve`.

    Raises
    ------
    InputError
        All faults at once.
    """
    _read_keys(metadata, options, path, bool(options.labeling_efficiency))


def resolve(
    scheme: Scheme,
    metadata: Mapping[str, Any],
    options: CalibrationOptions,
    path: str,
    m0_factor: M0Factor | None = None,
) -> tuple[Calibration, list[Notice]]:
    """Settle every constant of one run, from an option, its sidecar or a default.

    Parameters
    ----------
    scheme
        Labelling scheme of the run.
    metadata
        Its sidecar, inheritance applied.
    options
        What was given; it outranks the sidecar.
    path
        The sidecar's name, for messages.
    m0_factor
        What makes the M0 comparable with the ASL image, as their sidecars tell.

    Returns
    -------
    Calibration, list of Notice
        The constants, and warnings for the log, the sidecars and the report.

    Raises
    ------
    InputError
        If a value is out of range, or the field strength has no default.
    """
    efficiency = options.given("labeling_efficiency", "", scheme)
    keys = _read_keys(metadata, options, path, efficiency is not None)
    t1_blood, suppression, warnings = keys.t1_blood, keys.suppression, keys.warnings
    t1_tissue = options.given("t1_tissue", "s") or Quantity(
        t1_blood.value, "s", Source.DEFAULT, "equal to that of blood, doi:10.1002/mrm.25197"
    )
    try:
        tesla, value = by_field_strength(T1_TISSUE_M0, metadata, path, "--t1-blood")
        note = f"{tesla:g} T, Wright 2008, doi:10.1007/s10334-008-0104-8"
        t1_tissue_m0 = Quantity(value, "s", Source.DEFAULT, note)
    except InputError:
        # Reached only with --t1-blood given: other field strengths are the user's to know.
        t1_tissue_m0 = Quantity(t1_tissue.value, "s", Source.INFERRED, "equal to t1_tissue")

    value, reference = PARTITION_COEFFICIENT
    partition = options.given("partition_coefficient", "mL/g") or Quantity(
        value, "mL/g", Source.DEFAULT, reference
    )

    measured = keys.efficiency
    if measured is not None:
        efficiency = Quantity(measured, "", Source.SIDECAR, "LabelingEfficiency")
        if options.bs_efficiency is None:
            lost = suppression
            suppression = Quantity(
                1.0, "", Source.SIDECAR, "contained in the LabelingEfficiency of the sidecar"
            )
            warnings = []
            if lost.value < 1:
                warnings = suppression_uncertainty(metadata, measured, lost, path)
    if efficiency is None:
        efficiency, assumed = _default_efficiency(scheme, metadata, path)
        warnings += assumed
    calibration = Calibration(
        t1_blood,
        t1_tissue,
        partition,
        {scheme: efficiency},
        {scheme: suppression},
        t1_tissue_m0,
        _m0_scale(options, m0_factor),
    )
    check_ranges(calibration, path)
    return calibration, warnings
