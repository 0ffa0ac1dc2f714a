"""The labelling schemes: one row each, with everything that differs between them.

A new scheme is a row here, its kinetics (`asl_bids_app.kinetics`) if no equation of `Arrival`
is its own, and a test. No heavy import stands here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from asl_bids_app.scheme_fields import Arrival, JointPart, Module, SidecarForm, TransitPrior


class Scheme(StrEnum):
    """A labelling scheme, by the field's name for it."""

    PCASL = "PCASL"
    CASL = "CASL"
    PASL = "PASL"
    VSASL = "VSASL"


@dataclass(frozen=True, kw_only=True)
class SchemeInfo:
    """Everything that differs between labelling schemes.

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
    colour
        Of drawings, as HTML writes it.
    modules
        Default efficiency and its source by the kind of label module, where the scheme has
        several; `labeling_efficiency` is taken where the kind isn't known.
    endless_bolus
        Whether the bolus may be cut by nothing (a duration of ``inf``).
    joint
        What it is in a joint series.
    sidecar
        How sidecars tell it.
    remark
        A sentence for methods texts, with citations; empty if there is nothing to add.
    """

    arrival: Arrival
    title: str
    labeling_efficiency: float
    source: str
    transit: TransitPrior
    colour: str
    modules: Mapping[Module, tuple[float, str]] = field(default_factory=dict)
    endless_bolus: bool = False
    joint: JointPart = JointPart.NONE
    sidecar: SidecarForm = field(default_factory=SidecarForm)
    remark: str = ""

    @property
    def continuous(self) -> bool:
        """Whether the label is a stream, which has a duration, and not a bolus."""
        return self.arrival is Arrival.CONTINUOUS

    @property
    def bolus_by_option(self) -> bool:
        """Whether ``--bolus-duration`` gives its bolus, where the sidecar can't."""
        return not self.continuous and not self.endless_bolus

    @property
    def duration_word(self) -> str:
        """What the duration of a measurement is the duration of."""
        return "label" if self.continuous else "bolus"


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


# Colours: Okabe and Ito's, distinguishable with any colour vision.
SCHEMES: Final = MappingProxyType(
    {
        Scheme.PCASL: SchemeInfo(
            arrival=Arrival.CONTINUOUS,
            title="pseudo-continuous",
            labeling_efficiency=0.85,
            source="Alsop 2015, doi:10.1002/mrm.25197",
            transit=_FROM_NECK,
            colour="#0072b2",
            joint=JointPart.CONTINUOUS,
            sidecar=SidecarForm(
                words=r"p-?casl|pseudo.?contin|pulsed.?contin|^asl$|3dasl|\bpc\b",
                own_keys=(
                    "NumRFBlocks",
                    "RFGap",
                    "MeanGzx10",
                    "TagRFFlipAngle",
                    "MeanTagGradient",
                ),
                likely_keys=("PCASLType", "LabelingDuration"),
                priority=2,
            ),
        ),
        Scheme.CASL: SchemeInfo(
            arrival=Arrival.CONTINUOUS,
            title="continuous",
            labeling_efficiency=0.68,
            source="Wang 2005, doi:10.1148/radiol.2351031663",
            transit=_FROM_NECK,
            colour="#56b4e9",
            joint=JointPart.CONTINUOUS,
            sidecar=SidecarForm(words="casl|continuous", own_keys=("CASLType",)),
        ),
        Scheme.PASL: SchemeInfo(
            arrival=Arrival.PULSED,
            title="pulsed",
            labeling_efficiency=0.98,
            source="Alsop 2015, doi:10.1002/mrm.25197",
            transit=_FROM_SLAB,
            colour="#009e73",
            sidecar=SidecarForm(
                words=r"pasl|pulsed|fair|picore|epistar|q2tips|quipss|star\b",
                own_keys=(
                    "SaturationStopTime",
                    "PostInversionDelay",
                    "PASLType",
                    "BolusCutOffFlag",
                    "BolusCutOffTechnique",
                ),
                priority=1,
            ),
        ),
        Scheme.VSASL: SchemeInfo(
            arrival=Arrival.VELOCITY_SELECTIVE,
            title="velocity-selective",
            labeling_efficiency=_INVERSION[0],
            source=_INVERSION[1],
            transit=_SHARED,
            colour="#d55e00",
            modules={Module.INVERSION: _INVERSION, Module.SATURATION: _SATURATION},
            endless_bolus=True,
            joint=JointPart.SELECTIVE,
            sidecar=SidecarForm(
                in_bids=False,
                aliases=("VSI", "VSS"),
                words=r"vsasl|vs[-_ ]?asl|velocity.?selective|vsi\b|vss\b",
                priority=3,
            ),
            remark="Velocity-selective labelling [@wong;@qin] was modelled with label arriving "
            "at once.",
        ),
    }
)


def find_scheme(name: object) -> SchemeInfo | None:
    """Return the row of a scheme by its name; None if there is none of that name."""
    return SCHEMES[Scheme(name)] if isinstance(name, str) and name in set(Scheme) else None


PRIOR_BY_ARRIVAL: Final = MappingProxyType(
    {info.arrival: info.transit for info in reversed(tuple(SCHEMES.values()))}
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
