"""Where parts of a result come from, as data for records: the mask, the tissue maps."""

from __future__ import annotations

from enum import StrEnum


class MaskKind(StrEnum):
    """What a brain mask was made from."""

    M0 = "M0"
    ASL = "ASL"
    """The perfusion volumes, where the M0 is a number."""
    GIVEN = "given"
    T1W = "T1w"
    """The brain of derivatives' T1w, to which the run is registered."""


class TissueKind(StrEnum):
    """Where tissue maps come from."""

    ATLAS = "atlas"
    DERIVATIVES = "derivatives"
    """Placed by the scanner's coordinates."""
    T1W = "T1w"
    """To which the run is registered."""
    NONE = "none"


class FractionKind(StrEnum):
    """What the fractions rest on by which the ensemble's means are corrected."""

    DERIVATIVES = "derivatives"
    T1W = "T1w"
    M0 = "M0"
    ATLAS = "atlas"
    CONTRAST = "classes of the M0"
    """Where no atlas fits: classes without a name."""


class AnatomyKind(StrEnum):
    """What maps were brought into other spaces by."""

    OWN = "raw T1w"
    """Of the dataset, processed by the app itself."""
    DERIVATIVES = "derivatives"
    """A T1w that another program processed."""
    TEMPLATE = "template"
    """No T1w: the packaged template, registered to the M0."""
