"""The regions of an atlas as a figure that can be sorted: values with their 95 % intervals."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from asl_bids_app.anatomy.sides import asymmetry, pairs, side_of
from asl_bids_app.reports.page import share_text
from asl_bids_app.reports.region_tables import RegionTable

NORMAL_95: Final = 1.96
"""Standard errors to each side of a 95 % interval."""


def draw_regions(table: RegionTable) -> dict[str, Any]:
    """Make the content of a figure of regions.

    Parameters
    ----------
    table

    Returns
    -------
    dict
        ``rows`` with left and right beside each other, each value with its place and interval in
        percent of an axis; ``axes`` with their ticks. CBF is the fit of the mean signal, or the
        mean of the map where there is no fit.
    """
    fitted = bool(np.isfinite(table.column("cbf_fit")).any())
    flow = table.column("cbf_fit" if fitted else "cbf_mean")
    time = table.column("att_fit" if fitted else "att_mean")
    own = np.hypot(table.column("cbf_se_noise"), table.column("cbf_se_model"))
    whole = table.column("cbf_se")
    late = table.column("att_se")
    own_late = np.hypot(table.column("att_se_noise"), table.column("att_se_model"))
    # Tables of earlier versions have one error of ATT, that by noise.
    whole_late = np.where(np.isfinite(own_late), late, np.nan)
    own_late = np.where(np.isfinite(own_late), own_late, late)
    axes = {
        "cbf": _axis(flow, np.where(np.isfinite(whole), whole, 0)),
        "att": _axis(time, np.where(np.isfinite(late), late, 0)),
    }
    beside = asymmetry(
        {
            "name": list(table.names),
            **{
                key: table.column(key).tolist()
                for key in ("cbf_fit", "cbf_se_noise", "cbf_se_model")
            },
        }
    )
    found = pairs(table.names)
    taken = {place for left, right, _ in found for place in (left, right)}
    rows: list[dict[str, Any]] = []
    for place, name in enumerate(table.names):
        pair = next(((p, (left, right)) for p, (left, right, _) in enumerate(found)
                     if left == place), None)  # fmt: skip
        if pair is None and place in taken:
            continue
        members = pair[1] if pair else (place,)
        row: dict[str, Any] = {
            "name": found[pair[0]][2] if pair else name,
            "order": len(rows),
            "members": [],
        }
        for member in members:
            row["members"].append(
                {
                    "side": side_of(table.names[member]),
                    "cbf": _mark(axes["cbf"], flow[member], own[member], whole[member]),
                    "att": _mark(axes["att"], time[member], own_late[member], whole_late[member]),
                    "cbf_text": interval_text(flow[member], whole[member], 1),
                    "att_text": interval_text(time[member], late[member], 2),
                    "coverage": share_text(float(np.nan_to_num(table.column("coverage")[member]))),
                    "absent": not math.isfinite(flow[member]),
                }
            )
        row |= {
            "absent": all(item["absent"] for item in row["members"]),
            "cbf": _mean(flow[list(members)]),
            "att": _mean(time[list(members)]),
            "coverage": _mean(table.column("coverage")[list(members)]),
            "asymmetry": None,
        }
        if pair:
            value, error = beside["asymmetry"][pair[0]], beside["asymmetry_se"][pair[0]]
            if math.isfinite(value):
                row["asymmetry"] = float(value)
                row["asymmetry_text"] = interval_text(value, error, 1)
                row["beyond"] = bool(math.isfinite(error) and abs(value) > NORMAL_95 * error)
        rows.append(row)
    return {
        "atlas": table.atlas,
        "count": len(table.names),
        "absent": int((~np.isfinite(flow)).sum()),
        "fitted": fitted,
        "axes": axes,
        "rows": rows,
        "paired": bool(found),
        "timed": bool(np.isfinite(time).any()),
    }


def _axis(values: np.ndarray, errors: np.ndarray) -> dict[str, Any]:
    """Return an axis from 0 (or below, if need be) to what holds all intervals."""
    finite = np.isfinite(values)
    if not finite.any():
        return {"low": 0.0, "high": 1.0, "ticks": []}
    # One wild interval must not squeeze all others: up to twice the largest value.
    high = float((values + NORMAL_95 * errors)[finite].max())
    low = float((values - NORMAL_95 * errors)[finite].min())
    top = max(float(values[finite].max()), 1e-6)
    high, low = min(1.03 * high, 2 * top), max(min(low, 0.0), -top)
    span = high - low
    step = next(
        s
        for power in range(-6, 7)
        for s in (10.0**power, 2 * 10.0**power, 5 * 10.0**power)
        if span / s <= 5.2
    )
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [float(f"{n * step:.10g}") for n in range(first, last + 1)]
    return {
        "low": low,
        "high": high,
        "ticks": [(f"{tick:g}", round(100 * (tick - low) / span, 2)) for tick in ticks],
    }


def _mark(
    axis: dict[str, Any], value: float, error: float, outer: float
) -> dict[str, float | None] | None:
    """Return where a value and its intervals lie on an axis, in percent; None for n/a."""
    if not math.isfinite(value):
        return None

    def place(x: float) -> float:
        share = 100 * (x - axis["low"]) / (axis["high"] - axis["low"])
        return round(min(max(share, 0.0), 100.0), 2)

    found: dict[str, float | None] = {"at": place(value)}
    for name, se in (("inner", error), ("outer", outer)):
        if math.isfinite(se):
            low, high = place(value - NORMAL_95 * se), place(value + NORMAL_95 * se)
            found |= {f"{name}_from": low, f"{name}_width": round(high - low, 2)}
    return found


def interval_text(value: float, error: float, digits: int) -> str:
    """Write a value with half its 95 % interval."""
    if not math.isfinite(value):
        return "n/a"
    half = f" ± {NORMAL_95 * error:.{digits}f}" if math.isfinite(error) else ""
    return f"{value:.{digits}f}{half}"


def _mean(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else None
