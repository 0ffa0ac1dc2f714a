"""The one table of quality metrics: what each is, its unit, its source and its traffic light.

The computation, the JSON dictionary beside the table, the reports and the documentation all
read it. A new metric is a row in one of the modules here, and its value in
`asl_bids_app.quality.metrics`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from asl_bids_app.quality.definitions import alignment, data, fit, flow, transit_times
from asl_bids_app.quality.definitions.shared_words import (
    GROUPS,
    PLAUSIBLE_GM_CBF,
    TISSUE_THRESHOLD,
)
from asl_bids_app.quality.metric import Metric

__all__ = [
    "BASELINE_PREFIX",
    "GROUPS",
    "METRICS",
    "PLAUSIBLE_GM_CBF",
    "TISSUE_THRESHOLD",
    "columns",
    "dictionary",
    "lookup",
]

BASELINE_PREFIX: Final = "lsq_"
"""Put before the key of a metric that is computed for least squares too."""

METRICS: Final[Mapping[str, Metric]] = {
    row.key: row
    for row in (*flow.ROWS, *transit_times.ROWS, *fit.ROWS, *data.ROWS, *alignment.ROWS)
}


def columns() -> Iterator[tuple[str, Metric, bool]]:
    """Yield (column, metric, whether it is of least squares) in the table's order."""
    for metric in METRICS.values():
        yield metric.key, metric, False
    for metric in METRICS.values():
        if metric.baseline:
            yield BASELINE_PREFIX + metric.key, metric, True


def lookup(column: str) -> tuple[Metric, bool] | None:
    """Return (metric, whether it is of least squares) of a column, None for others."""
    if column in METRICS:
        return METRICS[column], False
    metric = METRICS.get(column.removeprefix(BASELINE_PREFIX))
    return (metric, True) if metric is not None and metric.baseline else None


def dictionary(
    values: Mapping[str, float] | None = None, without_tissue: str = ""
) -> dict[str, Any]:
    """Return what the JSON file beside the table of metrics says of each column.

    Parameters
    ----------
    values
        Of one series, by column.
    without_tissue
        Why there are no tissue maps; it stands at the columns that are n/a for it.
    """
    found = {column: _entry(metric, lsq) for column, metric, lsq in columns()}
    if values is not None and without_tissue:
        for column, metric, _ in columns():
            if metric.by_tissue and math.isnan(values.get(column, math.nan)):
                found[column]["NotAvailable"] = without_tissue
    return found


def _entry(metric: Metric, least_squares: bool) -> dict[str, Any]:
    of = "Of the least-squares maps. " if least_squares else ""
    entry: dict[str, Any] = {
        "LongName": f"{metric.name}{', least squares' if least_squares else ''}",
        "Description": of + metric.description,
        "Units": metric.unit,
    }
    if metric.source:
        entry["Source"] = metric.source
    if metric.good is not None:
        entry["Thresholds"] = {
            "Good": _ends(metric.good),
            "Fair": _ends(metric.fair or metric.good),
            "Basis": metric.basis,
        }
    return entry


def _ends(limits: tuple[float, float]) -> list[float | None]:
    return [end if math.isfinite(end) else None for end in limits]
