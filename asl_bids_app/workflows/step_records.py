"""The records that steps leave in the work folder: made ready before a run, read back after it."""

from __future__ import annotations

import glob
import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from asl_bids_app.bids.jsonfile import read_json
from asl_bids_app.bids.sessions import Unit
from asl_bids_app.errors import Cause, InputError
from asl_bids_app.failures import Failure
from asl_bids_app.notices import Notice
from asl_bids_app.remarks import select_numeric
from asl_bids_app.run_records import UnitRecord
from asl_bids_app.workflows.full import SILENT, why_silent
from asl_bids_app.workflows.graph import record_folder, safe
from asl_bids_app.workflows.plan import ParticipantPlan
from asl_bids_app.workflows.step_values import load

LOG = logging.getLogger("asl-app")


def prepare_records(work_dir: Path, plan: ParticipantPlan) -> None:
    """Remove what an earlier run recorded of failures, and of what this one will write.

    The record of a series' last step is what says that it is done. One of an earlier run would
    say so of maps that this run, stopped or killed, never came to.
    """
    folder = record_folder(work_dir, plan.participant)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.json"):
        record = read_record(path)
        if not record or "failure" in record:
            path.unlink()
    remove_empty(work_dir / f"asl_app/sub_{safe(plan.participant)}")
    for unit in plan.units:
        (folder / f"{unit.name}.write.json").unlink(missing_ok=True)


def read_record(path: Path) -> dict[str, Any]:
    """Read the record of a step; one that a full disk or a killed run left empty is none."""
    try:
        return read_json(path, path.name)
    except (OSError, InputError):
        return {}


def remove_empty(flow_folder: Path) -> None:
    """Remove the steps of an earlier run that left a file without content, so that they run anew.

    A disk that was full, or a machine that stopped, leaves files of 0 bytes.
    """
    for folder in flow_folder.glob("*"):
        kept = (p for p in folder.glob("*") if p.suffix in {".pkl", ".pklz", ".json"})
        if any(path.stat().st_size == 0 for path in kept if path.is_file()):
            shutil.rmtree(folder, ignore_errors=True)


def collect(
    plan: ParticipantPlan,
    work_dir: Path,
    output_dir: Path,
    crash_folder: Path,
    ended: str = "",
) -> tuple[list[UnitRecord], list[Failure]]:
    """Return the records of the finished units of a participant, and the failures.

    Parameters
    ----------
    plan
        Of the participant.
    work_dir, output_dir
        Folders of the run.
    crash_folder
        Where nipype left its crash files.
    ended
        Why the workflow as a whole ended early; empty if it didn't.
    """
    units: list[UnitRecord] = []
    failures: list[Failure] = []
    folder = record_folder(work_dir, plan.participant)
    flow = work_dir / f"asl_app/sub_{safe(plan.participant)}"
    for unit in plan.units:
        records = {
            path.name.removesuffix(".json").split(".")[-1]: record
            for path in sorted(folder.glob(f"{glob.escape(unit.name)}.*.json"))
            if (record := read_record(path))
        }
        failed = {step: record for step, record in records.items() if "failure" in record}
        for step, record in failed.items():
            crash = "" if record.get("input") else _crash_file(crash_folder, unit.name, step)
            facts = record.get("facts") or {}
            failures.append(Failure(unit.name, step, record["failure"], crash, **facts))
        result = flow / f"{safe(unit.name)}__write" / "result.pkl"
        if not failed and result.exists() and "write" in records:
            finished: UnitRecord = load(result)
            units.append(
                replace(
                    finished,
                    warnings=(*finished.warnings, *_remarks(unit, records)),
                    timing=_of_steps(records, "seconds"),
                    processor_timing=_of_steps(records, "processor_seconds"),
                )
            )
        elif not failed:
            crash = _crash_file(crash_folder, unit.name, "")
            message = ended or why_silent(crash, work_dir, output_dir)
            cause = Cause.MEMORY if message == SILENT else Cause.DISK_FULL
            failures.append(Failure(unit.name, "workflow", message, crash, cause))
    return units, failures


def _of_steps(records: Mapping[str, Any], name: str) -> dict[str, float]:
    """Return one number of the record of each step that has it."""
    return {step: record[name] for step, record in records.items() if name in record}


def _remarks(unit: Unit, records: Mapping[str, Any]) -> list[Notice]:
    """Warn of the numbers that went wrong in a step, by the images that it worked on."""
    warnings = []
    names = [run.acquisition.path.name for run in unit.runs]
    for step, record in records.items():
        for text in select_numeric([str(text) for text in record.get("remarks") or []]):
            warnings.append(
                Notice(
                    names,
                    f"step {step}",
                    f"numbers that can't be computed with ({text})",
                    "signal of a usual size",
                    "look at the maps for holes and extreme values",
                )
            )
        for text in record.get("remarks") or []:
            LOG.debug("%s: %s: %s", unit.name, step, text)
    return warnings


def _crash_file(folder: Path, title: str, step: str) -> str:
    found = sorted(folder.glob(f"crash-*{safe(title)}__{step}*"))
    return str(found[-1]) if found else ""
