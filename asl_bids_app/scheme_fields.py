"""What the rows of the table of schemes are made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Arrival(IntEnum):
    """The way in which label reaches the tissue, which selects the kinetic equation."""

    CONTINUOUS = 0
    """A steady stream: every spin has the age ATT when it arrives (PCASL, CASL)."""
    PULSED = 1
    """A slab inverted at once: a spin that arrives at time t has the age t (PASL)."""
    VELOCITY_SELECTIVE = 2
    """Label made in the vessels next to the tissue: arrival from t = 0 (VSASL)."""


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


class JointPart(StrEnum):
    """What a scheme is in a joint series: two schemes that share CBF and ATT."""

    NONE = "none"
    """Its ATT is another quantity, so it is quantified alone."""
    CONTINUOUS = "continuous"
    SELECTIVE = "velocity-selective"


@dataclass(frozen=True)
class SidecarForm:
    """How sidecars and names tell a scheme.

    Attributes
    ----------
    in_bids
        Whether `ArterialSpinLabelingType` of BIDS has the scheme's name.
    aliases
        Other values of `ArterialSpinLabelingType` that mean it.
    words
        What names of sequences and series have, a regular expression of lower case.
    own_keys, likely_keys
        Keys that this scheme has only, or far more often than others.
    priority
        Schemes of a higher one are looked for before those of a lower one: ``casl`` is a part of
        ``pcasl``.
    """

    in_bids: bool = True
    aliases: tuple[str, ...] = ()
    words: str = "(?!)"
    own_keys: tuple[str, ...] = ()
    likely_keys: tuple[str, ...] = ()
    priority: int = 0
