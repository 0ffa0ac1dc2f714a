"""Finding the records that runs left under ``logs/``; all keys of a record may be missing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _age(path: Path, record: Mapping[str, Any]) -> tuple[str, float]:
    # Run names begin with their time; files copied elsewhere lose that of their own.
    return str(record.get("run_id") or path.parent.name), path.stat().st_mtime


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
    found: dict[str, list[tuple[tuple[str, float], dict[str, Any]]]] = {}
    for path in output_dir.glob(f"logs/*/sub-{participant}.json"):
        record = read_json(path)
        if record:
            record["record"] = path.relative_to(output_dir).as_posix()
            label = path.stem.removeprefix("sub-")
            found.setdefault(label, []).append((_age(path, record), record))
    return {
        label: [record for _, record in sorted(rows, key=lambda row: row[0], reverse=True)]
        for label, rows in sorted(found.items())
    }


def unit_of(records: Iterable[Mapping[str, Any]], entities: Mapping[str, str]) -> dict[str, Any]:
    """Return what the first record that knows a series says of it; empty if none does."""
    for record in records:
        for unit in record.get("units") or []:
            if dict(unit.get("entities") or {}) == dict(entities):
                return unit
    return {}


def asked_participants(output_dir: Path) -> set[str]:
    """Return the labels of all participants that any run was to process."""
    asked: set[str] = set()
    for path in output_dir.glob("logs/*/run.json"):
        for record in read_json(path).get("participants") or []:
            if isinstance(record, Mapping) and record.get("participant"):
                asked.add(str(record["participant"]))
    for path in output_dir.glob("logs/*/config.json"):
        content = read_json(path)
        labels = list((content.get("options") or {}).get("participant_label") or [])
        labels += list(content.get("participants") or [])
        asked.update(str(label).removeprefix("sub-") for label in labels)
    return asked
