"""The estimates of a series that stand side by side: what made each, and what its bars hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from asl_bids_app.bids.estimate_keys import estimates
from asl_bids_app.bids.flags import FLAGS
from asl_bids_app.reports.understood import estimator_name

BARS: Final = MappingProxyType({"total": "noise and calibration", "noise": "noise only"})
"""What error bars hold, by the words of ``--error-bars`` and of the sidecars' `ErrorBars`."""
_BARS_OF_ONE: Final = MappingProxyType(
    {"total": "noise, calibration and ATT", "noise": "noise and ATT"}
)
"""The same of a single delay, where CBF and ATT rest on the prior of ATT and hold its sd."""

_NAMES: Final = MappingProxyType(
    {
        "lsq": "least squares",
        "consensus": "consensus formula (white paper)",
        "gm": "grey matter alone (partial volume corrected)",
        "wm": "white matter alone (partial volume corrected)",
    }
)
"""By the word that labels the files."""

_FLAG_COLOURS: Final = (
    "#d55e00",
    "#56b4e9",
    "#f0e442",
    "#cc79a7",
    "#009e73",
    "#e69f00",
    "#0072b2",
    "#ffffff",
)
"""Okabe and Ito's, in the order of the table of flags."""
PLAIN: Final = "#6b747d"
"""Of a voxel without a flag."""


@dataclass(frozen=True)
class Estimate:
    """One estimate of a series.

    Attributes
    ----------
    word : str
        In the labels of its files; empty for the main one.
    name : str
        For readers.
    bars : str
        What its standard deviations hold; empty if its sidecar doesn't say.
    keys : mapping of str to str
        Keys of its images by quantity: ``cbf``, ``cbf_sd``, ``att``, ``att_sd``, ``flags``.
    """

    word: str
    name: str
    bars: str
    keys: Mapping[str, str]


def _count(rows: Any) -> int:
    return len(rows) if isinstance(rows, list) else 0


def find_estimates(
    images: Mapping[str, Any], sidecars: Mapping[str, Mapping[str, Any]]
) -> tuple[Estimate, ...]:
    """Return the estimates that have a map of CBF, the main one first.

    Parameters
    ----------
    images
        By key of the output table.
    sidecars
        Of the maps of CBF, by their keys.
    """
    found = []
    for word, keys in estimates().items():
        there = {quantity: key for quantity, key in keys.items() if key in images}
        if "cbf" not in there:
            continue
        sidecar = sidecars.get(there["cbf"]) or {}
        name = _NAMES.get(word, word) if word else estimator_name(sidecar.get("EstimationMethod"))
        reported = sidecar.get("ErrorBars") or (sidecar.get("Model") or {}).get("ErrorBars")
        # The consensus formula takes all label as arrived: it has no ATT and no sd of it.
        single = "att" in there and _count(sidecar.get("Measurements")) == 1
        held = _BARS_OF_ONE if single else BARS
        bars = held.get(str(reported), "") if reported or not word else held["noise"]
        found.append(Estimate(word, name, bars, there))
    return tuple(found)


def flag_legend() -> list[tuple[int, str, str]]:
    """Return value, name and colour of every flag."""
    return [
        (row.value, row.name, _FLAG_COLOURS[i % len(_FLAG_COLOURS)]) for i, row in enumerate(FLAGS)
    ]
