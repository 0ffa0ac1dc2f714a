"""A whole run at participant level: plan, workflow, records, reports, exit code."""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from asl_bids_app import __version__
from asl_bids_app.bids.dataset_description import describe_dataset
from asl_bids_app.bids.derivatives import write_json
from asl_bids_app.bids.outputs import OUTPUTS
from asl_bids_app.errors import code_of
from asl_bids_app.failures import Status
from asl_bids_app.finish.unit_anatomy import other_datasets
from asl_bids_app.options.table import AppOptions
from asl_bids_app.run_records import ParticipantRecord
from asl_bids_app.workflows.checks import (
    check_calibration,
    check_machine,
    check_mask,
    check_pvc,
    check_writable,
    choose_estimator,
)
from asl_bids_app.workflows.claim import claimed
from asl_bids_app.workflows.dry_run import describe_settings
from asl_bids_app.workflows.execute import read_plugin
from asl_bids_app.workflows.lock import LockedError
from asl_bids_app.workflows.log_file import LogFile
from asl_bids_app.workflows.participants_run import process_participants
from asl_bids_app.workflows.plan import Plan, describe, make_plan
from asl_bids_app.workflows.progress import Progress
from asl_bids_app.workflows.proposals import write_proposals
from asl_bids_app.workflows.work_folder import blocks, decide, tidy
from asl_bids_app.workflows.workers import prepare_workers

LOG = logging.getLogger("asl-app")


