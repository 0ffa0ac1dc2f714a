"""The group level: a table of all series and one page about their distributions."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from asl_bids_app.bids.derivatives import sidecar_path, write_json, write_table, write_text
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice
from asl_bids_app.quality.definitions import BASELINE_PREFIX, GROUPS, METRICS, lookup
from asl_bids_app.quality.metric import Metric
from asl_bids_app.reports.cohort import Cohort, add_damage, read_cohort
from asl_bids_app.reports.group_map_files import write_group_map
from asl_bids_app.reports.group_maps import FEWEST as FEWEST_IN_MAPS
from asl_bids_app.reports.group_maps import make_group_maps
from asl_bids_app.reports.group_pictures import draw_group_map
from asl_bids_app.reports.group_region_tables import write_region_tables
from asl_bids_app.reports.group_regions import page_regions, plain_regions
from asl_bids_app.reports.group_table import (
    describe_columns,
    entities_of,
    entity_columns,
    metric_columns,
    table_columns,
)
from asl_bids_app.reports.outliers import OUTLIER_Z
from asl_bids_app.reports.page import render

LOG = logging.getLogger("asl-app")

SHOWN: Final = (
    "cbf_mean_gm",
    "att_mean_gm",
    "qei",
    "cbf_scov_gm",
    "residual_to_noise_gm",
    "fd_mean",
)
"""Metrics of the page's table; all are in the TSV file."""


FEWEST: Final = 4
"""Participants from which distributions are drawn; of fewer the page is a plain table."""


def write_group(output_dir: Path) -> tuple[Path, ...]:
    """Sum up a cohort from its derivatives.

    Parameters
    ----------
    output_dir
        Root of the derivatives.

    Returns
    -------
    tuple of Path
        ``group_cbf.tsv`` (with ``group_cbf.json`` beside it) and ``group.html``; then the tables
        of regions and the maps of the cohort, where participants have any.

    Raises
    ------
    InputError
        If there is no participant at all.
    """
    cohort = read_cohort(output_dir)
    if not cohort.participants:
        raise InputError(
            output_dir,
            "",
            "no derivatives of any participant",
            "those of the participant level",
            "run the participant level first",
        )
    earlier = {path for kind in _STALE for path in output_dir.glob(kind)}
    regions = write_region_tables(output_dir, cohort, entity_columns(cohort))
    maps, pictures, damage = _write_maps(output_dir, cohort)
    kept = {*regions, *maps}
    for path in earlier - kept - {sidecar_path(path) for path in kept}:
        path.unlink(missing_ok=True)
    cohort = add_damage(cohort, damage, output_dir)
    for label, faults in sorted(cohort.damage.items()):
        for fault in faults:
            LOG.warning("sub-%s: damaged: %s", label, fault)
    table = output_dir / "group_cbf.tsv"
    columns = table_columns(cohort)
    write_json(table.with_suffix(".json"), describe_columns(columns))
    write_table(table, columns)
    page = output_dir / "group.html"
    write_text(page, _page(cohort, pictures))
    return table, page, *regions, *maps


_STALE: Final = ("group_atlas-*", "group_*stat-*")
"""Files of an earlier run that are removed if they aren't written again."""
MOST_PICTURES: Final = 8
"""Kinds of maps that the page shows."""


def _write_maps(
    output_dir: Path, cohort: Cohort
) -> tuple[list[Path], list[dict[str, Any]], dict[str, list[Notice]]]:
    """Write the maps of the cohort; with pictures of them, and what is wrong with files."""
    written: list[Path] = []
    pictures: list[dict[str, Any]] = []
    damage: dict[str, list[Notice]] = {}
    for found, faults in make_group_maps(output_dir, cohort):
        for label, notices in faults.items():
            known = damage.setdefault(label, [])
            # A mask is read once for each of its maps.
            known += [notice for notice in notices if notice not in known]
        if found is None:
            continue
        written += write_group_map(output_dir, found)
        if len(pictures) < MOST_PICTURES:
            pictures.append(draw_group_map(found))
    return written, pictures, damage


def _page(cohort: Cohort, pictures: Sequence[Mapping[str, Any]]) -> str:
    metrics = [_metric(key) for key in metric_columns(cohort) if lookup(key)]
    data = {
        "metrics": metrics,
        "rows": [
            {
                "title": row.title,
                "participant": row.participant,
                "link": row.report,
                "estimator": row.estimator,
                "schemes": row.schemes,
                "implausible": len(row.plausibility),
                "outliers": list(cohort.outliers.get(row.title, ())),
                "entities": {k: v for k, v in row.entities.items() if k != "sub"},
                "values": [_value(item, row.metrics) for item in metrics],
            }
            for row in cohort.rows
        ],
        "shown": [key for key in SHOWN if any(item["key"] == key for item in metrics)],
        "entities": entities_of(cohort),
        "prefix": BASELINE_PREFIX,
        "groups": list(GROUPS),
    }
    plain = _plain(cohort)
    return render(
        "group.html",
        cohort=cohort,
        plain=plain,
        regions=[] if plain else page_regions(cohort),
        few_regions=plain_regions(cohort) if plain else [],
        maps=pictures,
        fewest_in_maps=FEWEST_IN_MAPS,
        unregistered=[row for row in cohort.rows if row.registered is False],
        fewest=FEWEST,
        data=data,
        implausible=[row for row in cohort.rows if row.plausibility],
        n_lsq=sum(item["lsq"] for item in metrics),
        outlier_z=OUTLIER_Z,
    )


def _plain(cohort: Cohort) -> list[dict[str, Any]]:
    """Return the metrics by group for a page without distributions; empty if there are enough."""
    if not cohort.rows or len({row.participant for row in cohort.rows}) >= FEWEST:
        return []
    there = {
        key for row in cohort.rows for key, value in row.metrics.items() if math.isfinite(value)
    }
    known = [metric for key, metric in METRICS.items() if key in there]
    groups = [(name, [metric for metric in known if metric.group == name]) for name in GROUPS]
    return [{"name": name, "metrics": metrics} for name, metrics in groups if metrics]


def _metric(column: str) -> dict[str, Any]:
    metric, least_squares = lookup(column) or (Metric("", "", "", "", ""), False)
    factor = 100 if metric.unit == "fraction" else 1
    return {
        "key": column,
        "base": metric.key,
        "lsq": least_squares,
        "name": metric.name,
        "group": metric.group,
        "unit": {"fraction": "%", "ratio": ""}.get(metric.unit, metric.unit),
        "description": metric.description,
        "factor": factor,
        "good": _ends(metric.good, factor),
        "fair": _ends(metric.fair, factor),
    }


def _ends(limits: tuple[float, float] | None, factor: float) -> list[float | None] | None:
    if limits is None:
        return None
    return [factor * end if math.isfinite(end) else None for end in limits]


def _value(item: Mapping[str, Any], metrics: Mapping[str, float]) -> float | None:
    value = metrics.get(item["key"], math.nan) * item["factor"]
    return float(f"{value:.5g}") if math.isfinite(value) else None
