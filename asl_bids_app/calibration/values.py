"""The constants of a quantification, and the ranges in which they can lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final

from asl_bids_app.constants import ConstantKey, Origin, Quantity, Source
from asl_bids_app.errors import InputError
from asl_bids_app.schemes import Scheme


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
    """What the options say of the calibration; None leaves it to the data.

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
    origins : mapping of str to Origin
        Where each was given, by its name; the command line by default.
    """

    t1_blood: float | None = None
    t1_tissue: float | None = None
    partition_coefficient: float | None = None
    labeling_efficiency: Mapping[Scheme, float] = field(default_factory=dict)
    bs_efficiency: float | None = None
    m0_scale: float | None = None
    origins: Mapping[str, Origin] = field(default_factory=dict)

    def given(self, name: str, unit: str, scheme: Scheme | None = None) -> Quantity | None:
        """Return a constant that was given, with where; None for one that wasn't."""
        value = getattr(self, name)
        if scheme is not None:
            value = value.get(scheme)
        if value is None:
            return None
        origin = self.origins.get(name, Origin())
        note = " ".join(filter(None, (origin.spell(name), scheme and scheme.value)))
        return Quantity(value, unit, origin.source, note, origin.file)


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


_NO_OPTION: Final = frozenset(Source) - {Source.COMMAND_LINE, Source.CONFIG_FILE}


def check_ranges(calibration: Calibration, path: str) -> None:
    """Check that every constant can be.

    Parameters
    ----------
    calibration
        The constants.
    path
        What an error calls the source of a constant that no option gave.

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
                path if quantity.source in _NO_OPTION else str(quantity.origin),
                quantity.note or str(key),
                f"{quantity.value:g}{unit}",
                f"{low:g} to {high:g}{unit}",
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
