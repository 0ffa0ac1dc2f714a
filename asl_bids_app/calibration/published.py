"""Published constants, each with its source, and the defaults that they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from asl_bids_app.bids.spans import show, to_number
from asl_bids_app.calibration.values import Calibration
from asl_bids_app.constants import Quantity, Source
from asl_bids_app.errors import InputError
from asl_bids_app.schemes import SCHEMES, Scheme

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


def by_field_strength(
    table: Mapping[float, Any], metadata: Mapping[str, Any], path: str, option: str
) -> tuple[float, Any]:
    """Return the field strength of a sidecar, and the row of a table that belongs to it."""
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
