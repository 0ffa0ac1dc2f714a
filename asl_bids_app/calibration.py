"""The constants that turn signal into CBF, each with its value and where it came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from asl_bids_app.bids.labelling import label_module
from asl_bids_app.bids.spans import SPANS, show, to_number
from asl_bids_app.constants import ConstantKey, Quantity, Source
from asl_bids_app.errors import COMMAND_LINE, Faults, InputError
from asl_bids_app.notices import Notice
from asl_bids_app.schemes import SCHEMES, Scheme

if TYPE_CHECKING:
    from asl_bids_app.bids.scaling import M0Factor


@dataclass(frozen=True)
class Calibration:
    """Every constant of the quantification of one series.

    Attributes
    ----------
    t1_blood, t1_tissue : Quantity
        Seconds. `t1_tissue` is that of the kinetics; by default it equals `t1_blood`.
    partition_coefficient : Quantity
        mL/g.
    labeling_efficiency : mapping of Scheme to Quantity
        Without background suppression, or with it where a sidecar says it was measured.
    suppression : mapping of Scheme to Quantity
        The factor by which all background-suppression pulses together weaken the label.
    t1_tissue_m0 : Quantity
        Seconds; corrects the M0 of a short repetition time.
    m0_scale : Quantity
        The M0 image is multiplied by it.
    """

    t1_blood: Quantity
    t1_tissue: Quantity
    partition_coefficient: Quantity
    labeling_efficiency: Mapping[Scheme, Quantity]
    suppression: Mapping[Scheme, Quantity]
    t1_tissue_m0: Quantity
    m0_scale: Quantity

    def effective_efficiency(self, scheme: Scheme) -> float:
        """Return the labelling efficiency times the loss by background suppression."""
        return self.labeling_efficiency[scheme].value * self.suppression[scheme].value

    def items(self) -> list[tuple[ConstantKey, Quantity]]:
        """Return (key, quantity) of every constant, in the order of reports."""
        rows: list[tuple[ConstantKey, Quantity]] = []
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Quantity):
                rows.append((ConstantKey(item.name), value))
            else:
                rows += [(ConstantKey(item.name, s.value), q) for s, q in value.items()]
        return rows

    def to_json(self) -> dict[str, Any]:
        """Return all constants for a sidecar or a run report."""
        return {str(key): quantity.to_json() for key, quantity in self.items()}


@dataclass(frozen=True)
class CalibrationOptions:
    """What the command line says of the calibration; None leaves it to the data.

    Attributes
    ----------
    t1_blood, t1_tissue : float or None
        Seconds.
    partition_coefficient : float or None
        mL/g.
    labeling_efficiency : mapping of Scheme to float
        Fractions.
    bs_efficiency : float or None
        Fraction of the label that one background-suppression pulse leaves.
    m0_scale : float or None
    """

    t1_blood: float | None = None
    t1_tissue: float | None = None
    partition_coefficient: float | None = None
    labeling_efficiency: Mapping[Scheme, float] = field(default_factory=dict)
    bs_efficiency: float | None = None
    m0_scale: float | None = None


T1_BLOOD: Final = MappingProxyType(
    {
        1.5: (1.35, "Alsop 2015, doi:10.1002/mrm.25197"),
        3.0: (1.65, "Alsop 2015, doi:10.1002/mrm.25197"),
        7.0: (2.087, "Zhang 2013, doi:10.1002/mrm.24550"),
    }
)
"""T1 of arterial blood in seconds by field strength in tesla."""

T1_TISSUE_M0: Final = MappingProxyType({1.5: 1.197, 3.0: 1.607, 7.0: 1.939})
"""T1 of grey matter in seconds by field strength, Wright 2008, doi:10.1007/s10334-008-0104-8."""

FIELD_TOLERANCE: Final = 0.2
"""Tesla: scanners sold as 3 T report 2.89 T, those sold as 7 T 6.98 T."""

PARTITION_COEFFICIENT: Final = (0.9, "Herscovitch 1985, doi:10.1038/jcbfm.1985.9")
PULSE_EFFICIENCY: Final = (0.95, "Garcia 2005, doi:10.1002/mrm.20556")
USUAL_PULSES: Final = 2
"""Background-suppression pulses assumed when a sidecar doesn't give their number."""
NUMBER_PULSES: Final = "BackgroundSuppressionNumberPulses"
PULSE_TIME: Final = "BackgroundSuppressionPulseTime"


