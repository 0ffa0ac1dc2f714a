"""Errors of a run in plain words, each with what would cure it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from asl_bids_app.errors import Cause
from asl_bids_app.failures import Failure
from asl_bids_app.reports.old_records import complete_failure


@dataclass(frozen=True)
class Explained:
    """One error as a report tells it.

    Attributes
    ----------
    where : str
        The series or participant, and the step.
    meaning : str
        What happened, in plain words.
    cure : str
        What would put it right.
    message : str
        The program's own line.
    crash_file : str
        Its path below the derivatives, empty if there is none.
    traceback : str
        The end of the crash file.
    """

    where: str
    meaning: str
    cure: str
    message: str
    crash_file: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class _Words:
    meaning: str
    cure: str


_BY_CAUSE: Final = {
    Cause.NO_ASL: _Words(
        "No ASL image of this participant was found.",
        "Check that sub-*/[ses-*/]perf/*_asl.nii.gz exists, that the label is right, and that "
        "--session-label and --bids-filter-file don't leave it out.",
    ),
    Cause.MEMORY: _Words(
        "The computer ran out of memory, or the process was stopped from outside.",
        "Give the job more memory (or lower --nprocs and --batch-size, or use --device cpu if it "
        "was the graphics card's), and run the same command again: it goes on where it stopped.",
    ),
    Cause.DISK_FULL: _Words(
        "The disk is full.",
        "Make room in the output and work folders (--work-dir), and run the same command again.",
    ),
    Cause.NOT_WRITABLE: _Words(
        "A folder could not be written to.",
        "Give an output and a work folder that this user may write to; in a container, mount them "
        "writable.",
    ),
    Cause.GRAPHICS: _Words(
        "The graphics card could not be used.",
        "Run again with --device cpu, or update the driver.",
    ),
    Cause.IMAGE: _Words(
        "An image file is damaged or not a NIfTI file.",
        "Copy or convert the file again; a git-annex or datalad file must first be fetched "
        "(datalad get).",
    ),
    Cause.UNFORESEEN: _Words(
        "Something happened that the program did not foresee: a fault of its own, or unusual "
        "data.",
        "Run again with --debug. If it happens again, report it with the crash file named below.",
    ),
}


def explain(error: Failure | Mapping[str, Any], output_dir: Path) -> Explained:
    """Put a failure into plain words.

    Parameters
    ----------
    error
        A failure, or what a record holds of one; any key may be missing.
    output_dir
        Root of the derivatives.
    """
    failure = error if isinstance(error, Failure) else Failure.from_json(error)
    failure = complete_failure(failure)
    where = ", ".join(part for part in (failure.unit, step_words(failure.step)) if part)
    known = failure.cause in set(Cause)
    cause = Cause(failure.cause) if known else Cause.UNFORESEEN
    words = _BY_CAUSE.get(cause) or _input_words(failure, cause)
    crash, traceback = _crash(failure.crash_file, output_dir)
    message = failure.message or "no message"
    return Explained(where, words.meaning, words.cure, message, crash, traceback)


def _input_words(failure: Failure, cause: Cause) -> _Words:
    place = f"{failure.file}: {failure.field}" if failure.field else failure.file
    meaning = f"{place}: the program found {failure.found}, but needs {failure.expected}."
    cure = f"Correct {failure.file}"
    if cause is Cause.NOT_MODELLED:
        cure = "Leave this run out: the program can't process data of this kind"
    cure = failure.cure or cure
    return _Words(meaning, f"{cure[0].upper()}{cure[1:]}.")


_STEPS: Final = {
    "search": "looking for ASL runs",
    "input": "reading the input",
    "grouping": "putting runs together",
    "motion": "head-motion correction",
    "prepare": "M0, mask, subtraction and averaging",
    "assemble": "putting the series together",
    "register": "registration to the T1w",
    "mask": "the brain of the T1w on the run",
    "tissue": "tissue maps",
    "fit": "estimation",
    "baseline": "least squares",
    "write": "writing results",
    "report": "writing the report",
    "workflow": "running the workflow",
}


def step_words(name: str) -> str:
    """Return the words for a step of the workflow, from its name (``motion0``)."""
    return _STEPS.get(name.rstrip("0123456789"), name)


LONGEST_CRASH: Final = 100_000
"""Bytes of a crash file, from its end, that are looked at."""


def _crash(path: Any, output_dir: Path) -> tuple[str, str]:
    if not path:
        return "", ""
    root = output_dir.resolve()
    try:
        file = (root / str(path)).resolve()
    except (OSError, ValueError, RuntimeError):
        return "", ""
    # A record may name any file; only what runs left in the derivatives goes into a page.
    if not file.is_relative_to(root):
        return str(path), ""
    shown = file.relative_to(root).as_posix()
    try:
        if not file.is_file():
            return shown, ""
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - LONGEST_CRASH))
            text = stream.read(LONGEST_CRASH).decode("utf-8", errors="replace")
    except OSError:
        return shown, ""
    return shown, "\n".join(text.splitlines()[-40:])