def new_run_id() -> str:
    """Return a name for a run: its time, and a few letters against collisions."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"


def run_participants(options: AppOptions, command: list[str]) -> int:
    """Process the participants of a dataset.

    Parameters
    ----------
    options
        Of the run.
    command
        The command line, for records.

    Returns
    -------
    int
        0 only if every participant succeeded.

    Raises
    ------
    AslAppError
        If nothing can be done at all.
    """
    began = time.perf_counter()
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    with Progress(options.quiet) as shown:
        check_mask(options.brain_mask)
        check_calibration(options.calibration, options.tissue, options.m0_smooth_fwhm)
        check_pvc(options.pvc, options.anatomy)
        if not options.dry_run:
            prepare_workers(options)
        with shown.stage("reading the dataset"):
            plan = make_plan(options)
        if options.dry_run:
            settings, faults = describe_settings(plan, options)
            print("\n".join([describe(plan), *settings]))  # noqa: T201 - what was asked for
        if options.propose_sidecars:
            for line in write_proposals(plan, options.propose_sidecars):
                LOG.warning("%s", line)
        elif any(p.may_complete for p in plan.participants):
            LOG.info("--propose-sidecars DIR writes completed sidecars for review")
        if options.dry_run:
            for fault in faults:
                LOG.error("%s", options.locate(fault))
            codes = [code_of(fault) for fault in faults]
            return max(codes, default=int(any(p.failures for p in plan.participants)))
        for warning in plan.dataset.warnings:
            LOG.warning("%s", warning)
        estimator, model = choose_estimator(options.estimator, options.model)
        check_machine(options.device, options.model)
        read_plugin(options.use_plugin, options.nprocs, options.mem_gb)
        check_writable(options.output_dir, "output_dir")
        check_writable(options.work_dir, "--work-dir")
        if options.run_report:
            check_writable(options.run_report.parent, "--run-report")
        with claimed(plan, options.work_dir) as (ours, others):
            status = _run_claimed(
                ours,
                options,
                (estimator, model),
                shown,
                others,
                command=command,
                began=began,
                started=started,
            )
        return int(bool(others)) or status


def _run_claimed(
    plan: Plan,
    options: AppOptions,
    estimator: tuple[str, tuple[str, str]],
    shown: Progress,
    others: Sequence[LockedError],
    *,
    command: list[str],
    began: float,
    started: str,
) -> int:
    """Process the participants of a plan, leave records and reports, and return the exit code."""
    from asl_bids_app.workflows.execute import machine
    from asl_bids_app.workflows.report_workers import FEWEST
    from asl_bids_app.workflows.reporting import prepare_reports, write_citation, write_reports

    run_id = new_run_id()
    folder = options.output_dir / "logs" / run_id
    with LogFile(folder / "asl-app.log"):
        LOG.info("asl-app %s, run %s", __version__, run_id)
        LOG.info("%s", describe(plan))
        linked = other_datasets(options)
        describe_dataset(options.output_dir, options.bids_dir, plan.dataset.description, linked)
        labels = [participant.participant for participant in plan.participants]
        # At the start, so that the group level knows whom a killed run never came to.
        write_json(
            folder / "config.json",
            {"command": command, "options": options.to_json(), "participants": labels},
        )
        with_data = [p for p in plan.participants if p.units]
        keep = decide(options.work_dir, with_data, "all" if options.debug else options.keep_work)
        planned = time.perf_counter()
        if options.nprocs > 1 and len(labels) < FEWEST:
            prepare_reports()
        shared = {
            "run_id": run_id,
            "version": __version__,
            "started": started,
            "finished": "",
            "command": tuple(command),
            "options": options.to_json(),
            **machine(),
        }
        records: list[ParticipantRecord] = []
        reporting = 0.0
        single = options.stop_on_first_crash or options.write_graph or bool(options.use_plugin)
        parts = blocks(plan.participants, options.nprocs, together=single)
        for part in parts:
            if len(parts) > 1:
                first, number = len(records) + 1, len(plan.participants)
                LOG.info("participants %d to %d of %d", first, len(records) + len(part), number)
            made = process_participants(
                replace(plan, participants=tuple(part)), options, estimator, shown, folder
            )
            shared["finished"] = datetime.now().astimezone().isoformat(timespec="seconds")
            made = [replace(record, **shared) for record in made]
            for record in made:
                write_json(folder / f"sub-{record.participant}.json", record.to_json())
            computed = time.perf_counter()
            made = write_reports(options.output_dir, made, options.nprocs, shown)
            reporting += time.perf_counter() - computed
            records += made
            if not keep:
                complete = [r.participant for r in made if r.status == Status.COMPLETE]
                tidy(options.work_dir, complete)
        described = [record for record in records if record.units]
        if described:
            write_citation(described[0], folder, described[1:])
        ended = time.perf_counter()
        report = {
            **shared,
            "seconds": {
                "plan": round(planned - began, 3),
                "workflow": round(ended - planned - reporting, 3),
                "reports": round(reporting, 3),
            },
            "warnings": list(plan.dataset.warnings),
            "participants": [record.to_json() for record in records],
        }
        write_json(folder / "run.json", report)
        if options.run_report:
            write_json(options.run_report, report)
        for error in others:
            LOG.error("%s", error)
        seconds = time.perf_counter() - began
        return _conclude(options.output_dir, records, seconds, options.fail_on_implausible)


def _conclude(
    output_dir: Path, records: list[ParticipantRecord], seconds: float, fail_on_implausible: bool
) -> int:
    """Log what became of all, and return the exit code."""
    bad = [record for record in records if record.errors]
    implausible = [record for record in records if record.plausibility]
    for record in implausible:
        for sentence in record.plausibility:
            LOG.warning("sub-%s: implausible: %s", record.participant, sentence)
    for record in records:
        for unit in record.units:
            main = Path(unit.folder) / OUTPUTS["cbf"].name(unit.entities)
            LOG.info("maps: %s", output_dir / main)
    counts = Counter(record.status for record in records)
    complete = counts.pop(Status.COMPLETE, 0)
    rest = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    LOG.info(
        "%d of %d participants complete%s in %.1f s; output in %s",
        complete,
        len(records),
        f" ({rest})" if rest else "",
        seconds,
        output_dir,
    )
    return int(bool(bad) or (fail_on_implausible and bool(implausible)))
