"""The flags of a voxel: one table of bits, names and meanings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from asl_bids_app.limits import CBF_LIMIT


@dataclass(frozen=True)
class FlagRow:
    """What one bit of a map of flags means.

    Attributes
    ----------
    value : int
        A power of 2; a voxel holds the sum of its flags.
    name : str
        In a few words, for legends and units.
    description : str
        One sentence.
    """

    value: int
    name: str
    description: str


FLAGS: Final = (
    FlagRow(1, "CBF at a bound", "CBF ended at a bound of its range."),
    FlagRow(2, "ATT at a bound", "ATT ended at a bound of its range."),
    FlagRow(4, "no fit", "No estimate could be made; the maps hold 0 and the prior."),
    FlagRow(
        8,
        "ATT not identifiable",
        "The data don't determine ATT here; the map rests on the scheme's prior "
        "(`TransitTimePrior` in the sidecar), and that of least squares is the prior.",
    ),
    FlagRow(
        16,
        "CBF that flow can't have",
        f"CBF is above {CBF_LIMIT:g} or below -50 mL/100 g/min, or so far outside 0 to "
        f"{CBF_LIMIT:g} that its error bar doesn't explain it.",
    ),
    FlagRow(
        32,
        "looks like an artery",
        "The signal looks like that of an artery beside the tissue. Without an arterial term ATT "
        "is too early and CBF too high here.",
    ),
)
"""Bits of `asl_bids_app.estimators.base.Flag` in words; sidecars, report and docs read them."""
FLAG_UNITS: Final = "sum of " + ", ".join(f"{row.value} ({row.name})" for row in FLAGS)
