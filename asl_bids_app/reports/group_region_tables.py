"""Regions of a cohort in files: one long table for each atlas and quantity."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from asl_bids_app.anatomy.regions import COLUMNS
from asl_bids_app.anatomy.sides import side_of
from asl_bids_app.bids.derivatives import write_json, write_table
from asl_bids_app.reports.cohort import Cohort, Row

OF_BOTH: Final = ("voxels", "coverage", "misfit")
"""Columns of both tables."""
NO_VALUE: Final = frozenset({"index", "name"})
FILES: Final = ("cbf", "att")
"""Suffixes of the tables: what is not of ATT stands with CBF."""


def region_status(row: Row, atlas: str) -> str:
    """Return what became of an atlas in a series, in a word."""
    if atlas in row.regions:
        return "complete"
    if atlas in row.damaged:
        return "damaged"
    return "not registered" if row.registered is False else "missing"


def atlases_of(cohort: Cohort) -> list[str]:
    """Return all atlases of a cohort by their names; the tissues, which need none, first."""
    names = {name for row in cohort.rows for name in (*row.regions, *row.damaged)}
    return sorted(names, key=lambda name: (name != "tissue", name))


def write_region_tables(
    output_dir: Path, cohort: Cohort, entities: Mapping[str, Callable[[Row], str | None]]
) -> list[Path]:
    """Write ``group_atlas-<name>_cbf.tsv`` and ``_att.tsv``: a row for each series and region.

    Parameters
    ----------
    output_dir
        Root of the derivatives.
    cohort
    entities
        Columns of the entities, and what a series has in them.

    Returns
    -------
    list of Path
        The tables; a JSON file beside each says what its columns mean. A series without the
        atlas has one row that says why, and so has a participant without a series.
    """
    written = []
    for atlas in atlases_of(cohort):
        tables = [row.regions[atlas] for row in cohort.rows if atlas in row.regions]
        known = {key for table in tables for key in table.columns} - NO_VALUE
        others = dict.fromkeys(k for table in tables for k in table.columns if k not in COLUMNS)
        about = {key: dict(text) for table in tables for key, text in table.about.items()}
        present = [key for key in (*COLUMNS, *others) if key in known]
        for suffix in FILES:
            keys = [
                key
                for key in present
                if key in OF_BOTH or key.startswith("att_") == (suffix == "att")
            ]
            path = output_dir / f"group_atlas-{atlas}_{suffix}.tsv"
            write_json(path.with_suffix(".json"), _dictionary(entities, keys, about))
            write_table(path, _columns(cohort, atlas, entities, keys))
            written.append(path)
    return written


def _columns(
    cohort: Cohort,
    atlas: str,
    entities: Mapping[str, Callable[[Row], str | None]],
    keys: list[str],
) -> dict[str, list[Any]]:
    heads = ["participant_id", *entities, "status", "index", "region", "hemisphere", *keys]
    columns: dict[str, list[Any]] = {head: [] for head in heads}

    def add(row: Row | None, label: str, status: str, values: Mapping[str, Any]) -> None:
        line = {
            "participant_id": f"sub-{label}",
            **{key: of(row) if row else None for key, of in entities.items()},
            "status": status,
            **values,
        }
        for head in heads:
            columns[head].append(line.get(head))

    for row in cohort.rows:
        status = region_status(row, atlas)
        if (table := row.regions.get(atlas)) is None:
            add(row, row.participant, status, {})
            continue
        index = table.column("index")
        for place, name in enumerate(table.names):
            values: dict[str, Any] = {key: float(table.column(key)[place]) for key in keys}
            values |= {"region": name, "hemisphere": side_of(name) or None}
            if math.isfinite(index[place]):
                values["index"] = int(index[place])
            add(row, row.participant, status, values)
    with_series = {row.participant for row in cohort.rows}
    statuses = {item.participant: item.status for item in cohort.absent}
    for label in cohort.participants:
        if label not in with_series:
            add(None, label, statuses.get(label, "missing"), {})
    return columns


def _dictionary(
    entities: Mapping[str, Any], keys: list[str], about: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    fixed = {
        "participant_id": "Participant.",
        **{
            key: "Session." if key == "session_id" else f"The BIDS entity {key}."
            for key in entities
        },
        "status": "complete; missing (the series has no table of this atlas); not registered (to "
        "its T1w or the template, so that it has none); damaged (the table can't be used); of a "
        "participant without a series what became of it.",
        "index": COLUMNS["index"]["Description"] + ".",
        "region": COLUMNS["name"]["Description"] + ".",
        "hemisphere": "L or R where the region's name says it.",
    }
    found: dict[str, Any] = {key: {"Description": text} for key, text in fixed.items()}
    unknown = {"Description": "See the tables of the participants."}
    return found | {key: dict(COLUMNS.get(key) or about.get(key) or unknown) for key in keys}
