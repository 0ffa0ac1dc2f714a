r"""M0 of blood from the signal of fluid: constants and formula of the field's reference region.

.. math::

    M_0^{blood} = \frac{S}{1 - e^{-TR / T_1}} \; e^{TE / T_2} \; \frac{1}{\lambda_{fluid}} \;
    e^{-TE / T_2^{blood}}

S is the mean signal of the fluid. It is what `asl_calib` and `oxasl` of the Oxford group do
("longtr"), with their constants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from asl_bids_app.bids.spans import to_number
from asl_bids_app.constants import Quantity, Source

PEERS: Final = "as in oxford_asl (asl_calib)"
T1_FLUID: Final = (4.3, PEERS)
"""Seconds."""
PARTITION_FLUID: Final = (
    1.15,
    f"{PEERS}; Herscovitch 1985, doi:10.1038/jcbfm.1985.9, with 0.87 g of water in a mL of blood",
)
"""mL/g."""
T2: Final = {
    "T2": (
        (0.75, PEERS),
        (0.15, f"{PEERS}; Lu 2012, doi:10.1002/mrm.22970"),
    ),
    "T2*": (
        (0.4, PEERS),
        (0.05, f"{PEERS}; Petersen 2006, doi:10.1002/mrm.20784"),
    ),
}
"""Seconds, of fluid and of blood, at 3 T: of spin echoes, and of gradient echoes."""
SPIN_ECHO: Final = ("GRASE", "FSE", "TSE", "SPIN", "SE", "RARE")
"""Parts of a `PulseSequenceType` or `ScanningSequence` whose echoes are spin echoes."""


@dataclass(frozen=True)
class FluidConstants:
    """What turns the signal of fluid into M0 of blood.

    Attributes
    ----------
    t1, partition : Quantity
        Of fluid: s, mL/g.
    t2, t2_blood : Quantity or None
        Seconds; T2 or T2*, see `decay`. None without an echo time.
    echo_time, blood_echo_time : float
        Of the M0 and of the ASL image, seconds; 0 where they aren't known.
    decay : str
        ``T2``, ``T2*`` or empty.
    """

    t1: Quantity
    partition: Quantity
    t2: Quantity | None = None
    t2_blood: Quantity | None = None
    echo_time: float = 0.0
    blood_echo_time: float = 0.0
    decay: str = ""

    def recovered(self, repetition_time: float) -> float:
        """Return the share of the magnetisation that recovers in a repetition time (s)."""
        return float(-np.expm1(-repetition_time / self.t1.value))

    def blood_of(self, fluid: float) -> float:
        """Return the M0 of blood, as the ASL image shows it, from fully recovered fluid."""
        blood = fluid / self.partition.value
        if self.t2 is not None and self.t2_blood is not None:
            blood *= float(
                np.exp(self.echo_time / self.t2.value - self.blood_echo_time / self.t2_blood.value)
            )
        return blood

    def to_json(self) -> dict[str, Any]:
        """Return all constants for a sidecar or a record."""
        used = {"t1_fluid": self.t1, "partition_coefficient_fluid": self.partition}
        if self.t2 is not None and self.t2_blood is not None:
            used |= {f"{self.decay}_fluid": self.t2, f"{self.decay}_blood": self.t2_blood}
        return {key: quantity.to_json() for key, quantity in used.items()}


def fluid_constants(
    metadata: Mapping[str, Any], m0_echo_time: float | None = None
) -> FluidConstants:
    """Settle the constants of fluid for one run.

    Parameters
    ----------
    metadata
        Its sidecar: echo time and readout.
    m0_echo_time
        Of a separate M0, seconds; None where it is that of the run or isn't known.
    """

    def quantity(row: tuple[float, str], unit: str) -> Quantity:
        return Quantity(row[0], unit, Source.DEFAULT, row[1])

    t1, partition = quantity(T1_FLUID, "s"), quantity(PARTITION_FLUID, "mL/g")
    own = _first(metadata.get("EchoTime"))
    if own is None and m0_echo_time is None:
        return FluidConstants(t1, partition)
    own = m0_echo_time if own is None else own
    of_m0 = own if m0_echo_time is None else m0_echo_time
    decay = "T2" if _spin_echo(metadata) else "T2*"
    fluid, blood = (quantity(row, "s") for row in T2[decay])
    return FluidConstants(t1, partition, fluid, blood, float(of_m0 or 0), float(own or 0), decay)


def mean_recovered(
    constants: FluidConstants, times: Sequence[float], corrections: Sequence[float]
) -> float:
    """Return by what corrected M0 volumes of fluid, averaged, fall short of its M0.

    The volumes were multiplied by `corrections`, those of tissue.
    """
    pairs = zip(times, corrections, strict=True)
    return float(np.mean([factor * constants.recovered(time) for time, factor in pairs]))


def _first(value: Any) -> float | None:
    """Return the first number of a key of a sidecar, None if there is none above 0."""
    values = value if isinstance(value, list) else [value]
    number = to_number(values[0]) if values else None
    return number if number is not None and number > 0 else None


def _spin_echo(metadata: Mapping[str, Any]) -> bool:
    """Tell whether a readout is by spin echoes: all 3D ones of ASL are, and some of 2D."""
    if str(metadata.get("MRAcquisitionType", "")).upper() == "3D":
        return True
    names = [metadata.get("PulseSequenceType"), metadata.get("ScanningSequence")]
    text = " ".join(str(name).upper() for name in names if name)
    words = text.replace("_", " ").replace("-", " ").replace("'", " ").replace("[", " ")
    return any(word in SPIN_ECHO for word in words.replace("]", " ").replace(",", " ").split())
