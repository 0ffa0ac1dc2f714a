"""The labelling schemes: one row each, with everything that differs between them.

A new scheme is a row here, its kinetics (`asl_bids_app.kinetics`) if no equation of `Arrival`
is its own, and a test. No heavy import stands here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final


class Arrival(IntEnum):
    """The way in which label reaches the tissue, which selects the kinetic equation."""

    CONTINUOUS = 0
    """A steady stream: every spin has the age ATT when it arrives (PCASL, CASL)."""
    PULSED = 1
    """A slab inverted at once: a spin that arrives at time t has the age t (PASL)."""
    VELOCITY_SELECTIVE = 2
    """Label made in the vessels next to the tissue: arrival from t = 0 (VSASL)."""


class Scheme(StrEnum):
    """A labelling scheme, by the field's name for it."""

    PCASL = "PCASL"
    CASL = "CASL"
    PASL = "PASL"
    VSASL = "VSASL"


class Module(StrEnum):
    """What a velocity-selective label module does to flowing blood."""

    INVERSION = "inversion"
    SATURATION = "saturation"


@dataclass(frozen=True)
class TransitPrior:
    """What is taken of ATT where the data don't determine it: a normal distribution.

    Attributes
    ----------
    mean, sd : float
        Seconds, from where the label of the scheme starts to the tissue.
    source : str
        Where the numbers come from.
    """

    mean: float
    sd: float
    source: str

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.sd:.2f} s"

    def to_json(self) -> dict[str, float | str]:
        """Return the prior for a sidecar."""
        return {"Mean": self.mean, "StandardDeviation": self.sd, "Units": "s", "Note": self.source}


@dataclass(frozen=True)
class SchemeInfo:
    """What the rest of the program has to know of a labelling scheme.

    Attributes
    ----------
    arrival
        The kinetic equation.
    title
        The scheme in words, for reports.
    labeling_efficiency
        Default inversion (or saturation) efficiency, a fraction, without background
        suppression.
    source
        Where the default comes from.
    transit
        Prior of ATT. It depends on where the label is made: PASL counts from the edge of its
        slab, close to the tissue, PCASL and CASL from a plane at the neck.
    modules
        Default efficiency and its source by the kind of label module, where the scheme has
        several; `labeling_efficiency` is taken where the kind isn't known.
    """

    arrival: Arrival
    title: str
    labeling_efficiency: float
    source: str
    transit: TransitPrior
    modules: Mapping[Module, tuple[float, str]] = field(default_factory=dict)


_FROM_NECK: Final = TransitPrior(
    1.3, 0.8, "mean as in BASIL, Chappell 2009, doi:10.1109/TSP.2008.2005752; sd broad by choice"
)
_FROM_SLAB: Final = TransitPrior(
    0.7, 0.4, "mean as in BASIL, Chappell 2009, doi:10.1109/TSP.2008.2005752; sd broad by choice"
)
_SHARED: Final = TransitPrior(1.3, 0.8, "that of PCASL, with which VSASL shares ATT")
_INVERSION: Final = (0.56, "Qin 2022 (velocity-selective inversion), doi:10.1002/mrm.29371")
_SATURATION: Final = (
    0.5,
    "perfect saturation (half of an inversion), Wong 2006, doi:10.1002/mrm.20906",
)


SCHEMES: Final = MappingProxyType(
    {
        Scheme.PCASL: SchemeInfo(
            Arrival.CONTINUOUS,
            "pseudo-continuous",
            0.85,
            "Alsop 2015, doi:10.1002/mrm.25197",
            _FROM_NECK,
        ),
        Scheme.CASL: SchemeInfo(
            Arrival.CONTINUOUS,
            "continuous",
            0.68,
            "Wang 2005, doi:10.1148/radiol.2351031663",
            _FROM_NECK,
        ),
        Scheme.PASL: SchemeInfo(
            Arrival.PULSED,
            "pulsed",
            0.98,
            "Alsop 2015, doi:10.1002/mrm.25197",
            _FROM_SLAB,
        ),
        Scheme.VSASL: SchemeInfo(
            Arrival.VELOCITY_SELECTIVE,
            "velocity-selective",
            *_INVERSION,
            _SHARED,
            {Module.INVERSION: _INVERSION, Module.SATURATION: _SATURATION},
        ),
    }
)

PRIOR_BY_ARRIVAL: Final = MappingProxyType(
    {info.arrival: info.transit for info in reversed(SCHEMES.values())}
)
"""Prior of ATT for slices of which only the kinetic equation is known."""


def transit_prior(schemes: Iterable[Scheme]) -> TransitPrior:
    """Return the prior of ATT of measurements that share one ATT.

    Parameters
    ----------
    schemes
        Of the measurements; of several the broadest prior is taken, the first of equals.
    """
    return max((SCHEMES[scheme].transit for scheme in schemes), key=lambda prior: prior.sd)
