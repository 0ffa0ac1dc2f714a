"""Failures that the program did not foresee: a line for the user, a crash file for its authors."""

from __future__ import annotations

import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from asl_bids_app.bids.derivatives import write_text
from asl_bids_app.errors import AslAppError, one_line
from asl_bids_app.failures import Failure
from asl_bids_app.processes import Stopped

CURE = "run again with --debug, and report it with the crash file"


def failure_of(unit: str, step: str, error: Exception) -> Failure:
    """Put any exception into words.

    Parameters
    ----------
    unit
        Series, run or participant that it concerns.
    step
        In which it happened.
    error
        An `AslAppError` speaks for itself; any other one keeps its traceback.
    """
    if isinstance(error, AslAppError):
        return Failure.from_error(unit, step, error)
    words = one_line(f"{type(error).__name__}: {error}")
    if isinstance(error, MemoryError):
        words = "out of memory"
    message = f"{unit}: found an unforeseen fault ({words}), expected none. Cure: {CURE}."
    lines = "".join(traceback.format_exception(error))
    return Failure.from_error(unit, step, error, message, lines)


def write_crash(failure: Failure, folder: Path) -> Failure:
    """Write the traceback of a failure, if it has one, and return it with the file's name."""
    if not failure.traceback:
        return failure
    # Of a name that the file system must take, whatever the unit is called.
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in failure.unit)
    path = folder / f"crash-{failure.step}-{name}.txt"
    write_text(path, failure.traceback)
    return replace(failure, crash_file=str(path), traceback="")


def remove_interrupted(folder: Path) -> None:
    """Remove the crash files of steps that a signal ended: there was no fault."""
    for path in folder.glob("crash-*"):
        with suppress(OSError):
            last = path.read_text(errors="replace").rstrip().rpartition("\n")[2]
            if last.strip().startswith((f"{Stopped.__module__}.Stopped", "KeyboardInterrupt")):
                path.unlink()
    with suppress(OSError):  # of others, or there is no such folder
        folder.rmdir()
