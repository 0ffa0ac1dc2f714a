"""Errors of a run in plain words, each with what would cure it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final


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
class _Kind:
    pattern: str
    meaning: str
    cure: str


_KINDS: Final = (
    _Kind(
        r"found no ASL run",
        "No ASL image of this participant was found.",
        "Check that sub-*/[ses-*/]perf/*_asl.nii.gz exists, that the label is right, and that "
        "--session-label and --bids-filter-file don't leave it out.",
    ),
    _Kind(
        r"out of memory|OutOfMemory|MemoryError|Cannot allocate memory|killed",
        "The computer ran out of memory, or the process was stopped from outside.",
        "Give the job more memory (or lower --nprocs and --batch-size, or use --device cpu if it "
        "was the graphics card's), and run the same command again: it goes on where it stopped.",
    ),
    _Kind(
        r"No space left|Disk quota",
        "The disk is full.",
        "Make room in the output and work folders (--work-dir), and run the same command again.",
    ),
    _Kind(
        r"Permission denied|Read-only file system|no way to write",
        "A folder could not be written to.",
        "Give an output and a work folder that this user may write to; in a container, mount them "
        "writable.",
    ),
    _Kind(
        r"CUDA|cuDNN|no kernel image|HIP error",
        "The graphics card could not be used.",
        "Run again with --device cpu, or update the driver.",
    ),
    _Kind(
        r"not a NIfTI|ImageFileError|CRC check|unexpected end|EOFError|not a gzip",
        "An image file is damaged or not a NIfTI file.",
        "Copy or convert the file again; a git-annex or datalad file must first be fetched "
        "(datalad get).",
    ),
)
_BUG: Final = _Kind(
    "",
    "Something happened that the program did not foresee: a fault of its own, or unusual data.",
    "Run again with --debug. If it happens again, report it with the crash file named below.",
)


def explain(error: Mapping[str, Any], output_dir: Path) -> Explained:
    """Put an error of a record into plain words.

    Parameters
    ----------
    error
        With the keys ``unit``, ``step``, ``message`` and ``crash_file``, any of which may be
        missing.
    output_dir
        Root of the derivatives.
    """
    message = str(error.get("message") or "no message")
    step = str(error.get("step") or "")
    where = ", ".join(part for part in (str(error.get("unit") or ""), step_words(step)) if part)
    crash, traceback = _crash(error.get("crash_file"), output_dir)
    kind = next((k for k in _KINDS if re.search(k.pattern, message, re.IGNORECASE)), None)
    told = re.fullmatch(r"(.*?): found (.*?), expected (.*?)\.(?: Cure: (.*)\.)?", message, re.S)
    if told and kind is None:
        place, found, expected, cure = told.groups()
        meaning = f"{place}: the program found {found}, but needs {expected}."
        cure = f"{cure[0].upper()}{cure[1:]}." if cure else f"Correct {place.split(':')[0]}."
        return Explained(where, meaning, cure, message, crash, traceback)
    kind = kind or _BUG
    return Explained(where, kind.meaning, kind.cure, message, crash, traceback)


_STEPS: Final = {
    "search": "looking for ASL runs",
    "input": "reading the input",
    "grouping": "putting runs together",
    "motion": "head-motion correction",
    "prepare": "M0, mask, subtraction and averaging",
    "assemble": "putting the series together",
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
