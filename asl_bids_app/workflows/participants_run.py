"""Running the workflow over all participants, and what became of each."""

from __future__ import annotations

import logging
from pathlib import Path

from asl_bids_app.bids.derivatives import perf_folder, remove_partial
from asl_bids_app.failures import Failure, Status
from asl_bids_app.options.table import AppOptions
from asl_bids_app.reports.explain import step_words
from asl_bids_app.run_records import ParticipantRecord, UnitRecord
from asl_bids_app.workflows.crash import failure_of, remove_interrupted, write_crash
from asl_bids_app.workflows.plan import NO_ASL, ParticipantPlan, Plan
from asl_bids_app.workflows.progress import Progress

LOG = logging.getLogger("asl-app")

_Finished = dict[str, tuple[list[UnitRecord], list[Failure]]]
"""By participant: the records of the units that were finished, and the failures."""


def process_participants(
    plan: Plan,
    options: AppOptions,
    estimator: tuple[str, tuple[str, str]],
    shown: Progress,
    folder: Path,
) -> list[ParticipantRecord]:
    """Run the workflow over all participants and return their records."""
    planned_failures = {
        participant.participant: [write_crash(f, folder / "crash") for f in participant.failures]
        for participant in plan.participants
    }
    for participant in plan.participants:
        for failure in planned_failures[participant.participant]:
            LOG.error("%s", failure.message)
    useful = [p for p in plan.participants if p.units]
    finished: _Finished = {}
    stop = options.stop_on_first_crash and any(p.failures for p in plan.participants)
    if useful and not stop:
        finished = _run(useful, options, estimator, shown, folder)
    records = []
    for participant in plan.participants:
        units, failures = finished.get(participant.participant, ([], []))
        failures = [*planned_failures[participant.participant], *failures]
        records.append(
            ParticipantRecord(
                participant=participant.participant,
                status=_status(units, failures),
                errors=tuple(failures),
                warnings=tuple(dict.fromkeys(w for unit in units for w in unit.warnings)),
                plausibility=tuple(text for unit in units for text in unit.plausibility),
                units=tuple(units),
            )
        )
    return records


def _run(
    participants: list[ParticipantPlan],
    options: AppOptions,
    estimator: tuple[str, tuple[str, str]],
    shown: Progress,
    folder: Path,
) -> _Finished:
    from nipype.pipeline.engine import Workflow

    from asl_bids_app.workflows.execute import clean, configure, run_workflow
    from asl_bids_app.workflows.graph import participant_workflow
    from asl_bids_app.workflows.step_records import collect, prepare_records

    if options.clean_workdir:
        clean(options.work_dir, [participant.participant for participant in participants])
    crash_folder = folder / "crash"
    configure(
        crash_folder,
        stop_on_first_crash=options.stop_on_first_crash,
        verbose=options.debug or options.verbose > 1,
    )
    whole = Workflow(name="asl_app")
    finished: _Finished = {}
    for participant in participants:
        label = participant.participant
        try:
            for unit in participant.units:
                # Not elsewhere: another session of the participant may be in work.
                remove_partial(perf_folder(options.output_dir, unit.entities))
            prepare_records(options.work_dir, participant)
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
        places = (options.work_dir, options.output_dir, crash_folder)
        units, failures = collect(participant, *places, ended)
        # Those of the plan have been shown with it.
        shown_before: set[str] = {text for unit in participant.units for text in unit.warnings}
        shown_before |= {
            text for unit in participant.units for run in unit.runs for text in run.warnings
        }
        for text in dict.fromkeys(text for unit in units for text in unit.warnings):
            if text not in shown_before:
                LOG.warning("sub-%s: %s", participant.participant, text)
        for failure in failures:
            LOG.error("%s: %s: %s", failure.unit, step_words(failure.step), failure.message)
        finished[participant.participant] = (units, failures)
    return finished


def _status(units: list[UnitRecord], failures: list[Failure]) -> Status:
    if units:
        return Status.PARTIAL if failures else Status.COMPLETE
    return Status.FAILED if any(f.step != NO_ASL for f in failures) else Status.NO_ASL
