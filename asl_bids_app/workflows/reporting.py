"""Reports and methods texts: at the end of a run, and again or alone on request."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from asl_bids_app import __version__
from asl_bids_app.bids.derivatives import write_text
from asl_bids_app.errors import InputError
from asl_bids_app.failures import Failure
from asl_bids_app.options.table import AppOptions
from asl_bids_app.run_records import ParticipantRecord
from asl_bids_app.workflows.execute import machine
from asl_bids_app.workflows.plan import make_plan
from asl_bids_app.workflows.progress import Progress

LOG = logging.getLogger("asl-app")


def prepare_reports() -> None:
    """Import what reports are drawn with, in a thread, while workers compute."""

    def load() -> None:
        with suppress(ImportError):  # which the report itself will tell
            import_module("matplotlib.figure")
            import_module("matplotlib.backends.backend_svg")
            import_module("asl_bids_app.reports.participant")

    threading.Thread(target=load, name="asl-app-reports").start()


def write_reports(
    output_dir: Path, records: Sequence[ParticipantRecord], nprocs: int, shown: Progress
) -> list[ParticipantRecord]:
    """Write reports; one that fails is logged and counts as an error.

    Returns
    -------
    list of ParticipantRecord
        Those that came in, with the errors of their reports.
    """
    from asl_bids_app.reports.explain import step_words
    from asl_bids_app.workflows.report_workers import each_report

    made = each_report(output_dir, nprocs, [record.participant for record in records])
    reported = []
    for number, record in enumerate(records, 1):
        name = f"sub-{record.participant}"
        with shown.stage(f"{name}: {step_words('report')} ({number} of {len(records)})"):
            outcome = next(made)
        if isinstance(outcome, Exception):
            LOG.error("%s: no report: %s", name, outcome)
            LOG.debug("report", exc_info=outcome)
            failure = Failure.from_error(name, "report", outcome)
            reported.append(replace(record, errors=(*record.errors, failure)))
        else:
            LOG.info("report: %s", outcome)
            reported.append(record)
    return reported


NAMED: Final = 10
"""Participants that a methods text names at most as having another one."""


def write_citation(
    record: Mapping[str, Any], folder: Path, others: Sequence[Mapping[str, Any]] = ()
) -> Path:
    """Write the methods text of a record as Markdown, its references as BibTeX beside it.

    Parameters
    ----------
    record
        Of the participant that is described.
    folder
        Where the files go.
    others
        Of the run's other participants; those with another text are named.
    """
    from asl_bids_app.reports.methods import methods

    found = methods(record)
    differ = [f"sub-{r['participant']}" for r in others if methods(r) != found]
    if differ:
        names = ", ".join(differ[:NAMED])
        more = f" and {len(differ) - NAMED} more" if len(differ) > NAMED else ""
        note = (
            f"(Of sub-{record['participant']}. The text of these differs in part and is in their "
            f"reports: {names}{more}.)"
        )
        found = replace(found, paragraphs=(note, *found.paragraphs))
    path = folder / "CITATION.md"
    write_text(path.with_suffix(".bib"), found.bibtex())
    write_text(path, found.markdown())
    return path


def rebuild_reports(options: AppOptions) -> int:
    """Write the reports of participants again, from the derivatives.

    Returns
    -------
    int
        0 only if every report was written.
    """
    from asl_bids_app.reports.participant import write_participant_report

    places = ("logs/*/sub-*.json", "sub-*/")
    found = {p for place in places for p in options.output_dir.glob(place)}
    known = sorted({path.stem.removeprefix("sub-") for path in found})
    wanted = list(options.participant_label) or known
    if not wanted:
        raise InputError(options.output_dir, "", "no record of a participant", "an earlier run")
    failed = False
    for label in wanted:
        try:
            LOG.info("report: %s", write_participant_report(options.output_dir, label))
        except Exception as error:
            LOG.error("sub-%s: no report: %s", label, error)
            LOG.debug("report", exc_info=True)
            failed = True
    return int(failed)


def write_boilerplate(options: AppOptions) -> int:
    """Write the methods text of what would be run, and nothing else."""
    from asl_bids_app.finish.record import planned_record
    from asl_bids_app.workflows.checks import check_writable, choose_estimator

    plan = make_plan(options)
    estimator, _ = choose_estimator(options.estimator, options.model)
    check_writable(options.output_dir, "output_dir")
    for participant in plan.participants:
        if participant.units:
            record = ParticipantRecord(
                participant=participant.participant,
                version=__version__,
                options=options.to_json(),
                **machine(),
                units=tuple(
                    planned_record(unit, estimator, options.baseline) for unit in participant.units
                ),
            )
            LOG.info("methods text: %s", write_citation(record, options.output_dir / "logs"))
            return 0
    raise InputError(options.bids_dir, "", "no run that can be processed", "an ASL run")
