"""Whether a registration can be trusted: how far, how alike, how much in common."""

from __future__ import annotations

from typing import Final

import numpy as np

from asl_bids_app.preprocess.continuity import ARC_MM
from asl_bids_app.preprocess.gauss_newton import Found
from asl_bids_app.preprocess.geometry import to_parameters

LIMIT_MM: Final = 30.0
"""A larger movement of the head in the coil is a failure of the registration."""
ALIKE: Final = 0.2
"""Least correlation of a registered volume with its reference, both normalised."""


def likeness_found(found: Found | str) -> float:
    """Return the likeness of a registration; below all others where it failed."""
    return -2.0 if isinstance(found, str) else found.likeness


def why_too_far(matrix: np.ndarray, centre: np.ndarray, common: float) -> str:
    """Say why a head can't be where it was found; empty if it can."""
    moved = to_parameters(matrix, centre)
    size = float(np.abs(moved * [1, 1, 1, *[ARC_MM] * 3]).max())
    if size > LIMIT_MM:
        return f"a movement of {size:.0f} mm, more than a head can do in a coil"
    if common < 0.5:
        return "less than half of the brain in common with the other volumes"
    return ""


def why_not_trusted(found: Found, centre: np.ndarray) -> str:
    """Say why a registration can't be trusted; empty if it can."""
    if far := why_too_far(found.matrix, centre, found.common):
        return far
    if not found.likeness > ALIKE:
        likeness = f"correlation {found.likeness:.2f}"
        return f"no anatomy in common with the other volumes ({likeness})"
    return ""
