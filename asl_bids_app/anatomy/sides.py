"""Regions of the left beside those of the right: pairs by their names, and asymmetry."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

_SIDES: Final = (
    (r"(?i)(?<![a-z])left(?![a-z])", "right"),
    (r"(?i)(?<![a-z])lh(?![a-z])", "rh"),
    (r"(?<![A-Za-z])L(?![A-Za-z])", "R"),
)


def pairs(names: Sequence[str]) -> list[tuple[int, int, str]]:
    """Find regions of the left with their fellows of the right.

    Returns
    -------
    list of (int, int, str)
        Places of both, and the name without its side.

    Examples
    --------
    >>> pairs(["Left-Thalamus", "Right-Thalamus", "LH_Vis_1", "RH_Vis_1", "Brainstem"])
    [(0, 1, 'Thalamus'), (2, 3, 'Vis_1')]
    """
    known = {name.lower(): k for k, name in enumerate(names)}
    found = []
    for k, name in enumerate(names):
        for left, right in _SIDES:
            text = name.replace("_", " _ ")
            if not re.search(left, text):
                continue
            other = re.sub(left, right, text, count=1).replace(" _ ", "_").lower()
            if other in known and known[other] != k:
                bare = re.sub(left, "", text, count=1).replace(" _ ", "_")
                found.append((k, known[other], re.sub(r"^[\W_]+|[\W_]+$", "", bare) or name))
                break
    return found


def side_of(name: str) -> str:
    """Return the side that a region's name says: ``L``, ``R``, or nothing.

    Examples
    --------
    >>> side_of("Left-Thalamus"), side_of("7Networks_RH_Vis_1"), side_of("Brainstem")
    ('L', 'R', '')
    """
    text = name.replace("_", " _ ")
    for left, right in _SIDES:
        if re.search(left, text):
            return "L"
        flags = "(?i)" if left.startswith("(?i)") else ""
        letters = "a-z" if flags else "A-Za-z"
        if re.search(f"{flags}(?<![{letters}]){right}(?![{letters}])", text):
            return "R"
    return ""


def asymmetry(table: Mapping[str, Sequence]) -> dict[str, list]:
    """Return the asymmetry of each pair of regions, in per cent: 200 (L - R) / (L + R).

    The calibration is shared by both sides and drops out of the standard error.

    Parameters
    ----------
    table
        From `region_table`.
    """
    rows: dict[str, list] = {
        key: [] for key in ("name", "cbf_left", "cbf_right", "asymmetry", "asymmetry_se")
    }
    for left, right, name in pairs(table["name"]):
        l_value, r_value = table["cbf_fit"][left], table["cbf_fit"][right]
        l_se, r_se = (
            np.hypot(table["cbf_se_noise"][k], table["cbf_se_model"][k]) for k in (left, right)
        )
        total = l_value + r_value
        usable = np.isfinite(total) and total > 0
        se = 400 * np.hypot(r_value * l_se, l_value * r_se) / total**2 if usable else np.nan
        rows["name"].append(name)
        rows["cbf_left"].append(l_value)
        rows["cbf_right"].append(r_value)
        rows["asymmetry"].append(200 * (l_value - r_value) / total if usable else np.nan)
        rows["asymmetry_se"].append(se)
    return rows


ASYMMETRY: Final[Mapping[str, Mapping[str, str]]] = {
    "name": {"Description": "Name of the region without its side"},
    "cbf_left": {"Description": "cbf_fit on the left", "Units": "mL/100 g/min"},
    "cbf_right": {"Description": "cbf_fit on the right", "Units": "mL/100 g/min"},
    "asymmetry": {"Description": "200 (left - right) / (left + right)", "Units": "percent"},
    "asymmetry_se": {
        "Description": "Standard error by noise and model; the calibration, which both sides "
        "share, drops out",
        "Units": "percent",
    },
}
"""What the columns of a table of asymmetries mean."""
