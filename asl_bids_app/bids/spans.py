"""Which values of a sidecar's keys can be true, and how a value is shown in a message."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np

COUSINS: Final = MappingProxyType(
    {
        "ArterialSpinLabelingType": ("LabelingType", "ASLType"),
        "PostLabelingDelay": (
            "PostLabelDelay",
            "InitialPostLabelDelay",
            "InversionTime",
            "InversionTimes",
            "PLD",
        ),
        "LabelingDuration": ("LabelDuration", "TagDuration", "BolusDuration"),
        "BolusCutOffDelayTime": ("BolusDuration", "BolusCutOffTime", "TI1"),
        "RepetitionTimePreparation": ("RepetitionTime",),
        "M0Estimate": ("M0",),
    }
)
"""Keys that converters write instead of a BIDS key."""


@dataclass(frozen=True)
class Span:
    """Which values of a key can be true.

    Attributes
    ----------
    low, high : float
        Both can be.
    unit : str
        ``s`` for times, of which ones that are too long are most often milliseconds.
    zero : bool
        Whether 0 is allowed too, where it lies below `low`.
    """

    low: float
    high: float
    unit: str = ""
    zero: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high or (self.zero and value == 0)

    def __str__(self) -> str:
        unit = {"s": "seconds", "": ""}.get(self.unit, self.unit)
        ends = f"{self.low:g} to {self.high:g}" + (" or 0" if self.zero and self.low else "")
        return f"{ends} {unit}".rstrip()


SPANS: Final = MappingProxyType(
    {
        # 0 stands at m0scan volumes, and a delay of 0 is a real one of long labels.
        "PostLabelingDelay": Span(1e-2, 10.0, "s", zero=True),
        "LabelingDuration": Span(1e-2, 10.0, "s", zero=True),
        "BolusCutOffDelayTime": Span(1e-2, 10.0, "s", zero=True),
        "SliceTiming": Span(0.0, 10.0, "s"),
        "RepetitionTimePreparation": Span(1e-2, 100.0, "s", zero=True),
        "EchoTime": Span(1e-5, 1.0, "s", zero=True),
        "FlipAngle": Span(0.0, 360.0, "degrees"),
        "M0Estimate": Span(1e-6, 1e12),
        "MagneticFieldStrength": Span(0.01, 25.0, "tesla"),
        "LabelingEfficiency": Span(0.01, 1.0),
        "BackgroundSuppressionNumberPulses": Span(0.0, 20.0),
        "BackgroundSuppressionPulseTime": Span(0.0, 10.0, "s"),
        "TotalAcquiredPairs": Span(1.0, 1e5),
    }
)
"""The one table of the numbers that are read from sidecars."""
ANY: Final = Span(0.0, float(np.finfo(np.float32).max))


def to_number(value: Any) -> float | None:
    """Return a number of a sidecar, perhaps NaN or infinite; None for true, "3", null, lists."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def show(value: Any) -> str:
    """Return a value of a sidecar, short enough for a message."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def did_you_mean(value: Any, choices: Sequence[str]) -> str:
    """Return a cure for a misspelt word; empty if none is near."""
    word = find_near_word(value, choices)
    return f"write {word}" if word else ""


def find_near_word(value: Any, choices: Sequence[str]) -> str:
    """Return the word that a misspelt one was most likely meant to be; empty if none is near."""
    if not isinstance(value, str):
        return ""
    by_case = {choice.casefold(): choice for choice in choices}
    near = difflib.get_close_matches(value.strip().casefold(), by_case, n=1, cutoff=0.6)
    return by_case[near[0]] if near else ""
