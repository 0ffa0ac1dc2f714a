"""The warnings about a result that can't be believed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from asl_bids_app.limits import CBF_LIMIT
from asl_bids_app.notices import Notice
from asl_bids_app.quality.definitions import PLAUSIBLE_GM_CBF
from asl_bids_app.quality.statistics import FEWEST

USUAL_CAUSES: Final = (
    "an M0 of another scale (--m0-scale), delays or label durations in the wrong unit, "
    "or control and label volumes swapped"
)


def plausibility(metrics: Mapping[str, float], causes: str = USUAL_CAUSES) -> list[Notice]:
    """Return the warnings about a result that can't be believed; none if it can.

    Parameters
    ----------
    metrics
        Of `compute`; missing values say nothing.
    causes
        What most often makes CBF too high or too low.
    """

    def value(key: str) -> float:
        return float(metrics.get(key, math.nan))

    found: list[Notice] = []

    def warn(field: str, sentence: str) -> None:
        found.append(Notice((), field, sentence))

    if value("cbf_zero_fraction") > 0.99:
        warn(
            "CBF",
            "CBF is zero in the whole brain. Usual causes: a delay at which no label, or only "
            "part of the bolus, had arrived; an M0 repetition time of 0, an M0 of another scale, "
            "or control and label volumes swapped.",
        )
    grey, brain = value("cbf_mean_gm"), value("cbf_mean_brain")
    name, mean = ("grey matter", grey) if math.isfinite(grey) else ("the brain", brain)
    low, high = PLAUSIBLE_GM_CBF
    if math.isfinite(mean) and not low <= mean <= high and not found:
        warn(
            "CBF",
            f"The mean CBF of {name} is {mean:.4g} mL/100 g/min, outside {low:g}-{high:g}. "
            f"Usual causes: {causes}.",
        )
    if not math.isfinite(mean) and not found:
        warn("CBF", f"Fewer than {FEWEST} voxels of the brain have a finite CBF.")
    for key, words in (
        ("bound_fraction", "ended at a bound of the range of CBF or ATT"),
        ("failed_fraction", "have no fit"),
        ("cbf_negative_fraction", "have a negative CBF"),
        ("cbf_implausible_fraction", f"have a CBF above {CBF_LIMIT:g} mL/100 g/min"),
    ):
        if value(key) > 0.5:
            warn(
                key,
                f"{100 * value(key):.0f} % of the brain's voxels {words}. The maps don't describe "
                f"the data: check delays, M0 and motion in the report.",
            )
    return found
