"""What a run will do: participants, series, protocols and constants, before any image is read.

Every fault that the metadata show is found here, so a dry run tells all of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from asl_bids_app.bids.acquisition import M0Kind, distinct_measurements
from asl_bids_app.bids.jsonfile import read_json
from asl_bids_app.bids.labelling import scheme_of
from asl_bids_app.bids.layout import Dataset, RunFiles, find_runs
from asl_bids_app.bids.sessions import PlannedRun, Unit, group
from asl_bids_app.bids.sidecar import understand
from asl_bids_app.calibration import check_keys, resolve
from asl_bids_app.errors import (
    COMMAND_LINE,
    AslAppError,
    Cause,
    Faults,
    InputError,
    faults_of,
)
from asl_bids_app.failures import Failure
from asl_bids_app.options.table import AppOptions
from asl_bids_app.wording import seconds
from asl_bids_app.workflows.run_reading import Reading, choose_reading
from asl_bids_app.workflows.unused_options import unused_options

NO_ASL: Final = "search"
"""The step of a `Failure` that says that a participant has no ASL run."""


@dataclass(frozen=True, eq=False)
class ParticipantPlan:
    """What will be done for a participant."""

    participant: str
    units: tuple[Unit, ...]
    failures: tuple[Failure, ...]
    not_understood: tuple[RunFiles, ...] = ()
    may_complete: bool = False
    """Whether `--propose-sidecars` may have something to propose."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What a whole run will do."""

    dataset: Dataset
    participants: tuple[ParticipantPlan, ...]
    reading: Reading


def read_filters(path: Path | None) -> dict[str, Any] | None:
    """Read a `--bids-filter-file`.

    Raises
    ------
    InputError
        If it holds no JSON object.
    """
    if path is None:
        return None
    try:
        return read_json(path, str(path))
    except InputError as error:
        place = f" at {error.field}" if error.field else ""
        raise InputError(
            COMMAND_LINE,
            "--bids-filter-file",
            f"{error.found}{place} in {path}",
            "an object such as {'asl': {...}}",
        ) from error


def _plan_run(run: RunFiles, reading: Reading) -> PlannedRun:
    faults = Faults()
    with faults.collect():
        acquisition = understand(run, reading.inputs)
    # Where the run itself has faults, those of its constants are reported in the same round.
    scheme = scheme_of(run) if faults else acquisition.scheme
    factor = None if faults else acquisition.m0.factor
    if run.readable and run.sidecars:
        reported = reading.calibration, run.sidecar
        with faults.collect():
            if scheme is None:
                check_keys(run.metadata, *reported)
            else:
                calibration, warnings = resolve(scheme, run.metadata, *reported, factor)
    faults.check()
    return PlannedRun(acquisition, calibration, (*acquisition.warnings, *warnings))


def faults_of_run(run: RunFiles, reading: Reading) -> tuple[InputError, ...]:
    """Return everything that forbids to plan a run."""
    try:
        _plan_run(run, reading)
    except AslAppError as error:
        return tuple(fault for fault in faults_of(error) if isinstance(fault, InputError))
    return ()


def _plan_participant(
    participant: str, runs: tuple[RunFiles, ...], reading: Reading
) -> ParticipantPlan:
    from asl_bids_app.bids.propose import may_complete
    from asl_bids_app.workflows.crash import failure_of

    failures, planned, faulty, completable = [], {}, [], False
    if not runs and participant in reading.participants:
        where = f"sub-{participant}"
        error = InputError(
            where, "", "no ASL run", f"{where}/**/perf/*_asl.nii[.gz]", cause=Cause.NO_ASL
        )
        failures.append(Failure.from_error(where, NO_ASL, error))
    for run in runs:
        try:
            planned[run.path] = _plan_run(run, reading)
        except AslAppError as error:
            name = run.path.name.partition(".")[0]
            faults = faults_of(error)
            failures += [Failure.from_error(name, "input", fault) for fault in faults]
            faulty.append(run)
            inputs = [fault for fault in faults if isinstance(fault, InputError)]
            completable = completable or may_complete(run, inputs)
        except Exception as error:
            # Whatever it is, it is this run's and no other's.
            failures.append(failure_of(run.path.name.partition(".")[0], "input", error))
    units: tuple[Unit, ...] = ()
    try:
        units = tuple(
            unit.with_constants(planned)
            for unit in group([run.acquisition for run in planned.values()], reading.joint)
        )
    except Exception as error:
        failures.append(failure_of(f"sub-{participant}", "grouping", error))
    return ParticipantPlan(participant, units, tuple(failures), tuple(faulty), completable)


def make_plan(options: AppOptions) -> Plan:
    """Find all runs, and understand them.

    Parameters
    ----------
    options
        Of the run.

    Returns
    -------
    Plan
        A run that can't be understood is a `Failure` of its participant.

    Raises
    ------
    InputError
        If the dataset as a whole, a participant's label or a filter is at fault.
    """
    dataset = find_runs(
        options.bids_dir,
        options.participant_label or None,
        options.session_label or None,
        read_filters(options.bids_filter_file),
        options.bids_database_dir,
    )
    reading = choose_reading(options)
    participants = tuple(
        _plan_participant(participant, runs, reading)
        for participant, runs in dataset.participants.items()
    )
    plans = participants
    runs = [run.acquisition for plan in plans for unit in plan.units for run in unit.runs]
    faulty = [scheme_of(run) for plan in plans for run in plan.not_understood]
    warnings = (*dataset.warnings, *unused_options(options, runs, faulty))
    return Plan(replace(dataset, warnings=warnings), participants, reading)


def _describe_run(run: PlannedRun) -> list[str]:
    acquisition = run.acquisition
    counts = Counter(acquisition.volume_types)
    volumes = ", ".join(f"{number} {kind}" for kind, number in counts.items())
    measurements = ", ".join(
        f"{delay:g}/{seconds(duration)} ({number})"
        for delay, duration, number in distinct_measurements(acquisition)
    )
    last = float(np.max(acquisition.slice_time))
    readout = f"2D, last slice after {last:g} s" if last else "3D or simultaneous"
    alone = "mean control volume" if acquisition.m0.kind is M0Kind.ABSENT else "this series"
    source = acquisition.m0.path.name if acquisition.m0.path else alone
    times = ", ".join(f"{t:g}" for t in dict.fromkeys(acquisition.m0.repetition_time))
    m0 = f"{acquisition.m0.kind.value}, {source}" + (
        f", repetition time {times} s" if times else ""
    )
    lines = [
        f"    {acquisition.path.name}: {acquisition.scheme.value}; {volumes}",
        f"      delay/duration (volumes): {measurements}",
        f"      readout: {readout}; M0: {m0}",
    ]
    lines += [f"      inferred: {name}: {text}" for name, text in acquisition.inferred.items()]
    lines += [f"      {name} = {quantity}" for name, quantity in run.calibration.items()]
    lines += [f"      warning: {warning}" for warning in run.warnings]
    return lines


def describe(plan: Plan) -> str:
    """Tell a plan in words: runs found, protocols understood, constants with sources."""
    lines = [f"warning: {warning}" for warning in plan.dataset.warnings]
    for participant in plan.participants:
        lines.append(f"sub-{participant.participant}")
        for unit in participant.units:
            joint = "quantified together" if unit.joint else "quantified alone"
            lines.append(f"  {unit.name} ({joint})")
            lines += [f"    warning: {warning}" for warning in unit.warnings]
            for run in unit.runs:
                lines += _describe_run(run)
        lines += [f"  error: {failure.message}" for failure in participant.failures]
    return "\n".join(lines)