def _given(value: float | None, option: str, unit: str) -> Quantity | None:
    if value is None:
        return None
    return Quantity(value, unit, Source.COMMAND_LINE, option)


def _by_field_strength(
    table: Mapping[float, Any], metadata: Mapping[str, Any], path: str, option: str
) -> tuple[float, Any]:
    given = metadata.get("MagneticFieldStrength")
    strength = to_number(given)
    if strength is None:
        raise InputError(
            path,
            "MagneticFieldStrength",
            "nothing" if given is None else show(given),
            "the field strength in tesla",
            f"complete the sidecar or give {option}",
        )
    for tesla, row in table.items():
        if abs(strength - tesla) <= FIELD_TOLERANCE:
            return tesla, row
    raise InputError(
        path,
        "MagneticFieldStrength",
        f"{strength:g} T",
        "one of " + ", ".join(f"{tesla:g}" for tesla in table) + " T",
        f"give {option}",
    )


def _suppression(
    metadata: Mapping[str, Any], options: CalibrationOptions, path: str
) -> tuple[Quantity, list[Notice]]:
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
    if options.bs_efficiency is not None:
        each, reference, origin = options.bs_efficiency, "--bs-efficiency", Source.COMMAND_LINE
    elif origin is Source.SIDECAR:
        reference = f"{reference}; number of pulses from the sidecar"
    note = f"{each:g} for each of {pulses:g} pulses, {reference}"
    # The number of pulses may come from the sidecar, the factor never does.
    origin = Source.DEFAULT if origin is Source.SIDECAR else origin
    return Quantity(each ** float(pulses), "", origin, note), warnings


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


