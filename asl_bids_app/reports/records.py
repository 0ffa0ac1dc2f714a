"""Finding the records that runs left under ``logs/``; all keys of a record may be missing."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from asl_bids_app.reports.damage import RECORD, RUN, read_object


def _age(path: Path, record: Mapping[str, Any]) -> tuple[str, float]:
    # Run names begin with their time, to the second, and end in random letters; files copied
    # elsewhere lose the time of their own.
    name = str(record.get("run_id") or path.parent.name)
    return name.rpartition("-")[0] or name, path.stat().st_mtime


def records_of(output_dir: Path, participant: str = "*") -> dict[str, list[dict[str, Any]]]:
    """Return the records of each participant, the newest first.

    Parameters
    ----------
    output_dir
        Root of the derivatives.
    participant
        A label without ``sub-``; all by default.

    Returns
    -------
    dict of str to list of dict
        By participant label. The path of each record is added as ``"record"``.
    """
    return read_records(output_dir, participant)[0]


def read_records(
    output_dir: Path, participant: str = "*"
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, list[str]]]:
    """Return what `records_of` does, and lines on the records that are damaged.

    Returns
    -------
    dict of str to list of dict
        By participant label, the newest first; what of them has the right type.
    dict of str to list of str
        By participant label; not of records older than one that is whole.
    """
    found: dict[str, list[tuple[tuple[str, float], dict[str, Any], list[str]]]] = {}
    name = "*" if participant == "*" else glob.escape(participant)
    for path in output_dir.glob(f"logs/*/sub-{name}.json"):
        record, faults = read_object(path, RECORD, output_dir)
        if record:
            record["record"] = path.relative_to(output_dir).as_posix()
        label = path.stem.removeprefix("sub-")
        found.setdefault(label, []).append((_age(path, record), record, faults))
    records, damage = {}, {}
    for label, rows in sorted(found.items()):
        rows.sort(key=lambda row: row[0], reverse=True)
        records[label] = [record for _, record, _ in rows if record]
        for _, _, faults in rows:
            if not faults:
                break
            damage.setdefault(label, []).extend(faults)
    return {label: rows for label, rows in records.items() if rows}, damage


def unit_of(records: Iterable[Mapping[str, Any]], entities: Mapping[str, str]) -> dict[str, Any]:
    """Return what the first record that knows a series says of it; empty if none does."""
    for record in records:
        for unit in record.get("units") or []:
            if dict(unit.get("entities") or {}) == dict(entities):
                return unit
    return {}


def _session(name: str) -> str:
    found = re.search(r"(?:^|_)ses-([A-Za-z0-9+]+)", name)
    return found[1] if found else ""


def standing(records: Sequence[Mapping[str, Any]]) -> tuple[str, list[Mapping[str, Any]]]:
    """Return the status of a participant, and the errors that still stand.

    A run of some sessions says nothing of the others: of those the records before it do.

    Parameters
    ----------
    records
        Of the participant, the newest first.
    """
    errors: list[Mapping[str, Any]] = []
    known: set[str] = set()
    done = False
    for number, record in enumerate(records):
        units = [dict(unit.get("entities") or {}) for unit in record.get("units") or []]
        failed = list(record.get("errors") or [])
        places = [_session(str(error.get("unit") or "")) for error in failed]
        errors += [error for error, ses in zip(failed, places, strict=True) if ses not in known]
        done = done or bool(units)
        known |= {str(unit.get("ses") or "") for unit in units} | set(places)
        options = record.get("options") or {}
        if not options.get("session_label") and not options.get("bids_filter_file"):
            if number == 0:
                return str(record.get("status") or ""), errors
            break
    if errors:
        return "partial" if done else "failed", errors
    newest = str(records[0].get("status") or "") if records else ""
    return "complete" if done else newest, errors


def _was_to_make(record: Mapping[str, Any], session: str) -> bool:
    """Tell whether a run was to make all series of a session; of a filtered one nobody knows."""
    options = record.get("options") or {}
    asked = [str(label) for label in options.get("session_label") or []]
    return not options.get("bids_filter_file") and (not asked or session in asked)


def outdated(records: Sequence[Mapping[str, Any]], entities: Mapping[str, str]) -> tuple[str, ...]:
    """Return a sentence if the maps of a series are not of the newest run; else none.

    Parameters
    ----------
    records
        Of the participant, the newest first.
    entities
        Of the series.
    """
    later = None
    for record in records:
        if unit_of([record], entities):
            if later is None:
                return ()
            name, day = record.get("run_id") or "an earlier run", str(record.get("finished"))[:10]
            return (
                f"These maps are of an earlier run ({name}, {day}): the newest one "
                f"({later.get('run_id') or later.get('record')}) failed on them or left them out.",
            )
        if later is None and _was_to_make(record, str(entities.get("ses") or "")):
            later = record
    return ()


def asked_participants(output_dir: Path) -> set[str]:
    """Return the labels of all participants that any run was to process."""
    asked: set[str] = set()
    for path in output_dir.glob("logs/*/run.json"):
        for record in read_object(path, RUN, output_dir)[0].get("participants") or []:
            if isinstance(record, Mapping) and record.get("participant"):
                asked.add(str(record["participant"]))
    for path in output_dir.glob("logs/*/config.json"):
        content = read_object(path, RUN, output_dir)[0]
        labels = list((content.get("options") or {}).get("participant_label") or [])
        labels += [label for label in content.get("participants") or [] if isinstance(label, str)]
        asked.update(str(label).removeprefix("sub-") for label in labels)
    return asked
