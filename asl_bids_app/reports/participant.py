"""The report of one participant: one file that opens anywhere and tells what was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from asl_bids_app import __version__
from asl_bids_app.bids.derivatives import write_text
from asl_bids_app.errors import InputError
from asl_bids_app.failures import Status
from asl_bids_app.reports.explain import explain
from asl_bids_app.reports.find_records import outdated, records_of, unit_of
from asl_bids_app.reports.load import find_series, load_series
from asl_bids_app.reports.methods import methods
from asl_bids_app.reports.page import render
from asl_bids_app.reports.section import section
from asl_bids_app.run_records import ParticipantRecord

VIEWER_BUDGET: Final = 8_000_000
"""Bytes of a page that the data of all its viewers may take."""

_VERDICTS: Final = {
    "complete": "Everything was processed.",
    "partial": "Some of the data could not be processed; see the errors.",
    "failed": "Nothing could be processed; see the errors.",
    "no ASL": "No ASL data were found for this participant.",
}


def write_participant_report(output_dir: Path, participant: str) -> Path:
    """Write the report of a participant from the derivatives and the newest record.

    Parameters
    ----------
    output_dir
        Root of the derivatives.
    participant
        Label, with or without ``sub-``.

    Returns
    -------
    Path
        ``sub-<label>.html`` in `output_dir`.

    Raises
    ------
    InputError
        If there is neither a map nor a record of the participant.
    """
    label = participant.removeprefix("sub-")
    records = records_of(output_dir, label).get(label, [])
    found = find_series(output_dir, label)
    if not records and not found:
        raise InputError(
            output_dir,
            f"sub-{label}",
            "neither maps nor a record of a run",
            "either",
            "process the participant first",
        )
    record = records[0] if records else ParticipantRecord()
    sections = [
        section(
            load_series(folder, entities), unit_of(records, entities), VIEWER_BUDGET // len(found)
        )
        for folder, entities in found
    ]
    for item, (_, entities) in zip(sections, found, strict=True):
        item["plausibility"] = [*outdated(records, entities), *item["plausibility"]]
    path = output_dir / f"sub-{label}.html"
    write_text(path, _page(output_dir, label, record, sections))
    return path


def _page(
    output_dir: Path,
    label: str,
    record: ParticipantRecord,
    sections: Sequence[Mapping[str, Any]],
) -> str:
    status = record.status or (Status.COMPLETE if sections else Status.FAILED).value
    shown = {item["id"] for item in sections}
    missing = [unit.title for unit in record.units if unit.title and unit.title not in shown]
    errors = [explain(error, output_dir) for error in record.errors]
    implausible = [
        f"{item['title']}: {text}" if len(sections) > 1 else text
        for item in sections
        for text in item["plausibility"]
    ]
    if not sections:
        implausible += record.plausibility
    return render(
        "participant.html",
        label=label,
        made_by=record.version or __version__,
        finished=record.finished[:16].replace("T", " "),
        status=status,
        verdict=_VERDICTS.get(status, ""),
        errors=errors,
        plausibility=implausible,
        warnings=_warnings(record, sections),
        sections=sections,
        missing=missing,
        methods=methods(_complete(record, sections)),
        provenance=_provenance(record),
    )


def _warnings(record: ParticipantRecord, sections: Sequence[Mapping[str, Any]]) -> list[str]:
    texts = [text for item in sections for text in item["warnings"]]
    texts += record.warnings
    implausible = {text for item in sections for text in item["plausibility"]}
    return [text for text in dict.fromkeys(texts) if text not in implausible]


def _complete(
    record: ParticipantRecord, sections: Sequence[Mapping[str, Any]]
) -> ParticipantRecord:
    """Return the record with the series that only older records know."""
    units = tuple(item["unit"] for item in sections if item["unit"].entities)
    return replace(record, version=record.version or __version__, units=units or record.units)


def _provenance(record: ParticipantRecord) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []

    def add(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            value = ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)
        if isinstance(value, list | tuple):
            value = " ".join(str(item) for item in value)
        if value not in (None, ""):
            rows.append((name, str(value)))

    add("Program", f"asl-bids-app {record.version}" if record.version else "")
    add("Run", record.run_id)
    for name in ("started", "finished", "command", "software", "machine"):
        add(name.capitalize(), getattr(record, name))
    add("Record", record.more.get("record"))
    given = {k: v for k, v in record.options.items() if v not in (None, "", [], {}, False)}
    add("Options", "; ".join(f"{k} = {v}" for k, v in given.items()))
    return rows
