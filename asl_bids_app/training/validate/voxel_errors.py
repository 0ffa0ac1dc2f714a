"""Errors of estimates against the truth, by tissue and condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from asl_bids_app.training.phantoms.tissue_codes import CORE, FLUID, GREY, TISSUES, WHITE

GROUPS: Final = MappingProxyType(
    {
        "tissue": lambda code: (code != 0) & (code != FLUID),
        "grey matter": lambda code: code == GREY,
        "white matter": lambda code: code == WHITE,
        "lesion": lambda code: code >= CORE,
        "cerebrospinal fluid": lambda code: code == FLUID,
    }
)
"""Groups of voxels by tissue code. ``tissue``: all of the brain but fluid."""

LESIONS: Final = MappingProxyType({name: code for code, name in TISSUES.items() if code >= CORE})
"""Kinds of lesion and their codes."""

UNITS: Final = MappingProxyType({"cbf": "mL/100 g/min", "att": "ms"})
_SCALE: Final = MappingProxyType({"cbf": 1.0, "att": 1000.0})


def errors(estimate: np.ndarray, truth: np.ndarray, sd: np.ndarray) -> dict[str, Any]:
    """Compare estimates of voxels with the truth.

    Parameters
    ----------
    estimate, truth, sd : array, shape (V,)
        In any one unit; `sd` is the standard deviation that the method states. Voxels whose
        estimate is nan are left out.

    Returns
    -------
    dict
        ``n``; ``mae``, ``rmse``, ``bias``, ``median_bias``, ``r2``; ``coverage_68``,
        ``coverage_95``: shares within 1 and 1.96 sd. In the unit of the estimates; shares are
        fractions.
    """
    there = np.isfinite(estimate)
    estimate, truth, sd = (values[there].astype(float) for values in (estimate, truth, sd))
    if not len(estimate):
        return {"n": 0}
    error = estimate - truth
    variance = truth.var()
    ratio = np.abs(error) / np.maximum(sd, 1e-12)
    square = (error**2).mean()
    found = {
        "mae": np.abs(error).mean(),
        "rmse": np.sqrt(square),
        "bias": error.mean(),
        "median_bias": np.median(error),
        "r2": 1 - square / variance if variance > 0 else float("nan"),
        # The usual 68 and 95 % of a normal distribution.
        "coverage_68": (ratio <= 1).mean(),
        "coverage_95": (ratio <= 1.959964).mean(),
    }
    return {"n": len(error), **{name: float(value) for name, value in found.items()}}


def win_rate(mine: np.ndarray, theirs: np.ndarray, truth: np.ndarray) -> float:
    """Return the share of voxels in which one estimate is nearer the truth than another.

    A draw counts half; voxels that either method has no estimate for are left out.
    """
    there = np.isfinite(mine) & np.isfinite(theirs)
    if not there.any():
        return float("nan")
    first, second = (np.abs(values[there] - truth[there]) for values in (mine, theirs))
    return float((first < second).mean() + 0.5 * (first == second).mean())


def compare(
    maps: Mapping[str, Mapping[str, np.ndarray]],
    truth: Mapping[str, np.ndarray],
    chosen: np.ndarray,
    rivals: Sequence[str],
) -> dict[str, dict[str, dict[str, Any]]]:
    """Compare all methods in some voxels.

    Parameters
    ----------
    maps
        By method: arrays ``cbf``, ``att``, ``cbf_sd``, ``att_sd`` of shape (V,), in
        mL/100 g/min and seconds.
    truth
        ``cbf`` and ``att``.
    chosen : array of bool, shape (V,)
    rivals
        The methods that win rates refer to.

    Returns
    -------
    dict
        By method and quantity the result of `errors`, ATT in ms, and ``win_rate``, by rival.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for method, found in maps.items():
        table[method] = {}
        for name, scale in _SCALE.items():
            mine, right = found[name][chosen] * scale, truth[name][chosen] * scale
            row = errors(mine, right, found[f"{name}_sd"][chosen] * scale)
            row["win_rate"] = {
                rival: win_rate(mine, maps[rival][name][chosen] * scale, right)
                for rival in rivals
                if rival in maps and rival != method
            }
            table[method][name] = row
    return table