def _suppression_uncertainty(
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


def _m0_scale(options: CalibrationOptions, factor: M0Factor | None) -> Quantity:
    given = _given(options.m0_scale, "--m0-scale", "")
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
    warnings: list[str]
    efficiency: float | None


def _read_keys(
    metadata: Mapping[str, Any], options: CalibrationOptions, path: str, given: bool
) -> _Keys:
    """Read the keys; all faults at once. The sidecar's efficiency counts unless one is given."""
    faults = Faults()
    with faults.collect():
        t1_blood = _given(options.t1_blood, "--t1-blood", "s")
        if t1_blood is None:
            tesla, (value, reference) = _by_field_strength(T1_BLOOD, metadata, path, "--t1-blood")
            t1_blood = Quantity(value, "s", Source.DEFAULT, f"{tesla:g} T, {reference}")
    with faults.collect():
        suppression, warnings = _suppression(metadata, options, path)
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
    """Settle every constant of one run, from command line, sidecar or default.

    Parameters
    ----------
    scheme
        Labelling scheme of the run.
    metadata
        Its sidecar, inheritance applied.
    options
        What the command line says; it outranks the sidecar.
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
    efficiency = _given(
        options.labeling_efficiency.get(scheme), f"--labeling-efficiency {scheme.value}", ""
    )
    keys = _read_keys(metadata, options, path, efficiency is not None)
    t1_blood, suppression, warnings = keys.t1_blood, keys.suppression, keys.warnings
    t1_tissue = _given(options.t1_tissue, "--t1-tissue", "s") or Quantity(
        t1_blood.value, "s", Source.DEFAULT, "equal to that of blood, doi:10.1002/mrm.25197"
    )
    try:
        tesla, value = _by_field_strength(T1_TISSUE_M0, metadata, path, "--t1-blood")
        note = f"{tesla:g} T, Wright 2008, doi:10.1007/s10334-008-0104-8"
        t1_tissue_m0 = Quantity(value, "s", Source.DEFAULT, note)
    except InputError:
        # Reached only with --t1-blood given: other field strengths are the user's to know.
        t1_tissue_m0 = Quantity(t1_tissue.value, "s", Source.INFERRED, "equal to t1_tissue")

    value, reference = PARTITION_COEFFICIENT
    partition = _given(
        options.partition_coefficient, "--partition-coefficient", "mL/g"
    ) or Quantity(value, "mL/g", Source.DEFAULT, reference)

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
                warnings = _suppression_uncertainty(metadata, measured, lost, path)
    if efficiency is None:
        efficiency, told = _default_efficiency(scheme, metadata, path)
        warnings += told
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


_LIMITS: Final = MappingProxyType(
    {
        "t1_blood": (0.5, 4.0),
        "t1_tissue": (0.3, 4.0),
        "t1_tissue_m0": (0.3, 4.0),
        "partition_coefficient": (0.3, 1.5),
        "labeling_efficiency": (0.01, 1.0),
        "suppression": (0.01, 1.0),
        "m0_scale": (1e-9, 1e9),
    }
)


def check_ranges(calibration: Calibration, path: str) -> None:
    """Check that every constant can be.

    Parameters
    ----------
    calibration
        The constants.
    path
        What an error calls the source of those that the command line didn't give.

    Raises
    ------
    InputError
        Of the first that can't.
    """
    for key, quantity in calibration.items():
        low, high = _LIMITS[key.name]
        if not low <= quantity.value <= high:
            unit = f" {quantity.unit}" if quantity.unit else ""
            raise InputError(
                path if quantity.source in {Source.SIDECAR, Source.ARGUMENT} else COMMAND_LINE,
                quantity.note or str(key),
                f"{quantity.value:g}{unit}",
                f"{low:g} to {high:g}{unit}",
            )


def default_constants(
    schemes: Iterable[Scheme], field_strength: float, t1_blood: Quantity | None, path: str
) -> Calibration:
    """Return the defaults of schemes at a field strength, without background suppression.

    Parameters
    ----------
    schemes
        Of the measurements.
    field_strength
        Tesla.
    t1_blood
        Seconds; None for the default at the field strength.
    path
        What an error calls the source of the field strength.

    Raises
    ------
    InputError
        If there is no default at the field strength, and no `t1_blood`.
    """
    tesla = min(T1_BLOOD, key=lambda known: abs(known - field_strength))
    known = abs(tesla - field_strength) <= FIELD_TOLERANCE
    if t1_blood is None and not known:
        strengths = ", ".join(f"{known:g}" for known in T1_BLOOD)
        raise InputError(
            path,
            "field_strength",
            f"{field_strength:g} T",
            f"one of {strengths} T",
            "give t1_blood",
        )
    value, reference = T1_BLOOD[tesla]
    blood = t1_blood or Quantity(value, "s", Source.DEFAULT, f"{tesla:g} T, {reference}")
    rows = {scheme: SCHEMES[scheme] for scheme in schemes}
    value, reference = PARTITION_COEFFICIENT
    equal = "equal to that of blood, doi:10.1002/mrm.25197"
    return Calibration(
        blood,
        Quantity(blood.value, "s", Source.DEFAULT, equal),
        Quantity(value, "mL/g", Source.DEFAULT, reference),
        {
            s: Quantity(r.labeling_efficiency, "", Source.DEFAULT, r.source)
            for s, r in rows.items()
        },
        {s: Quantity(1.0, "", Source.DEFAULT, "no background suppression") for s in rows},
        Quantity(T1_TISSUE_M0[tesla], "s", Source.DEFAULT, "Wright 2008"),
        Quantity(1.0, "", Source.DEFAULT),
    )


def join(first: Calibration, second: Calibration) -> Calibration:
    """Merge the calibrations of two runs that are quantified together.

    The schemes must differ; the shared constants are those of the first run.

    Raises
    ------
    ValueError
        If both runs use one scheme.
    """
    shared = set(first.labeling_efficiency) & set(second.labeling_efficiency)
    if shared:
        raise ValueError(f"both runs are {', '.join(s.value for s in shared)}")
    return Calibration(
        first.t1_blood,
        first.t1_tissue,
        first.partition_coefficient,
        {**first.labeling_efficiency, **second.labeling_efficiency},
        {**first.suppression, **second.suppression},
        first.t1_tissue_m0,
        first.m0_scale,
    )
