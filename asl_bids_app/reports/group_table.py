"""The table of a cohort: its columns, and what each means."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from asl_bids_app.quality.definitions import dictionary
from asl_bids_app.reports.cohort import Cohort, Row
from asl_bids_app.reports.outliers import OUTLIER_Z

_NAMES: Final = {"ses": "session_id"}


def table_columns(cohort: Cohort) -> dict[str, list[Any]]:
    """Return the columns of the table; who has no series has a row without numbers."""
    status = {item.participant: item.status for item in cohort.absent}
    without = sorted(set(cohort.participants) - {row.participant for row in cohort.rows})
    entries = [(row.participant, row) for row in cohort.rows] + [
        (label, None) for label in without
    ]
    columns: dict[str, list[Any]] = {"participant_id": [f"sub-{label}" for label, _ in entries]}
    for name, of in entity_columns(cohort).items():
        columns[name] = [of(row) if row else None for _, row in entries]
    columns["status"] = [status.get(label, "complete") for label, _ in entries]
    columns["estimator"] = [row.estimator or None if row else None for _, row in entries]
    columns["schemes"] = [row.schemes or None if row else None for _, row in entries]
    columns["implausible"] = [len(row.plausibility) if row else None for _, row in entries]
    columns["outlier_in"] = [
        ",".join(cohort.outliers.get(row.title, ())) or None if row else None for _, row in entries
    ]
    for key in metric_columns(cohort):
        columns[key] = [row.metrics.get(key, math.nan) if row else None for _, row in entries]
    return columns


def describe_columns(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the JSON file beside the table says of its columns."""
    fixed = {
        "participant_id": "Participant.",
        "session_id": "Session.",
        "status": "What became of the participant in the newest run, of sessions that were run "
        "apart in the newest of each: complete, partial (some "
        "series failed), failed, no ASL, missing (neither record nor maps), or damaged (a "
        "table, sidecar or record can't be used).",
        "estimator": "What made the main maps.",
        "schemes": "Labelling schemes of the series.",
        "implausible": "Number of reasons not to believe the maps; 0 for believable ones.",
        "outlier_in": "Metrics, separated by commas, whose modified z score over all series "
        f"exceeds {OUTLIER_Z:g} (Iglewicz and Hoaglin 1993).",
    }
    known = dictionary()
    return {
        name: known.get(name) or {"Description": fixed.get(name, f"The BIDS entity {name}.")}
        for name in columns
    }


def entity_columns(cohort: Cohort) -> dict[str, Callable[[Row], str | None]]:
    """Return the columns of the entities, and what a series has in them."""

    def of(key: str) -> Callable[[Row], str | None]:
        label = "ses-" if key == "ses" else ""
        return lambda row: label + row.entities[key] if key in row.entities else None

    return {_NAMES.get(key, key): of(key) for key in entities_of(cohort)}


def entities_of(cohort: Cohort) -> list[str]:
    """Return the entities that series of the cohort have, that of the participant left out."""
    return [k for k in dict.fromkeys(k for row in cohort.rows for k in row.entities) if k != "sub"]


def metric_columns(cohort: Cohort) -> list[str]:
    """Return the metrics that series of the cohort have, in the order of their table."""
    present = {key for row in cohort.rows for key in row.metrics}
    known = [key for key in dictionary() if key in present]
    return known + sorted(present - set(known))
