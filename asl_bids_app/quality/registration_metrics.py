"""Metrics of a registration, from what the anatomy found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

_OF_POSE: Final = MappingProxyType(
    {
        "registration_dice": "dice",
        "registration_score": "score",
        "registration_boundary_contrast": "boundary_contrast",
        "registration_nmi": "nmi",
        "registration_error": "expected_error_mm",
        "registration_moved": "moved_mm",
    }
)
"""Metrics, and the facts of a registration that they are."""


def registration_metrics(facts: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a registration to the T1w and to the template.

    Parameters
    ----------
    facts
        What the record says of the anatomy of a series; may be empty.

    Returns
    -------
    dict of str to float
        Finite values only; of a pose that was rejected, too.
    """
    pose = facts.get("registration") or {}
    found = {key: _number(pose.get(name)) for key, name in _OF_POSE.items()}
    found["template_likeness"] = _number(facts.get("likeness")) if "dice" not in pose else math.nan
    own = (facts.get("normalisation") or {}).get("dice") or {}
    given = facts.get("template_dice") or {}
    # A space that doesn't fit was left out; what is left is that of the space that is used best.
    overlaps = [min(_number(own.get("gm")), _number(own.get("wm")))] if own else []
    overlaps += [max(map(_number, given.values()))] if given else []
    found["template_dice"] = overlaps[0] if overlaps else math.nan
    return {key: value for key, value in found.items() if math.isfinite(value)}


def partial_volume_metrics(facts: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean flows of the tissues alone; empty without partial volume correction.

    Parameters
    ----------
    facts
        What the record says of the anatomy of a series; may be empty.
    """
    about = facts.get("partial_volume") or {}
    means = about.get("mean") or {}
    found = {
        "cbf_pvc_gm": means.get("gm_mean"),
        "cbf_pvc_gm_sd": means.get("gm_se"),
        "cbf_pvc_wm": means.get("wm_mean"),
        "cbf_pvc_wm_sd": means.get("wm_se"),
        "pvc_explained": about.get("ExplainedVariance"),
    }
    return {key: value for key, v in found.items() if math.isfinite(value := _number(v))}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
