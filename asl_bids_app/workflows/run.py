"""A whole run at participant level: plan, workflow, records, reports, exit code."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from asl_bids_app import __version__
from asl_bids_app.bids.derivatives import (
    PARTIAL,
    describe_dataset,
    perf_folder,
    remove_partial,
    unwritable,
    write_json,
)
from asl_bids_app.errors import COMMAND_LINE, InputError
from asl_bids_app.reports.explain import step_words
from asl_bids_app.workflows.claim import claimed
from asl_bids_app.workflows.crash import failure_of, remove_interrupted, write_crash
from asl_bids_app.workflows.lock import LockedError
from asl_bids_app.workflows.options import AppOptions
from asl_bids_app.workflows.plan import NO_ASL, Failure, ParticipantPlan, Plan, describe, make_plan
from asl_bids_app.workflows.progress import Progress
from asl_bids_app.workflows.proposals import write_proposals
from asl_bids_app.workflows.settings import describe_settings
from asl_bids_app.workflows.workers import prepare_workers

LOG = logging.getLogger("asl-app")


def check_writable(folder: Path, name: str) -> None:
    """Make a folder and try to write in it.

    Raises
    ------
    InputError
        If that can't be done.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f"{PARTIAL}{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise unwritable(folder, error, "a writable folder", name) from error


