"""Regions of a cohort: what the page draws."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from asl_bids_app.anatomy.sides import side_of
from asl_bids_app.bids.outputs import UNITS_ATT, UNITS_CBF
from asl_bids_app.reports.cohort import Cohort
from asl_bids_app.reports.group_region_tables import atlases_of
from asl_bids_app.reports.outliers import FEWEST, OUTLIER_Z, modified_z
from asl_bids_app.reports.region_figure import interval_text
from asl_bids_app.reports.region_tables import RegionTable

MOST_VALUES: Final = 400_000
"""Numbers of regions that a page holds; the tables hold all."""
QUANTITIES: Final = MappingProxyType(
    {
        "cbf": ("CBF", UNITS_CBF),
        "att": ("ATT", UNITS_ATT),
        "gm_cbf": ("CBF of grey matter alone", UNITS_CBF),
        "wm_cbf": ("CBF of white matter alone", UNITS_CBF),
    }
)
"""What the page shows, by the beginning of columns: title and unit."""


def value_of(table: RegionTable, quantity: str) -> np.ndarray:
    """Return the values that pages show: those of the fit, or of the map where there is none."""
    fit = table.column(f"{quantity}_fit")
    return fit if np.isfinite(fit).any() else table.column(f"{quantity}_mean")


def page_regions(cohort: Cohort) -> list[dict[str, Any]]:
    """Return what the page draws: for each atlas its regions with the values of all series.

    Atlases with too many numbers for a page are named without them.
    """
    found, budget = [], MOST_VALUES
    for atlas in atlases_of(cohort):
        names = _names(cohort, atlas)
        entry: dict[str, Any] = {
            "name": atlas,
            "regions": [{"name": name, "side": side_of(name)} for name in names],
            "quantities": {},
            "large": False,
        }
        shown = _quantities(cohort, atlas)
        count = len(names) * len(cohort.rows) * len(shown)
        entry["large"] = count > budget
        if not entry["large"]:
            budget -= count
            for place, quantity in enumerate(shown):
                title, unit = QUANTITIES[quantity]
                values = _matrix(cohort, atlas, names, quantity)
                entry["quantities"][quantity] = {
                    # JSON of a template has its keys in the order of the alphabet.
                    "place": place,
                    "title": title,
                    "unit": unit,
                    "values": [[_rounded(v) for v in line] for line in values],
                    "outliers": _outliers(values),
                }
        found.append(entry)
    return found


def plain_regions(cohort: Cohort) -> list[dict[str, Any]]:
    """Return the same as a table for a few series: values with half their 95 % intervals."""
    tables = []
    for atlas in atlases_of(cohort):
        names = _names(cohort, atlas)
        for quantity in _quantities(cohort, atlas):
            title, unit = QUANTITIES[quantity]
            values = _matrix(cohort, atlas, names, quantity)
            errors = _matrix(cohort, atlas, names, quantity, error=True)
            digits = 2 if quantity == "att" else 1
            tables.append(
                {
                    "title": f"{atlas}: {title} ({unit})",
                    "rows": [
                        (
                            name,
                            [interval_text(v, e, digits) for v, e in zip(line, bars, strict=True)],
                        )
                        for name, line, bars in zip(names, values, errors, strict=True)
                    ],
                }
            )
    return tables


def _quantities(cohort: Cohort, atlas: str) -> list[str]:
    """Return what the tables of an atlas hold of what pages show."""
    tables = [row.regions[atlas] for row in cohort.rows if atlas in row.regions]
    return [
        quantity
        for quantity in QUANTITIES
        if any(np.isfinite(value_of(table, quantity)).any() for table in tables)
    ]


def _names(cohort: Cohort, atlas: str) -> list[str]:
    return list(
        dict.fromkeys(
            name
            for row in cohort.rows
            if atlas in row.regions
            for name in row.regions[atlas].names
        )
    )


def _matrix(
    cohort: Cohort, atlas: str, names: list[str], quantity: str, *, error: bool = False
) -> np.ndarray:
    """Return values (regions, series) of a quantity; NaN where a series has none."""
    place = {name: k for k, name in enumerate(names)}
    values = np.full((len(names), len(cohort.rows)), np.nan)
    for column, row in enumerate(cohort.rows):
        if (table := row.regions.get(atlas)) is None:
            continue
        mine = table.column(f"{quantity}_se") if error else value_of(table, quantity)
        for name, value in zip(table.names, mine, strict=True):
            values[place[name], column] = value
    return values


def _outliers(values: np.ndarray) -> list[list[int]]:
    """Return region and series of each outlier, by the rule for metrics."""
    found = []
    for region, line in enumerate(values):
        if np.isfinite(line).sum() < FEWEST:
            continue
        z = modified_z(line)
        found += [[region, int(k)] for k in np.flatnonzero(np.abs(np.nan_to_num(z)) > OUTLIER_Z)]
    return found


def _rounded(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
