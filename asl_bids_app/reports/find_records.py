"""Finding the records that runs left under ``logs/``; all keys of a record may be missing."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from asl_bids_app.bids.files import parse_name
from asl_bids_app.failures import Failure, Status
from asl_bids_app.notices import Notice
from asl_bids_app.reports.damage import RECORD, RUN, read_object
from asl_bids_app.run_records import ParticipantRecord, RunRecord, UnitRecord


def _age(path: Path, record: ParticipantRecord) -> tuple[str, float]:
    # Run names begin with their time, to the second, and end in random letters; files copied
    # elsewhere lose the time of their own.
    name = record.run_id or path.parent.name
    return name.rpartition("-")[0] or name, path.stat().st_mtime


def records_of(output_dir: Path, participant: str = "*") -> dict[str, list[ParticipantRecord]]:
    """Return the records of each participant, the newest first.

    Parameters
    ----------
    output_dir
        Root of the derivatives.
    participant
        A label without ``sub-``; all by default.

    Returns
    -------
    dict of str to list of ParticipantRecord
        By participant label. The path of each record is added as ``"record"``.
    """
    return read_records(output_dir, participant)[0]


def read_records(
    output_dir: Path, participant: str = "*"
) -> tuple[dict[str, list[ParticipantRecord]], dict[str, list[Notice]]]:
    """Return what `records_of` does, and notices of the records that are damaged.

    Returns
    -------
    dict of str to list of ParticipantRecord
        By participant label, the newest first; what of them has the right type.
    dict of str to list of Notice
        By participant label; not of records older than one that is whole.
    """
    found: dict[str, list[tuple[tuple[str, float], ParticipantRecord | None, list[Notice]]]] = {}
    name = "*" if participant == "*" else glob.escape(participant)
    for path in output_dir.glob(f"logs/*/sub-{name}.json"):
        content, faults = read_object(path, RECORD, output_dir)
        place = {"record": path.relative_to(output_dir).as_posix()}
        record = ParticipantRecord.from_json(content | place)
        label = path.stem.removeprefix("sub-")
        row = (_age(path, record), record if content else None, faults)
        found.setdefault(label, []).append(row)
    records: dict[str, list[ParticipantRecord]] = {}
    damage: dict[str, list[Notice]] = {}
    for label, rows in sorted(found.items()):
        rows.sort(key=lambda row: row[0], reverse=True)
        records[label] = [record for _, record, _ in rows if record]
        for _, _, faults in rows:
            if not faults:
                break
            damage.setdefault(label, []).extend(faults)
    return {label: rows for label, rows in records.items() if rows}, damage


def unit_of(
    records: Iterable[ParticipantRecord], entities: Mapping[str, str]
) -> UnitRecord | Mapping[str, Any]:
    """Return what the first record that knows a series says of it; an empty one if none does."""
    return find_unit(records, entities) or {}


def find_unit(
    records: Iterable[ParticipantRecord], entities: Mapping[str, str]
) -> UnitRecord | None:
    """Return what the first record that knows a series says of it; None if none does."""
    units = (unit for record in records for unit in record.units)
    return next((unit for unit in units if dict(unit.entities) == dict(entities)), None)


def _session(name: str) -> str:
    """Return the label of the session that the name of a series or a run holds."""
    return parse_name(f"{name}_").entities.get("ses", "")


def standing(records: Sequence[ParticipantRecord]) -> tuple[str, list[Failure]]:
    """Return the status of a participant, and the errors that still stand.

    A run of some sessions says nothing of the others: what the records before it say counts
    there.

    Parameters
    ----------
    records
        Of the participant, the newest first.
    """
    errors: list[Failure] = []
    known: set[str] = set()
    done = False
    for number, record in enumerate(records):
        places = [_session(failure.unit) for failure in record.errors]
        pairs = zip(record.errors, places, strict=True)
        errors += [failure for failure, session in pairs if session not in known]
        done = done or bool(record.units)
        known |= {str(unit.entities.get("ses") or "") for unit in record.units} | set(places)
        options = record.options
        if not options.get("session_label") and not options.get("bids_filter_file"):
            if number == 0:
                return record.status, errors
            break
    if errors:
        return Status.PARTIAL if done else Status.FAILED, errors
    newest = records[0].status if records else ""
    return Status.COMPLETE if done else newest, errors


def _was_to_make(record: ParticipantRecord, session: str) -> bool:
    """Tell whether a run had to make all series of a session; no for one with a filter."""
    asked = [str(label) for label in record.options.get("session_label") or []]
    return not record.options.get("bids_filter_file") and (not asked or session in asked)


def outdated(records: Sequence[ParticipantRecord], entities: Mapping[str, str]) -> tuple[str, ...]:
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
        if find_unit([record], entities):
            if later is None:
                return ()
            name, day = record.run_id or "an earlier run", record.finished[:10]
            return (
                f"These maps are of an earlier run ({name}, {day}): the newest one "
                f"({later.run_id or later['record']}) failed on them or left them out.",
            )
        if later is None and _was_to_make(record, str(entities.get("ses") or "")):
            later = record
    return ()


def asked_participants(output_dir: Path) -> set[str]:
    """Return the labels of all participants that any run was to process."""
    asked: set[str] = set()
    for path in output_dir.glob("logs/*/run.json"):
        for record in _read_run(path, output_dir).participants:
            if isinstance(record, Mapping) and record.get("participant"):
                asked.add(str(record["participant"]))
    for path in output_dir.glob("logs/*/config.json"):
        run = _read_run(path, output_dir)
        labels = list(run.options.get("participant_label") or [])
        labels += [label for label in run.participants if isinstance(label, str)]
        asked.update(str(label).removeprefix("sub-") for label in labels)
    return asked


def _read_run(path: Path, output_dir: Path) -> RunRecord:
    return RunRecord.from_json(read_object(path, RUN, output_dir)[0])