def new_run_id() -> str:
    """Return a name for a run: its time, and a few letters against collisions."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"


def choose_estimator(options: AppOptions) -> tuple[str, tuple[str, str]]:
    """Return the name of the main estimator, and the model with its hash.

    Raises
    ------
    AslAppError
        If the model can't be used.
    """
    if options.estimator in {"bayes", "least-squares"}:
        if options.model:
            raise InputError("command line", "--model", options.model, "--estimator ensemble")
        return options.estimator, ("", "")
    from asl_bids_app.models.store import DEFAULT_MODEL, find_model

    name = options.model or DEFAULT_MODEL
    if options.estimator is None and not options.model and find_model(name) is None:
        LOG.info("no trained model is installed: the main maps are by least squares")
        return "least-squares", ("", "")
    from asl_bids_app.models.store import model_hash

    return "ensemble", (name, model_hash(name))


def check_machine(options: AppOptions, model: str) -> None:
    """Check that device and model can be used, before hours are spent on what comes before them.

    Parameters
    ----------
    options
        Of the run.
    model
        Name or folder of the ensemble's model; empty for none.

    Raises
    ------
    InputError
        If this machine has no such device, or the model is damaged or of another network.
    """
    if options.device != "auto":  # which there always is
        from asl_bids_app.estimators.devices import find_device

        find_device(options.device)
    # The bundled one came with the program, and is looked at where it is used.
    if model and options.model:
        from asl_bids_app.models.store import load_model

        load_model(model)


def check_mask(options: AppOptions) -> None:
    """Check that the mask of the command line is an image, for it is that of every run.

    Raises
    ------
    InputError
        If it is none, or holds several volumes.
    """
    if options.brain_mask is None:
        return
    from asl_bids_app.bids.images import read_header

    path, option, expected = options.brain_mask, "--brain-mask", "a 3D image, 1 inside the brain"
    try:
        header = read_header(path)
    except InputError as error:
        found = f"{error.field}: {error.found}" if error.field else error.found
        raise InputError(COMMAND_LINE, option, f"{path}: {found}", expected, error.cure) from error
    if header.n_volumes > 1:
        raise InputError(COMMAND_LINE, option, f"{path}: {header.n_volumes} volumes", expected)


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
    with Progress(options.quiet) as shown:
        return _run_participants(options, command, shown)


def _run_participants(options: AppOptions, command: list[str], shown: Progress) -> int:
    began = time.perf_counter()
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    check_mask(options)
    if not options.dry_run:
        prepare_workers(options)
    with shown.stage("reading the dataset"):
        plan = make_plan(options)
    if options.dry_run:
        settings, could_start = describe_settings(plan, options)
        print("\n".join([describe(plan), *settings]))  # noqa: T201 - what was asked for
    if options.propose_sidecars:
        for line in write_proposals(plan, options.propose_sidecars, options):
            LOG.warning("%s", line)
    elif any(p.not_understood for p in plan.participants):
        LOG.info("--propose-sidecars DIR writes completed sidecars for review")
    if options.dry_run:
        return int(not could_start or any(p.failures for p in plan.participants))
    for warning in plan.dataset.warnings:
        LOG.warning("%s", warning)
    estimator, model = choose_estimator(options)
    check_machine(options, model[0])
    check_writable(options.output_dir, "output_dir")
    check_writable(options.work_dir, "--work-dir")
    if options.run_report:
        check_writable(options.run_report.parent, "--run-report")
    with claimed(plan, options) as (ours, others):
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
    from asl_bids_app.workflows.reporting import write_reports

    run_id = new_run_id()
    folder = options.output_dir / "logs" / run_id
    with _LogFile(folder / "asl-app.log"):
        LOG.info("asl-app %s, run %s", __version__, run_id)
        LOG.info("%s", describe(plan))
        describe_dataset(options.output_dir, options.bids_dir, plan.dataset.description)
        labels = [participant.participant for participant in plan.participants]
        # At the start, so that the group level knows whom a killed run never came to.
        write_json(
            folder / "config.json",
            {"command": command, "options": options.to_json(), "participants": labels},
        )
        planned = time.perf_counter()
        records = _process(plan, options, estimator, shown, folder)
        shared = {
            "run_id": run_id,
            "version": __version__,
            "started": started,
            "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
            "command": command,
            "options": options.to_json(),
            **machine(),
        }
        for record in records:
            record.update(shared)
            write_json(folder / f"sub-{record['participant']}.json", record)
        computed = time.perf_counter()
        write_reports(options, records, folder, shown)
        report = {
            **shared,
            "seconds": {
                "plan": round(planned - began, 3),
                "workflow": round(computed - planned, 3),
                "reports": round(time.perf_counter() - computed, 3),
            },
            "warnings": list(plan.dataset.warnings),
            "participants": records,
        }
        write_json(folder / "run.json", report)
        if options.run_report:
            write_json(options.run_report, report)
        for error in others:
            LOG.error("%s", error)
        return _conclude(options, records, time.perf_counter() - began)


def _process(
    plan: Plan,
    options: AppOptions,
    estimator: tuple[str, tuple[str, str]],
    shown: Progress,
    folder: Path,
) -> list[dict[str, Any]]:
    """Run the workflow over all participants and return their records."""
    told = {
        participant.participant: [write_crash(f, folder / "crash") for f in participant.failures]
        for participant in plan.participants
    }
    for participant in plan.participants:
        for failure in told[participant.participant]:
            LOG.error("%s", failure.message)
    useful = [p for p in plan.participants if p.units]
    finished: dict[str, tuple[list[dict[str, Any]], list[Failure]]] = {}
    stop = options.stop_on_first_crash and any(p.failures for p in plan.participants)
    if useful and not stop:
        finished = _run(useful, options, estimator, shown, folder)
    records = []
    for participant in plan.participants:
        units, failures = finished.get(participant.participant, ([], []))
        failures = [*told[participant.participant], *failures]
        records.append(
            {
                "participant": participant.participant,
                "status": _status(units, failures),
                "errors": [failure.to_json() for failure in failures],
                "warnings": list(dict.fromkeys(w for unit in units for w in unit["warnings"])),
                "plausibility": [text for unit in units for text in unit["plausibility"]],
                "units": units,
            }
        )
    return records


def _run(
    participants: list[ParticipantPlan],
    options: AppOptions,
    estimator: tuple[str, tuple[str, str]],
    shown: Progress,
    folder: Path,
) -> dict[str, tuple[list[dict[str, Any]], list[Failure]]]:
    from nipype.pipeline.engine import Workflow

    from asl_bids_app.workflows.execute import (
        clean,
        collect,
        configure,
        prepare_records,
        run_workflow,
    )
    from asl_bids_app.workflows.participant import participant_workflow, safe

    if options.clean_workdir:
        clean(options, [participant.participant for participant in participants])
    crash_folder = folder / "crash"
    configure(options, crash_folder)
    whole = Workflow(name="asl_app")
    finished: dict[str, tuple[list[dict[str, Any]], list[Failure]]] = {}
    for participant in participants:
        label = participant.participant
        try:
            for unit in participant.units:
                # Not elsewhere: another session of the participant may be in work.
                remove_partial(perf_folder(options.output_dir, unit.entities))
            prepare_records(options, participant)
            whole.add_nodes([participant_workflow(participant, options, *estimator)])
        except Exception as error:
            # A file that went away since it was planned, most often: this participant's alone.
            failure = write_crash(failure_of(f"sub-{label}", "workflow", error), crash_folder)
            LOG.error("%s", failure.message)
            finished[label] = ([], [failure])
    participants = [p for p in participants if p.participant not in finished]
    try:
        ended = run_workflow(whole, options, shown) if participants else ""
    except KeyboardInterrupt:
        # Workers that were ended in the midst of writing could not take it away themselves.
        for unit in (unit for participant in participants for unit in participant.units):
            remove_partial(perf_folder(options.output_dir, unit.entities))
        remove_interrupted(crash_folder)
        raise
    for participant in participants:
        name = f"asl_app/sub_{safe(participant.participant)}"
        units, failures = collect(name, options, participant, crash_folder, ended)
        # Those of the plan have been told with it.
        told = {text for unit in participant.units for text in unit.warnings}
        told |= {text for unit in participant.units for run in unit.runs for text in run.warnings}
        for text in dict.fromkeys(text for unit in units for text in unit["warnings"]):
            if text not in told:
                LOG.warning("sub-%s: %s", participant.participant, text)
        for failure in failures:
            LOG.error("%s: %s: %s", failure.unit, step_words(failure.step), failure.message)
        finished[participant.participant] = (units, failures)
    return finished


def _status(units: list[dict[str, Any]], failures: list[Failure]) -> str:
    if units:
        return "partial" if failures else "complete"
    return "failed" if any(f.step != NO_ASL for f in failures) else "no ASL"


def _conclude(options: AppOptions, records: list[dict[str, Any]], seconds: float) -> int:
    bad = [record for record in records if record["errors"]]
    implausible = [record for record in records if record["plausibility"]]
    for record in implausible:
        for sentence in record["plausibility"]:
            LOG.warning("sub-%s: implausible: %s", record["participant"], sentence)
    for record in records:
        for unit in record["units"]:
            main = next(name for name in unit["outputs"] if name.endswith("_cbf.nii.gz"))
            LOG.info("maps: %s", options.output_dir / main)
    LOG.info(
        "%d of %d participants complete in %.1f s; output in %s",
        len(records) - len(bad),
        len(records),
        seconds,
        options.output_dir,
    )
    return int(bool(bad) or (options.fail_on_implausible and bool(implausible)))


class _Quiet(logging.FileHandler):
    """A log file that can't be written to, for want of room most often, ends no run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Leave the line out: the terminal has it."""


class _LogFile:
    """Copies the log into a file for the length of a run."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.handler = _Quiet(path, encoding="utf-8", errors="backslashreplace")
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def __enter__(self) -> None:
        LOG.addHandler(self.handler)
        LOG.debug("process %d", os.getpid())

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        if error is not None:
            # The console is told when the run has ended, and this file is closed then.
            told = (LOG.name, logging.ERROR, __file__, 0, "run ended: %s", (error,), None)
            self.handler.handle(LOG.makeRecord(*told))
        LOG.removeHandler(self.handler)
        self.handler.close()
